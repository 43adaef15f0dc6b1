// SPDX-License-Identifier: Apache-2.0
#include "infer/delayed_backend.hpp"
#include "mor/policy/expert_choice.hpp"
#include "served/served_holder.hpp"

namespace mor::test {
std::unique_ptr<Served> make_served_late(ServedSetup const& setup) {
  using Holder = ServedHolder<ExpertChoice<>, RecursionWiseCache, DelayedBackend<float>, AnyScheduler>;
  return std::make_unique<Holder>(setup, AnyScheduler::of(setup));
}
}  // namespace mor::test
