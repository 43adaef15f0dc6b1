// SPDX-License-Identifier: Apache-2.0
#include "mor/backend/host/backend.hpp"
#include "mor/policy/all_tokens.hpp"
#include "served/served_holder.hpp"

namespace mor::test {
std::unique_ptr<Served> make_served_all_tokens(ServedSetup const& setup) {
  if (setup.shipped_scheduler) {
    using Holder = ServedHolder<AllTokens, RecursionWiseCache, host::Backend<float>, infer::TickScheduler>;
    return std::make_unique<Holder>(setup, infer::TickScheduler{});
  }
  return make_served_router<AllTokens, host::Backend<float>>(setup);
}
}  // namespace mor::test
