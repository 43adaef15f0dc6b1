// SPDX-License-Identifier: Apache-2.0
/// @file
/// `Forecast`: what a training run of a model will take, found by running the model on `mor::trace::Backend`, which
/// does no arithmetic and takes no memory.
#pragma once

#include "common/device_choice.hpp"
#include "mor/core/config.hpp"
#include "mor/core/types.hpp"
#include "mor/model/recompute.hpp"

namespace examples {

/// Memory in bytes, and FLOPs of matrix products.
struct Forecast {
  mor::Index parameters = 0;
  mor::Index weight_bytes =
      0;  ///< parameters, their copies in the type of the computation, and the router's statistics
  mor::Index gradient_bytes = 0;
  mor::Index optimizer_bytes = 0;   ///< both moments
  mor::Index workspace_bytes = 0;   ///< what a backend holds for matrix products
  mor::Index activation_bytes = 0;  ///< arena of the larger of a training micro-batch and a validation batch
  double training_flops = 0.0;      ///< a token, forward and backward, with every token as deep as its router allows

  double known_flops = 0.0;  ///< a token, at a mean depth of `known_depth` recursions
  double known_depth = 0.0;
  double recursion_flops = 0.0;  ///< what one recursion more on average adds

  [[nodiscard]] mor::Index total_bytes() const {
    return weight_bytes + gradient_bytes + optimizer_bytes + workspace_bytes + activation_bytes;
  }
  /// FLOPs a token of training steps in which tokens took so many recursions on average. Linear in the depth: exact for
  /// the layers' products, an estimate for attention.
  [[nodiscard]] double flops_at(double mean_depth) const {
    return known_flops + recursion_flops * (mean_depth - known_depth);
  }
};

/// A micro-batch of `sequences` rows of `context` tokens.
struct ForecastOptions {
  mor::Index sequences = 1;
  mor::Index context = 1;
  mor::Index capacity_warmup_calls = 0;
  mor::Recompute recompute = mor::Recompute::None;  ///< counts for memory; FLOPs are those of a step that keeps all
  DeviceChoice device{};
};

/// Memory assumes that every token goes as deep as the router allows.
[[nodiscard]] Forecast forecast(mor::ModelConfig const& config, ForecastOptions const& options);

/// @name One for each router, each in a source file of its own, so that they compile side by side
/// The configuration has been checked, and names this router.
/// @{
[[nodiscard]] Forecast forecast_all_tokens(mor::ModelConfig const& config, ForecastOptions const& options);
[[nodiscard]] Forecast forecast_expert_choice(mor::ModelConfig const& config, ForecastOptions const& options);
[[nodiscard]] Forecast forecast_token_choice(mor::ModelConfig const& config, ForecastOptions const& options);
/// @}

}  // namespace examples
