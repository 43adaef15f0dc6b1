// SPDX-License-Identifier: Apache-2.0
/// @file
/// The scalar rules of sampling, the same bits on the host and on a device. The weight of a token is an integer, so sums
/// of weights are exact in any order: from the same logits every backend draws the same token.
#pragma once

#include "mor/core/philox.hpp"
#include "mor/core/types.hpp"

#include <cmath>
#include <cstdint>

namespace mor::math {

/// The weight of the likeliest token; that of others is a fraction of it, rounded down, so tokens less likely by more than
/// 2^40 are never drawn. A sum of 2^23 weights fits.
inline constexpr std::uint64_t kLargestSampleWeight = std::uint64_t{1} << 40U;
inline constexpr float kSampleLog2E = 1.44269504F;

/// One rounding, whatever a compiler makes of sums of products.
[[nodiscard]] MOR_HOST_DEVICE inline float fused(float a, float b, float c) { return std::fma(a, b, c); }
[[nodiscard]] MOR_HOST_DEVICE inline double fused(double a, double b, double c) { return std::fma(a, b, c); }

/// The logit of a token that occurred before (Keskar et al., "CTRL", 2019).
template <class Real>
[[nodiscard]] MOR_HOST_DEVICE inline Real penalised_logit(Real logit, float penalty) {
  Real const factor = static_cast<Real>(penalty);
  return logit > Real(0) ? logit / factor : fused(logit, factor, Real(0));
}

/// What differences of logits are multiplied by to get powers of two. `temperature` is positive.
[[nodiscard]] MOR_HOST_DEVICE inline float sample_scale(float temperature) {
  double const scale = 1.4426950408889634 / static_cast<double>(temperature);
  return static_cast<float>(scale < 1e38 ? scale : 1e38);
}

/// How far a logit lies below the largest; 0 or less.
template <class Real>
[[nodiscard]] MOR_HOST_DEVICE inline float below_largest(Real logit, Real largest) {
  return logit == largest ? 0.0F : static_cast<float>(logit - largest);
}

/// The power of two that a weight stands for; 0 or less.
[[nodiscard]] MOR_HOST_DEVICE inline float sample_power(float below, float scale) { return fused(below, scale, 0.0F); }

/// floor(2^40 * 2^power), with a relative error of 7e-8 in the power of two.
[[nodiscard]] MOR_HOST_DEVICE inline std::uint64_t sample_weight(float power) {
  if (!(power > -41.0F)) return 0;
  constexpr float shift = 12582912.0F;  // 1.5 * 2^23: adding it rounds to a whole number
  float const shifted = power + shift;
  int const whole = static_cast<int>(__builtin_bit_cast(std::uint32_t, shifted) - 0x4B400000U);
  float const rest = power - (shifted - shift);
  // 2^rest for rest in [-1/2, 1/2]: (2^x - 1) / x interpolated at Chebyshev's points.
  float value = 0.000154531634F;
  value = fused(value, rest, 0.00133908633F);
  value = fused(value, rest, 0.00961808302F);
  value = fused(value, rest, 0.0555035695F);
  value = fused(value, rest, 0.240226507F);
  value = fused(value, rest, 0.693147182F);
  value = fused(value, rest, 1.0F);
  auto const mantissa = static_cast<std::uint64_t>(static_cast<std::uint32_t>(value * 1073741824.0F));  // exact: 2^30
  return (mantissa << 10U) >> static_cast<unsigned>(-whole);
}

/// The smallest sum of weights that top-p keeps of `total`: 1 to total.
[[nodiscard]] MOR_HOST_DEVICE inline std::uint64_t top_p_target(float top_p, std::uint64_t total) {
  auto const target = static_cast<std::uint64_t>(std::ceil(static_cast<double>(top_p) * static_cast<double>(total)));
  return target < 1 ? 1 : target < total ? target : total;
}

/// The smallest weight that min-p keeps.
[[nodiscard]] MOR_HOST_DEVICE inline std::uint64_t min_p_weight(float min_p) {
  double const share = min_p < 1.0F ? static_cast<double>(min_p) : 1.0;
  return static_cast<std::uint64_t>(std::ceil(share * static_cast<double>(kLargestSampleWeight)));
}

/// The upper half of a product.
[[nodiscard]] constexpr std::uint64_t multiply_high(std::uint64_t a, std::uint64_t b) {
  std::uint64_t const low = 0xffffffffULL;
  std::uint64_t const middle = (a >> 32U) * (b & low) + ((a & low) * (b & low) >> 32U);
  std::uint64_t const other = (a & low) * (b >> 32U) + (middle & low);
  return (a >> 32U) * (b >> 32U) + (middle >> 32U) + (other >> 32U);
}

/// The random number of (seed, counter): 64 bits.
[[nodiscard]] constexpr std::uint64_t sample_random(std::uint64_t seed, std::uint64_t counter) {
  auto const bits = Philox{stream_key(seed, 0x5a4d)}.block(counter);
  return std::uint64_t{bits[0]} << 32U | bits[1];
}

/// A random place below `total`. The token drawn is the first, in the order of ids, through which the kept weights sum to
/// more than this.
[[nodiscard]] constexpr std::uint64_t sample_place(std::uint64_t seed, std::uint64_t counter, std::uint64_t total) {
  return multiply_high(sample_random(seed, counter), total);
}

/// log softmax from a distance to the largest logit and the sum of all weights. Error about 1e-6: that of the weights.
[[nodiscard]] MOR_HOST_DEVICE inline double sample_log_probability(double below, std::uint64_t sum) {
  return below - std::log(static_cast<double>(sum) / static_cast<double>(kLargestSampleWeight));
}

}  // namespace mor::math
