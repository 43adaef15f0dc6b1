// SPDX-License-Identifier: Apache-2.0
/// @file
/// The arithmetic of a chart's axis: which range to show, where its ticks go, and where a value lies on the page.
#pragma once

#include "mor/io/html_text.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

namespace mor::io {

/// Maps values to page units, linearly or logarithmically.
struct AxisScale {
  double low = 0.0, high = 1.0;   ///< values at the ends; low < high, both > 0 when logarithmic
  double start = 0.0, end = 1.0;  ///< page positions of the ends
  bool logarithmic = false;

  [[nodiscard]] double place(double value) const {
    double const share = logarithmic ? std::log(value / low) / std::log(high / low) : (value - low) / (high - low);
    return start + (end - start) * share;
  }
  [[nodiscard]] bool contains(double value) const { return value >= low && value <= high; }
};

/// A mark on an axis.
struct Tick {
  double value;
  std::string label;
};

namespace detail {

/// The step of 1, 2 or 5 times a power of ten that cuts `width` into about `count` parts.
[[nodiscard]] inline double tick_step(double width, int count) {
  double const raw = width / count;
  double const power = std::pow(10.0, std::floor(std::log10(raw)));
  double const ratio = raw / power;
  return power * (ratio < 1.5 ? 1.0 : ratio < 3.5 ? 2.0 : ratio < 7.5 ? 5.0 : 10.0);
}

/// Decimals that tell multiples of `step` apart.
[[nodiscard]] inline int step_decimals(double step) {
  return std::max(0, static_cast<int>(-std::floor(std::log10(step) + 1e-9)));
}

}  // namespace detail

/// The label of a value on an axis that ends at `high` and whose marks are `step` apart. All labels of an axis have the
/// same form: 0.5, 1.0; 2,000, 4,000; 5k, 10k; 0.5M, 1.0M; 1e-04, 2e-04.
[[nodiscard]] inline std::string tick_label(double value, double step, double high) {
  if (value == 0) return "0";
  if (high >= 1e10 || step < 9e-6) return significant(value, 3);
  if (high >= 1e9) return fixed(value / 1e9, detail::step_decimals(step / 1e9)) + "B";
  if (high >= 1e6) return fixed(value / 1e6, detail::step_decimals(step / 1e6)) + "M";
  if (high >= 1e4) return fixed(value / 1e3, detail::step_decimals(step / 1e3)) + "k";
  return step >= 1 ? grouped(static_cast<Index>(std::llround(value))) : fixed(value, detail::step_decimals(step));
}

/// Marks at round values inside the range, about `count` of them.
[[nodiscard]] inline std::vector<Tick> axis_ticks(AxisScale const& scale, int count) {
  std::vector<Tick> ticks;
  if (scale.logarithmic) {
    double const decades = std::log10(scale.high / scale.low);
    std::vector<double> const mantissas = decades > 2.5 ? std::vector<double>{1} : std::vector<double>{1, 2, 5};
    int const stride = std::max(1, static_cast<int>(decades / 6.0));
    for (int power = static_cast<int>(std::floor(std::log10(scale.low))); std::pow(10.0, power) <= scale.high;
         power += stride) {
      for (double const mantissa : mantissas) {
        double const value = mantissa * std::pow(10.0, power);
        if (scale.contains(value)) ticks.push_back({value, significant(value, 3)});
      }
    }
    return ticks;
  }
  double const step = detail::tick_step(scale.high - scale.low, count);
  double const first = std::ceil(scale.low / step - 1e-9);
  for (double i = 0; (first + i) * step <= scale.high + 1e-9 * step; ++i) {
    double const value = (first + i) * step;
    ticks.push_back({value, tick_label(value, step, scale.high)});
  }
  return ticks;
}

/// The range of values that a chart shows. A few values far above all others (spikes of a loss) do not flatten the
/// rest: they lie beyond the range, and the chart marks them at its edge.
/// @param values     finite values, in any order; may be empty
/// @param from_zero  the range begins at 0 although no value lies there
[[nodiscard]] inline AxisScale value_range(std::vector<double> values, bool from_zero, bool logarithmic) {
  AxisScale scale;
  scale.logarithmic = logarithmic;
  if (values.empty()) {
    scale.low = logarithmic ? 0.1 : 0.0;
    return scale;
  }
  std::sort(values.begin(), values.end());
  auto const quantile = [&](double share) {
    return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1))];
  };
  scale.low = values.front();
  scale.high = values.back();
  if (!logarithmic) {
    double const usual = quantile(0.98), spread = usual - values.front();
    if (values.size() >= 20 && scale.high > usual + 4.0 * spread && spread > 0) scale.high = usual + 0.25 * spread;
    if (from_zero) scale.low = std::min(0.0, scale.low);
    double const width = scale.high > scale.low ? scale.high - scale.low : std::max(1e-9, std::abs(scale.high));
    if (!from_zero || scale.low < 0) scale.low -= 0.05 * width;
    scale.high += 0.05 * width;
  } else {
    scale.low /= 1.15;
    scale.high *= 1.15;
  }
  return scale;
}

}  // namespace mor::io
