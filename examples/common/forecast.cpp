// SPDX-License-Identifier: Apache-2.0
#include "common/forecast.hpp"

#include "mor/core/config_check.hpp"

namespace examples {

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
