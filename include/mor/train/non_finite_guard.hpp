// SPDX-License-Identifier: Apache-2.0
/// @file
/// `NonFiniteGuard`: what becomes of a run whose updates are not made because their loss or gradient is not finite.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/train/update_report.hpp"

#include <cmath>
#include <string>
#include <string_view>

namespace mor::train {

/// What to do with a step whose loss or gradient is not finite.
enum class NonFinitePolicy {
  Halt,  ///< stop training at once
  Skip   ///< leave the weights as they are and go on, a limited number of times in a row
};

[[nodiscard]] inline std::string_view to_string(NonFinitePolicy policy) noexcept {
  return policy == NonFinitePolicy::Halt ? "halt" : "skip";
}

/// @throws mor::error InvalidConfig listing the known names
[[nodiscard]] inline NonFinitePolicy parse_non_finite_policy(std::string_view name) {
  if (name == "halt") return NonFinitePolicy::Halt;
  if (name == "skip") return NonFinitePolicy::Skip;
  fail(ErrorCode::InvalidConfig, "unknown policy for non-finite values", "NonFinitePolicy", "halt or skip",
       std::string(name));
}

struct NonFiniteOptions {
  NonFinitePolicy policy = NonFinitePolicy::Skip;
  Index max_skips_in_row = 5;  ///< one more ends the training
};

/// What a guard remembers; part of the training state.
struct NonFiniteState {
  Index skips_in_row = 0;
  Index skips_in_all = 0;
  Index accepted = 0;       ///< steps whose update was applied
  double mean_loss = 0.0;   ///< exponential average of the accepted losses, weight 1/50 a step; 0 before the first
  bool operator==(NonFiniteState const&) const = default;
};

/// Sees every step after its update, which the optimizer made or left out by the rule of its settings. What was left out
/// enters no statistic: one NaN in a running mean would stay there and make every later comparison false.
class NonFiniteGuard {
 public:
  explicit NonFiniteGuard(NonFiniteOptions const& options = {}) : options_(options) {}

  /// @return nothing, or why the update was left out, with the true values
  /// @throws mor::error NonFinite when the policy is to halt, or after too many skips in a row; the weights are those
  ///         of before the step, but the caller should keep the last checkpoint
  [[nodiscard]] std::string judge(Index step, UpdateReport const& update) {
    if (update.applied) {
      state_.skips_in_row = 0;
      // Corrected for the short start, so that the first value counts fully.
      double const weight = std::fmax(0.02, 1.0 / static_cast<double>(++state_.accepted));
      state_.mean_loss += weight * (update.loss - state_.mean_loss);
      return {};
    }
    ++state_.skips_in_row;
    ++state_.skips_in_all;
    std::string const values = "loss " + text_of(update.loss) + ", gradient norm " + text_of(update.norms.worst());
    std::string const where = "training step " + text_of(step);
    std::string const wanted = "magnitudes of at most " + text_of(update.largest_accepted);
    if (options_.policy == NonFinitePolicy::Halt) {
      fail(ErrorCode::NonFinite, "the step is not finite and the policy is to halt", where, wanted, values);
    }
    if (state_.skips_in_row > options_.max_skips_in_row) {
      fail(ErrorCode::NonFinite, "too many updates skipped in a row; lower the learning rate or look at the data",
           where, wanted + " within " + text_of(options_.max_skips_in_row) + " skips", values);
    }
    return where + ": update skipped: " + values + " (skip " + text_of(state_.skips_in_row) + " of at most " +
           text_of(options_.max_skips_in_row) + " in a row)";
  }

  [[nodiscard]] NonFiniteState const& state() const { return state_; }
  void restore(NonFiniteState const& state) { state_ = state; }

 private:
  NonFiniteOptions options_;
  NonFiniteState state_;
};

}  // namespace mor::train
