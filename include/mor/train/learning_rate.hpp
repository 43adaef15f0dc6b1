// SPDX-License-Identifier: Apache-2.0
/// @file
/// The learning rate of each step: warm-up, then constant, linear, cosine, or trapezoid (warm-up, stable, decay).
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>
#include <string>
#include <string_view>

namespace mor::train {

/// A learning-rate schedule as plain data. Relative to the peak, with w warm-up steps, N steps in all and the minimum
/// ratio m, step n (0-based) has n / w while n < w, whatever the kind. Then, with t = (n - w) / (N - w):
///
/// | kind              | w <= n < N                                                                | n >= N |
/// | ----------------- | ------------------------------------------------------------------------- | ------ |
/// | Constant          | 1                                                                         | 1      |
/// | Linear            | m + (1 - m) (1 - t)                                                       | m      |
/// | Cosine            | m + (1 - m) (1 + cos(pi t)) / 2                                           | m      |
/// | WarmupStableDecay | 1; in the last d steps, from p = N - d on, m + (1 - m) (1 - (n - p) / d)  | m      |
struct LearningRateSchedule {
  enum class Kind { Constant, Linear, Cosine, WarmupStableDecay };

  Kind kind = Kind::Cosine;
  double peak = 3e-3;
  Index warmup_steps = 0;
  Index total_steps = 0;
  std::optional<Index> decay_steps{};     ///< trapezoid: steps of the final decay; default: `decay_fraction` of all
  double decay_fraction = 0.2;          ///< trapezoid: share of all steps that decay, rounded to whole steps
  std::optional<double> minimum_ratio{};  ///< final rate over peak; default 0.1 with cosine, 0 with the others

  /// Steps of the trapezoid's final decay.
  [[nodiscard]] Index resolved_decay_steps() const {
    if (decay_steps) return *decay_steps;
    return std::max<Index>(1, std::llround(decay_fraction * static_cast<double>(total_steps)));
  }

  /// Final rate over peak.
  [[nodiscard]] double resolved_minimum_ratio() const {
    return minimum_ratio.value_or(kind == Kind::Cosine ? 0.1 : 0.0);
  }

  /// @throws mor::error InvalidConfig naming the field that cannot work
  void validate() const {
    check(std::isfinite(peak) && peak > 0.0, "peak", "a positive number", text_of(peak));
    check(total_steps >= 1, "total_steps", "at least 1", text_of(total_steps));
    check(warmup_steps >= 0 && warmup_steps <= total_steps, "warmup_steps",
          "0 to total_steps = " + text_of(total_steps), text_of(warmup_steps));
    double const ratio = resolved_minimum_ratio();
    check(ratio >= 0.0 && ratio <= 1.0, "minimum_ratio", "0 to 1", text_of(ratio));
    if (kind != Kind::WarmupStableDecay) return;
    check(decay_fraction > 0.0 && decay_fraction <= 1.0, "decay_fraction", "more than 0, at most 1",
          text_of(decay_fraction));
    Index const decay = resolved_decay_steps();
    check(decay >= 1 && decay <= total_steps - warmup_steps, "decay_steps",
          "1 to total_steps - warmup_steps = " + text_of(total_steps - warmup_steps), text_of(decay));
  }

  /// The learning rate of one step; step 0 is the first.
  /// @throws mor::error InvalidArgument for a negative step
  [[nodiscard]] double at(Index step) const {
    if (step < 0) fail(ErrorCode::InvalidArgument, "negative step", "LearningRateSchedule", "0 or more", text_of(step));
    return peak * factor(step);
  }

 private:
  static void check(bool good, char const* field, std::string expected, std::string got) {
    if (good) return;
    fail(ErrorCode::InvalidConfig, "the learning-rate schedule cannot work",
         std::string("LearningRateSchedule: field ") + field, std::move(expected), std::move(got));
  }

  static double ratio(Index part, Index whole) { return static_cast<double>(part) / static_cast<double>(whole); }

  [[nodiscard]] double factor(Index step) const {
    if (step < warmup_steps) return ratio(step, warmup_steps);
    if (kind == Kind::Constant) return 1.0;
    double const minimum = resolved_minimum_ratio();
    if (step >= total_steps) return minimum;
    return minimum + (1.0 - minimum) * shape(step);
  }

  /// The schedule after warm-up and before the end, for a minimum of 0.
  [[nodiscard]] double shape(Index step) const {
    if (kind == Kind::WarmupStableDecay) {
      Index const decay = resolved_decay_steps(), start = total_steps - decay;
      return step < start ? 1.0 : 1.0 - ratio(step - start, decay);
    }
    double const progress = ratio(step - warmup_steps, total_steps - warmup_steps);
    return kind == Kind::Linear ? 1.0 - progress : 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
  }
};

/// The name of a schedule in configuration files and on command lines.
[[nodiscard]] inline std::string_view to_string(LearningRateSchedule::Kind kind) noexcept {
  switch (kind) {
    case LearningRateSchedule::Kind::Constant: return "constant";
    case LearningRateSchedule::Kind::Linear: return "linear";
    case LearningRateSchedule::Kind::Cosine: return "cosine";
    case LearningRateSchedule::Kind::WarmupStableDecay: return "trapezoid";
  }
  return "unknown";
}

/// The schedule of a name; `wsd` (warm-up, stable, decay) is the same as `trapezoid`.
/// @throws mor::error InvalidConfig listing the known names
[[nodiscard]] inline LearningRateSchedule::Kind parse_schedule_kind(std::string_view name) {
  using Kind = LearningRateSchedule::Kind;
  for (Kind const kind : {Kind::Constant, Kind::Linear, Kind::Cosine, Kind::WarmupStableDecay}) {
    if (name == to_string(kind)) return kind;
  }
  if (name == "wsd") return Kind::WarmupStableDecay;
  fail(ErrorCode::InvalidConfig, "unknown learning-rate schedule", "LearningRateSchedule: field kind",
       "one of constant, linear, cosine, trapezoid, wsd", std::string(name));
}

}  // namespace mor::train
