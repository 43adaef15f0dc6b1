// SPDX-License-Identifier: Apache-2.0
#include "mor/backend/host/backend.hpp"
#include "mor/policy/expert_choice.hpp"
#include "served/served_holder.hpp"

namespace mor::test {
std::unique_ptr<Served> make_served_expert_choice(ServedSetup const& setup) {
  return make_served_router<ExpertChoice<>, host::Backend<float>>(setup);
}
}  // namespace mor::test
