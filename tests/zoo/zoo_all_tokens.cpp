// SPDX-License-Identifier: Apache-2.0
#include "mor/backend/host/backend.hpp"
#include "mor/policy/all_tokens.hpp"
#include "zoo/zoo_holder.hpp"

namespace mor::test {
std::unique_ptr<ZooModel> make_all_tokens(ModelConfig const& config) { return make_with_router<AllTokens, host::Backend<double>>(config); }
}  // namespace mor::test
