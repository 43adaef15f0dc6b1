// SPDX-License-Identifier: Apache-2.0
#include "common/any_model.hpp"

#include "common/cuda_models.hpp"
#include "mor/core/config_check.hpp"

namespace examples {

std::unique_ptr<AnyModel> make_model(mor::ModelConfig const& config, DeviceChoice const& device, Purpose purpose) {
  mor::check(config, "model");
  if (device.cuda) return make_cuda_model(config, device.dtype, purpose);
  switch (config.recursion.router) {
    case mor::RouterKind::AllTokens: return make_all_tokens(config, device.threads);
    case mor::RouterKind::ExpertChoice: return make_expert_choice(config, device.threads);
    case mor::RouterKind::TokenChoice: return make_token_choice(config, device.threads);
  }
  mor::fail(mor::ErrorCode::InvalidConfig, "unknown router", "router");
}

}  // namespace examples
