// SPDX-License-Identifier: Apache-2.0
/// @file
/// How well a model predicts held-out tokens.
#pragma once

#include "common/any_model.hpp"
#include "mor/core/config.hpp"

#include <cmath>
#include <numbers>
#include <vector>

namespace examples {

/// A loss as sums, so that batches of different sizes add up.
struct TextLoss {
  double nats = 0.0;  ///< negative log-likelihood of all targets
  Index targets = 0;
  Index bytes = 0;      ///< of the targets' text; 0 where no tokenizer says
  double depths = 0.0;  ///< recursions of all rows
  Index rows = 0;

  [[nodiscard]] double nats_per_token() const { return nats / static_cast<double>(targets); }
  [[nodiscard]] double bits_per_byte() const { return nats / std::numbers::ln2 / static_cast<double>(bytes); }
  [[nodiscard]] double mean_depth() const { return depths / static_cast<double>(rows); }
};

/// Adds a batch. Every target counts.
inline void add_loss(TextLoss& sum, AnyModel& model, mor::Batch const& batch, std::span<Token const> targets,
                     mor::RoutingMode mode) {
  model.loss(batch, targets, mode);
  auto const report = model.report();
  sum.nats += report.loss_sum;
  sum.targets += static_cast<Index>(targets.size());
  sum.depths += report.mean_depth() * static_cast<double>(report.num_rows);
  sum.rows += report.num_rows;
}

/// The routing modes whose losses are worth knowing of a model: as in training, and the causal rule where it differs.
[[nodiscard]] inline std::vector<mor::RoutingMode> reported_modes(mor::RecursionConfig const& recursion) {
  using mor::RoutingMode;
  if (recursion.router == mor::RouterKind::AllTokens) return {RoutingMode::FullDepth};
  if (recursion.router == mor::RouterKind::TokenChoice) return {RoutingMode::TopK};  // causal by construction
  bool const auxiliary = recursion.sampling == mor::RouterSampling::AuxRouter && !recursion.random_router;
  return {RoutingMode::TopK, auxiliary ? RoutingMode::AuxRouter : RoutingMode::Threshold};
}

/// The causal mode that a model generates with unless told otherwise.
[[nodiscard]] inline mor::RoutingMode generation_mode(mor::RecursionConfig const& recursion) {
  return recursion.router == mor::RouterKind::ExpertChoice ? reported_modes(recursion).back()
                                                           : mor::RoutingMode::Threshold;
}

}  // namespace examples
