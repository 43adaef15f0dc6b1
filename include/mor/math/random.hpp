// SPDX-License-Identifier: Apache-2.0
/// @file
/// Uniform random numbers that are the same on every backend and in every precision.
#pragma once

#include "mor/core/philox.hpp"
#include "mor/core/types.hpp"

#include <cstdint>
#include <limits>

namespace mor::math {

/// A double in (0, 1) as T, still in (0, 1): rounding to float must not give 1.
template <class T>
[[nodiscard]] MOR_HOST_DEVICE constexpr T inside_unit(double value) {
  T const largest = T(1) - std::numeric_limits<T>::epsilon() / T(2);
  T const rounded = static_cast<T>(value);
  return rounded < largest ? rounded : largest;
}

/// The random score of a token for one column (recursion): a pure function of key, counter, position and column.
template <class T>
[[nodiscard]] constexpr T random_score(std::uint64_t key, std::uint64_t counter, Row position, Index column) {
  auto const high = counter * 64 + static_cast<std::uint64_t>(column);
  return inside_unit<T>(uniform01(Philox{key}.block(static_cast<std::uint64_t>(position), high)[0]));
}

}  // namespace mor::math
