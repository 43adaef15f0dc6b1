// SPDX-License-Identifier: Apache-2.0
/// @file
/// Sums and maxima over a warp and over a block, in one fixed order.
#pragma once

#include "mor/core/types.hpp"

namespace mor::cuda {

inline constexpr int kWarpSize = 32;
inline constexpr unsigned kAllLanes = 0xffffffffU;

/// The sum over a warp, in every lane.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

/// The maximum over a warp, in every lane.
__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

/// The sum over a block of `Threads` threads, in every thread. `shared` has room for Threads / 32 values; all threads
/// call, and `shared` may be used again after the next barrier.
template <int Threads, class T>
__device__ __forceinline__ T block_sum(T value, T* shared) {
  static_assert(Threads % kWarpSize == 0);
  constexpr int warps = Threads / kWarpSize;
  value = warp_sum(value);
  if constexpr (warps == 1) return value;
  if (threadIdx.x % kWarpSize == 0) shared[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  T total = shared[0];
#pragma unroll
  for (int i = 1; i < warps; ++i) total += shared[i];
  __syncthreads();
  return total;
}

/// The maximum over a block, as `block_sum`.
template <int Threads>
__device__ __forceinline__ float block_max(float value, float* shared) {
  static_assert(Threads % kWarpSize == 0);
  constexpr int warps = Threads / kWarpSize;
  value = warp_max(value);
  if constexpr (warps == 1) return value;
  if (threadIdx.x % kWarpSize == 0) shared[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  float largest = shared[0];
#pragma unroll
  for (int i = 1; i < warps; ++i) largest = fmaxf(largest, shared[i]);
  __syncthreads();
  return largest;
}

}  // namespace mor::cuda
