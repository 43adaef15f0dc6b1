// SPDX-License-Identifier: Apache-2.0
/// @file
/// Weights of tokens as the device sums them: `math::sample_weight` bit for bit, in about half its instructions. A
/// weight is floor(2^40 w) of a float w; adding w, rounding down, to a double whose last bit is 2^-40 adds just that.
#pragma once

#include "mor/backend/cuda/kernels/radix_digits.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/math/sampling.hpp"

#include <cstdint>

namespace mor::cuda {

/// Sums of weights; integers, so their order does not matter.
using WeightSum = unsigned long long;

/// A sum of no shares. Below twice this the last bit of a double is 2^-40, so it takes 4095 shares.
inline constexpr double kEmptySum = 4096.0;

/// 2^power, a float of which the weight is floor(2^40 share); 1 or less. Powers whose weights are zero need not be
/// exact; NaN has no weight.
__device__ __forceinline__ float power_share(float power) {
  constexpr float shift = 12582912.0F;  // 1.5 * 2^23: adding it rounds to a whole number
  power = fmaxf(power, -64.0F);
  float const shifted = power + shift;
  float const rest = power - (shifted - shift);
  float value = 0.000154531634F;
  value = math::fused(value, rest, 0.00133908633F);
  value = math::fused(value, rest, 0.00961808302F);
  value = math::fused(value, rest, 0.0555035695F);
  value = math::fused(value, rest, 0.240226507F);
  value = math::fused(value, rest, 0.693147182F);
  value = math::fused(value, rest, 1.0F);
  return __uint_as_float(__float_as_uint(value) +
                         (__float_as_uint(shifted) << 23U));  // the whole number to the exponent
}

/// Adds floor(2^40 share).
__device__ __forceinline__ void add_share(double& sum, float share) {
  std::uint32_t const bits = __float_as_uint(share);
  double const wide = __hiloint2double(static_cast<int>((bits >> 3U) + 0x38000000U), static_cast<int>(bits << 29U));
  sum = __dadd_rd(sum, wide);
}

/// The weights in a sum, as an integer.
[[nodiscard]] __device__ __forceinline__ WeightSum sum_of_shares(double sum) {
  return static_cast<WeightSum>(__double_as_longlong(sum) - __double_as_longlong(kEmptySum));
}

[[nodiscard]] __device__ __forceinline__ WeightSum share_weight(float share) {
  double sum = kEmptySum;
  add_share(sum, share);
  return sum_of_shares(sum);
}

/// The smallest share whose weight is not below `weight`, a weight of `math::min_p_weight`: 24 bits hold it.
[[nodiscard]] __device__ __forceinline__ float least_share(WeightSum weight) {
  return static_cast<float>(weight) * (1.0F / static_cast<float>(math::kLargestSampleWeight));
}

/// The sum over a warp, in every lane, of values that sum to less than 2^59.
[[nodiscard]] __device__ __forceinline__ WeightSum sum_over_warp(WeightSum value) {
  constexpr unsigned bits = 27;
  unsigned const low = __reduce_add_sync(kAllLanes, static_cast<unsigned>(value) & ((1U << bits) - 1U));
  unsigned const high = __reduce_add_sync(kAllLanes, static_cast<unsigned>(value >> bits));
  return low + (WeightSum{high} << bits);
}

/// The first of 128 weights, four a lane, through which they sum to more than `place`, in every lane. `own`: a lane's
/// sum.
[[nodiscard]] __device__ __forceinline__ int place_in_step(WeightSum const (&weights)[4], WeightSum own,
                                                           WeightSum place) {
  WeightSum const through = sum_through_lane(own);
  int const source = __ffs(static_cast<int>(__ballot_sync(kAllLanes, through > place))) - 1;
  WeightSum before = through - own;  // what follows holds in the source
  int at = 4 * (static_cast<int>(threadIdx.x) % kWarpSize);
#pragma unroll
  for (int j = 0; j < 3; ++j) {
    before += weights[j];
    at += before <= place ? 1 : 0;
  }
  return __shfl_sync(kAllLanes, at, source);
}

}  // namespace mor::cuda
