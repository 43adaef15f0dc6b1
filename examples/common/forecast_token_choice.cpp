// SPDX-License-Identifier: Apache-2.0
#include "common/model_forecast.hpp"
#include "mor/policy/token_choice.hpp"

namespace examples {

Forecast forecast_token_choice(mor::ModelConfig const& config, ForecastOptions const& options) {
  return forecast_with_cache<mor::TokenChoice<>>(config, options);
}

}  // namespace examples
