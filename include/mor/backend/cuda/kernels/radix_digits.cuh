// SPDX-License-Identifier: Apache-2.0
/// @file
/// What radix selection and radix sorting share: digits of 8 bits, and the order of a tile's items.
#pragma once

#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/tuning/routing.hpp"

namespace mor::cuda {

/// The number of a thread's item within its block's tile. A warp owns `Items * 32` consecutive items, item j of lane l
/// being number 32 j + l: loads are coalesced, and votes of the warp rank items in their order.
template <int Items>
__device__ __forceinline__ int place_in_tile(int item) {
  int const warp = static_cast<int>(threadIdx.x) / kWarpSize, lane = static_cast<int>(threadIdx.x) % kWarpSize;
  return (warp * Items + item) * kWarpSize + lane;
}

/// The sum over this lane and all lower ones of a warp.
template <class T>
__device__ __forceinline__ T sum_through_lane(T value) {
  int const lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
  for (int distance = 1; distance < kWarpSize; distance *= 2) {
    T const other = __shfl_up_sync(kAllLanes, value, distance);
    if (lane >= distance) value += other;
  }
  return value;
}

}  // namespace mor::cuda
