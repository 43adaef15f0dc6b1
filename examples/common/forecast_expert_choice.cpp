// SPDX-License-Identifier: Apache-2.0
#include "common/model_forecast.hpp"
#include "mor/policy/expert_choice.hpp"

namespace examples {

Forecast forecast_expert_choice(mor::ModelConfig const& config, ForecastOptions const& options) {
  return forecast_with_cache<mor::ExpertChoice<>>(config, options);
}

}  // namespace examples
