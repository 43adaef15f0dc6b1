// SPDX-License-Identifier: Apache-2.0
/// @file
/// The line of text that a training program shows for a step.
#pragma once

#include "mor/core/finite.hpp"
#include "mor/core/types.hpp"
#include "mor/train/number_text.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <string>

namespace mor::train {

/// What the line shows.
struct Progress {
  Index step = 0;
  Index total_steps = 0;
  double loss = 0.0;           ///< nats a token
  double gradient_norm = 0.0;  ///< before clipping
  double learning_rate = 0.0;
  double milliseconds = 0.0;
  double tokens_per_second = 0.0;
  double seconds_left = 0.0;
  double mean_depth = 0.0;  ///< recursions a token took
  Index num_recursions = 1;
  std::optional<double> utilization{};  ///< model FLOPs done over the device's peak, 0 to 1; shown where it is known
};

/// A length of time in its two largest units: 41s, 2m41s, 1h02m, 3d04h.
[[nodiscard]] inline std::string duration_text(double seconds) {
  constexpr double century = 3.2e9;
  if (!is_finite(seconds) || seconds < 0.0 || seconds > century) return "?";
  Index const whole = std::llround(seconds);
  auto const two = [](Index value) { return (value < 10 ? "0" : "") + std::to_string(value); };
  if (whole < 60) return std::to_string(whole) + "s";
  if (whole < 3600) return std::to_string(whole / 60) + "m" + two(whole % 60) + "s";
  if (whole < 86400) return std::to_string(whole / 3600) + "h" + two(whole / 60 % 60) + "m";
  return std::to_string(whole / 86400) + "d" + two(whole / 3600 % 24) + "h";
}

/// A rate in three or four characters: 950, 5.0k, 81.2k, 1.3M.
[[nodiscard]] inline std::string rate_text(double rate) {
  if (!is_finite(rate)) return detail::non_finite_text(rate);
  double const size = std::fabs(rate);
  if (size < 999.5) return detail::fixed_text(rate, 0);
  if (size < 999.95e3) return detail::fixed_text(rate / 1e3, 1) + "k";
  if (size < 999.95e6) return detail::fixed_text(rate / 1e6, 1) + "M";
  return detail::fixed_text(rate / 1e9, 1) + "G";
}

/// The line, without a line break. The columns stay in place from step to step.
[[nodiscard]] inline std::string progress_line(Progress const& progress) {
  std::string const total = std::to_string(progress.total_steps);
  std::size_t const width = std::max<std::size_t>(5, total.size());
  std::string line = "step " + detail::padded(std::to_string(progress.step), width) + "/" + total;
  line += "  loss " + detail::fixed_text(progress.loss, 4);
  line += "  grad " + detail::fixed_text(progress.gradient_norm, 2);
  line += "  lr " + detail::scientific_text(progress.learning_rate, 1);
  line += "  " + detail::fixed_text(progress.milliseconds, progress.milliseconds < 9.95 ? 1 : 0) + " ms";
  line += "  " + rate_text(progress.tokens_per_second) + " tok/s";
  if (progress.utilization) line += "  mfu " + detail::fixed_text(*progress.utilization * 100.0, 1) + "%";
  line += "  eta " + duration_text(progress.seconds_left);
  line += "  depth " + detail::fixed_text(progress.mean_depth, 2) + "/" + std::to_string(progress.num_recursions);
  return line;
}

}  // namespace mor::train
