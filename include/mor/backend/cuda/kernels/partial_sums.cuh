// SPDX-License-Identifier: Apache-2.0
/// @file
/// The second half of sums over rows: blocks leave sums of their rows, which are added here in the order of the blocks.
#pragma once

#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/core/types.hpp"

namespace mor::cuda {

/// out[j] += sum over i < count of partial[i * stride + j]. A block of 32 warps takes 32 columns: warp g adds
/// rows g, g + 32, ..., then warp j adds the 32 sums of column j.
template <int Columns>
__global__ void __launch_bounds__(Columns* kWarpSize)
    add_partials_kernel(float const* partial, int count, Index stride, Index cols, float* out) {
  static_assert(Columns == kWarpSize);
  __shared__ float sums[kWarpSize][kWarpSize + 1];
  int const lane = static_cast<int>(threadIdx.x) % kWarpSize, warp = static_cast<int>(threadIdx.x) / kWarpSize;
  Index const begin = Index{blockIdx.x} * Columns;
  float sum = 0.0F;
  if (begin + lane < cols) {
#pragma unroll 8
    for (int i = warp; i < count; i += kWarpSize) sum += partial[i * stride + begin + lane];
  }
  sums[warp][lane] = sum;
  __syncthreads();
  float const total = warp_sum(sums[lane][warp]);
  if (lane == 0 && begin + warp < cols) out[begin + warp] += total;
}

}  // namespace mor::cuda
