// SPDX-License-Identifier: Apache-2.0
/// @file
/// Whether a number is one, whatever the compiler assumes about floating point.
#pragma once

#include "mor/core/types.hpp"

#include <cstdint>

namespace mor {

/// Whether a number is neither NaN nor infinite, from its bits: true also in programs compiled with -ffast-math,
/// where the compiler may take std::isfinite for always true.
[[nodiscard]] MOR_HOST_DEVICE inline bool is_finite(double value) {
  constexpr std::uint64_t exponent = 0x7ff0000000000000ULL;
  return (__builtin_bit_cast(std::uint64_t, value) & exponent) != exponent;
}

}  // namespace mor
