// SPDX-License-Identifier: Apache-2.0
/// @file
/// The order in which top-k selection ranks candidates, as an integer key: a radix sort and a comparison sort that both
/// use it choose the same rows, also where scores are equal, negative zero or NaN.
#pragma once

#include "mor/core/types.hpp"

#include <cstdint>

namespace mor::math {

/// An unsigned integer that grows with the score. Zeros of both signs are equal; NaN ranks below everything.
[[nodiscard]] MOR_HOST_DEVICE inline std::uint32_t ordered_key(float score) {
  if (score != score) return 0;
  auto const bits = __builtin_bit_cast(std::uint32_t, score == 0.0F ? 0.0F : score);
  return (bits >> 31U) != 0 ? ~bits : bits | 0x80000000U;
}

/// The same for a double.
[[nodiscard]] MOR_HOST_DEVICE inline std::uint64_t ordered_key(double score) {
  if (score != score) return 0;
  auto const bits = __builtin_bit_cast(std::uint64_t, score == 0.0 ? 0.0 : score);
  return (bits >> 63U) != 0 ? ~bits : bits | 0x8000000000000000ULL;
}

/// The score of a key, but for NaN; zeros come back positive.
[[nodiscard]] MOR_HOST_DEVICE inline float ordered_score(std::uint32_t key) {
  return __builtin_bit_cast(float, (key >> 31U) != 0 ? key & 0x7fffffffU : ~key);
}

/// Whether candidate `a` is chosen before `b`: the larger score first, the lower position on a tie.
template <class Key>
[[nodiscard]] MOR_HOST_DEVICE constexpr bool chosen_before(Key key_a, Row place_a, Key key_b, Row place_b) {
  return key_a != key_b ? key_a > key_b : place_a < place_b;
}

}  // namespace mor::math
