// SPDX-License-Identifier: Apache-2.0
#include "common/any_model.hpp"

#include "mor/core/config_check.hpp"

namespace examples {

std::unique_ptr<AnyModel> make_model(mor::ModelConfig const& config, int threads) {
  mor::check(config, "model");
  switch (config.recursion.router) {
    case mor::RouterKind::AllTokens: return make_all_tokens(config, threads);
    case mor::RouterKind::ExpertChoice: return make_expert_choice(config, threads);
    case mor::RouterKind::TokenChoice: return make_token_choice(config, threads);
  }
  mor::fail(mor::ErrorCode::InvalidConfig, "unknown router", "router");
}

Forecast forecast(mor::ModelConfig const& config, ForecastOptions const& options) {
  mor::check(config, "model");
  switch (config.recursion.router) {
    case mor::RouterKind::AllTokens: return forecast_all_tokens(config, options);
    case mor::RouterKind::ExpertChoice: return forecast_expert_choice(config, options);
    case mor::RouterKind::TokenChoice: return forecast_token_choice(config, options);
  }
  mor::fail(mor::ErrorCode::InvalidConfig, "unknown router", "router");
}

}  // namespace examples
