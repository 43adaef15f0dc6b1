// SPDX-License-Identifier: Apache-2.0
/// @file
/// Cross-entropy of rows of logits, and its gradient in place of the logits.
#pragma once

#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/tuning/head.hpp"
#include "mor/core/view.hpp"

#include <type_traits>

namespace mor::cuda {

namespace detail {
/// exp to the accuracy that values stored as T deserve.
template <class T>
__device__ __forceinline__ float exp_for(float x) {
  if constexpr (std::is_same_v<T, float>) {
    return expf(x);
  } else {
    return __expf(x);
  }
}
}  // namespace detail

/// A block a row: losses[i] = log sum exp(logits[i]) - logits[i, targets[i]] and, with `Gradient`, logits[i, j] =
/// weight * (softmax_j - [j == target]). A negative target gives zeros. With `Cached` the row waits in shared memory, so
/// that device memory is read once and written once; else it is read three times, from the second-level cache if possible.
template <class T, int Width, bool Cached, bool Gradient>
__global__ void __launch_bounds__(tuning::kCrossEntropyThreads, 2)
    cross_entropy_kernel(View<T> logits, Token const* targets, float weight, float* losses) {
  constexpr int threads = tuning::kCrossEntropyThreads;
  constexpr Index step = Index{threads} * Width;
  extern __shared__ __align__(16) unsigned char cache_bytes[];
  __shared__ float partial[threads / kWarpSize];
  Index const columns = logits.cols, first = Index{threadIdx.x} * Width;
  T* const row = logits.row(blockIdx.x);
  T* const cache = reinterpret_cast<T*>(cache_bytes);
  Token const target = targets[blockIdx.x];
  if (target < 0) {
    if (threadIdx.x == 0) losses[blockIdx.x] = 0.0F;
    if constexpr (Gradient) {
      float const zeros[Width] = {};
      for (Index j = first; j < columns; j += step) store_lanes(row + j, zeros);
    }
    return;
  }
  float highest = -INFINITY;
#pragma unroll 4
  for (Index j = first; j < columns; j += step) {
    auto const x = load_lanes<Width>(static_cast<T const*>(row) + j);
    if constexpr (Cached) store_lanes(cache + j, x.value);
#pragma unroll
    for (int e = 0; e < Width; ++e) highest = fmaxf(highest, x.value[e]);
  }
  float const wanted = static_cast<float>(row[target]);  // read by all before any thread may overwrite it below
  highest = block_max<threads>(highest, partial);
  T const* const source = Cached ? cache : row;
  float sum = 0.0F;
#pragma unroll 4
  for (Index j = first; j < columns; j += step) {
    auto const x = load_lanes<Width>(source + j);
#pragma unroll
    for (int e = 0; e < Width; ++e) sum += detail::exp_for<T>(x.value[e] - highest);
  }
  sum = block_sum<threads>(sum, partial);
  if (threadIdx.x == 0) losses[blockIdx.x] = logf(sum) + (highest - wanted);
  if constexpr (Gradient) {
    float const factor = weight / sum;
#pragma unroll 4
    for (Index j = first; j < columns; j += step) {
      auto x = load_lanes<Width>(source + j);
#pragma unroll
      for (int e = 0; e < Width; ++e) {
        x.value[e] = factor * detail::exp_for<T>(x.value[e] - highest) - (j + e == target ? weight : 0.0F);
      }
      store_lanes(row + j, x.value);
    }
  }
}

}  // namespace mor::cuda
