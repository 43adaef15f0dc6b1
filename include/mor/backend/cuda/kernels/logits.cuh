// SPDX-License-Identifier: Apache-2.0
/// @file
/// Products with a matrix of few rows (a router's weights): too narrow for tensor cores, so each pass reads x once.
#pragma once

#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/core/view.hpp"

namespace mor::cuda {

/// out[i, o] = scale * <x[i], w[o]>: a warp a row, `Outputs` sums at a time in registers.
template <class T, int Width, int Outputs>
__global__ void __launch_bounds__(256) logits_kernel(View<T const> x, View<T const> weights, float scale, View<float> out) {
  Index const row = (Index{blockIdx.x} * blockDim.x + threadIdx.x) / kWarpSize;
  int const lane = static_cast<int>(threadIdx.x) % kWarpSize;
  if (row >= x.rows) return;
  for (Index first = 0; first < weights.rows; first += Outputs) {
    float sums[Outputs] = {};
    for (Index j = lane * Width; j < x.cols; j += kWarpSize * Width) {
      auto const values = load_lanes<Width>(x.row(row) + j);
#pragma unroll
      for (int o = 0; o < Outputs; ++o) {
        if (first + o < weights.rows) {
          auto const factors = load_lanes<Width>(weights.row(first + o) + j);
#pragma unroll
          for (int e = 0; e < Width; ++e) sums[o] += values.value[e] * factors.value[e];
        }
      }
    }
#pragma unroll
    for (int o = 0; o < Outputs; ++o) {
      float const sum = warp_sum(sums[o]);
      if (lane == 0 && first + o < weights.rows) out(row, first + o) = scale * sum;
    }
  }
}

/// d_x[i] += scale * sum_o d_out[i, o] w[o]: a warp a row.
template <class T, int Width>
__global__ void __launch_bounds__(256)
    logits_backward_input_kernel(View<float const> d_out, View<T const> weights, float scale, View<T> d_x) {
  Index const row = (Index{blockIdx.x} * blockDim.x + threadIdx.x) / kWarpSize;
  int const lane = static_cast<int>(threadIdx.x) % kWarpSize;
  if (row >= d_x.rows) return;
  for (Index j = lane * Width; j < d_x.cols; j += kWarpSize * Width) {
    auto sums = load_lanes<Width>(static_cast<T const*>(d_x.row(row)) + j);
    for (Index o = 0; o < weights.rows; ++o) {
      float const factor = scale * d_out(row, o);
      auto const values = load_lanes<Width>(weights.row(o) + j);
#pragma unroll
      for (int e = 0; e < Width; ++e) sums.value[e] += factor * values.value[e];
    }
    store_lanes(d_x.row(row) + j, sums.value);
  }
}

/// partial[block, o, j] = sum over the block's rows of d_out[i, o] x[i, j]; a thread owns `Width` columns of one output.
/// Blocks: x over groups of columns, y over groups of `rows_per_block` rows, z over outputs.
template <class T, int Width>
__global__ void __launch_bounds__(128)
    logits_backward_weight_kernel(View<float const> d_out, View<T const> x, Index rows_per_block, float* partial) {
  Index const column = (Index{blockIdx.x} * blockDim.x + threadIdx.x) * Width;
  Index const output = blockIdx.z;
  if (column >= x.cols) return;
  Index const begin = blockIdx.y * rows_per_block;
  Index const end = begin + rows_per_block < x.rows ? begin + rows_per_block : x.rows;
  float sums[Width] = {};
#pragma unroll 4
  for (Index i = begin; i < end; ++i) {
    float const factor = d_out(i, output);
    auto const values = load_lanes<Width>(x.row(i) + column);
#pragma unroll
    for (int e = 0; e < Width; ++e) sums[e] += factor * values.value[e];
  }
  float* const to = partial + (Index{blockIdx.y} * gridDim.z + output) * x.cols + column;
#pragma unroll
  for (int e = 0; e < Width; ++e) to[e] = sums[e];
}

/// d_w[o, j] += scale * sum over blocks of partial[block, o, j], in the order of the blocks.
template <class T>
__global__ void __launch_bounds__(128)
    logits_weight_sum_kernel(T const* partial, Index blocks, float scale, View<float> d_weights) {
  Index const column = Index{blockIdx.x} * blockDim.x + threadIdx.x;
  Index const output = blockIdx.y;
  if (column >= d_weights.cols) return;
  float sum = 0.0F;
#pragma unroll 8
  for (Index b = 0; b < blocks; ++b) sum += partial[(b * d_weights.rows + output) * d_weights.cols + column];
  d_weights(output, column) += scale * sum;
}

}  // namespace mor::cuda
