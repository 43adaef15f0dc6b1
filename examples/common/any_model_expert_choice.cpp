// SPDX-License-Identifier: Apache-2.0
#include "common/host_holder.hpp"
#include "mor/policy/expert_choice.hpp"

namespace examples {

std::unique_ptr<AnyModel> make_expert_choice(mor::ModelConfig const& config, int threads) {
  return make_on_host<mor::ExpertChoice<>>(config, threads);
}

}  // namespace examples
