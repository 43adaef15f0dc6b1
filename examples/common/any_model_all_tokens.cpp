// SPDX-License-Identifier: Apache-2.0
#include "common/host_holder.hpp"
#include "mor/policy/all_tokens.hpp"

namespace examples {

std::unique_ptr<AnyModel> make_all_tokens(mor::ModelConfig const& config, int threads) {
  return make_on_host<mor::AllTokens>(config, threads);
}

}  // namespace examples
