// SPDX-License-Identifier: Apache-2.0
/// @file
/// `NonFiniteGuard`: decides from a step's loss and gradient norm whether its update may touch the weights.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
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

/// Whether a number is neither NaN nor infinite, from its bits: true also in programs compiled with -ffast-math,
/// where the compiler may take std::isfinite for always true.
[[nodiscard]] inline bool is_finite(double value) {
  constexpr std::uint64_t exponent = 0x7ff0000000000000ULL;
  return (std::bit_cast<std::uint64_t>(value) & exponent) != exponent;
}

struct NonFiniteOptions {
  NonFinitePolicy policy = NonFinitePolicy::Skip;
  Index max_skips_in_row = 5;  ///< one more ends the training
  /// A finite loss or gradient norm beyond this is rejected too: a value that a bit error or an overflow on the way
  /// made, not one that training reaches.
  double largest_accepted = 1e20;
};

/// What a guard remembers; part of the training state.
struct NonFiniteState {
  Index skips_in_row = 0;
  Index skips_in_all = 0;
  Index accepted = 0;       ///< steps whose update was applied
  double mean_loss = 0.0;   ///< exponential average of the accepted losses, weight 1/50 a step; 0 before the first
  bool operator==(NonFiniteState const&) const = default;
};

/// The decision on one step.
struct UpdateVerdict {
  bool apply = true;
  std::string message;  ///< empty, or why the update was rejected, with the true values
};

/// Sees every step before its update. A rejected value enters no statistic: one NaN in a running mean would stay there
/// and make every later comparison false.
class NonFiniteGuard {
 public:
  explicit NonFiniteGuard(NonFiniteOptions const& options = {}) : options_(options) {}

  /// @param gradient_norm  global norm before clipping
  /// @throws mor::error NonFinite when the policy is to halt, or after too many skips in a row; the caller must not
  ///         apply the update and should keep the last checkpoint
  [[nodiscard]] UpdateVerdict judge(Index step, double loss, double gradient_norm) {
    if (acceptable(loss) && acceptable(gradient_norm)) {
      state_.skips_in_row = 0;
      // Corrected for the short start, so that the first value counts fully.
      double const weight = std::fmax(0.02, 1.0 / static_cast<double>(++state_.accepted));
      state_.mean_loss += weight * (loss - state_.mean_loss);
      return {};
    }
    ++state_.skips_in_row;
    ++state_.skips_in_all;
    std::string const values = "loss " + text_of(loss) + ", gradient norm " + text_of(gradient_norm);
    std::string const where = "training step " + text_of(step);
    std::string const wanted = "magnitudes of at most " + text_of(options_.largest_accepted);
    if (options_.policy == NonFinitePolicy::Halt) {
      fail(ErrorCode::NonFinite, "the step is not finite and the policy is to halt", where, wanted, values);
    }
    if (state_.skips_in_row > options_.max_skips_in_row) {
      fail(ErrorCode::NonFinite, "too many updates skipped in a row; lower the learning rate or look at the data",
           where, wanted + " within " + text_of(options_.max_skips_in_row) + " skips", values);
    }
    return {false, where + ": update skipped: " + values + " (skip " + text_of(state_.skips_in_row) + " of at most " +
                       text_of(options_.max_skips_in_row) + " in a row)"};
  }

  [[nodiscard]] NonFiniteState const& state() const { return state_; }
  void restore(NonFiniteState const& state) { state_ = state; }

 private:
  [[nodiscard]] bool acceptable(double value) const {
    return is_finite(value) && std::fabs(value) <= options_.largest_accepted;
  }

  NonFiniteOptions options_;
  NonFiniteState state_;
};

}  // namespace mor::train
