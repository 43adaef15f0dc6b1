// SPDX-License-Identifier: Apache-2.0
#include "common/model_forecast.hpp"
#include "mor/policy/all_tokens.hpp"

namespace examples {

Forecast forecast_all_tokens(mor::ModelConfig const& config, ForecastOptions const& options) {
  return forecast_with_cache<mor::AllTokens>(config, options);
}

}  // namespace examples
