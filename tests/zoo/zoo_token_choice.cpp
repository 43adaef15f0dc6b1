// SPDX-License-Identifier: Apache-2.0
#include "mor/backend/host/backend.hpp"
#include "mor/policy/token_choice.hpp"
#include "zoo/zoo_holder.hpp"

namespace mor::test {
std::unique_ptr<ZooModel> make_token_choice(ModelConfig const& config) { return make_with_router<TokenChoice<>, host::Backend<double>>(config); }
}  // namespace mor::test
