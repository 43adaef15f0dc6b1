// SPDX-License-Identifier: Apache-2.0
/// @file
/// The median, for benchmarks of every backend.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace mor::bench {

/// The middle of some measurements: what a busy machine does not disturb, unlike the mean, and does not flatter, unlike the
/// best.
[[nodiscard]] inline double median(std::vector<double> values) {
  auto const middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace mor::bench
