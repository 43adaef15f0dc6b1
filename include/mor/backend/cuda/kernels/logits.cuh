// SPDX-License-Identifier: Apache-2.0
/// @file
/// Products with a matrix of few rows (a router's weights): too narrow for tensor cores, so each pass reads x once.
#pragma once

#include "mor/backend/cuda/kernels/elementwise.cuh"
#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/tuning/routing.hpp"
#include "mor/core/view.hpp"

namespace mor::cuda {

/// out[i, o] = scale * <x[i], w[o]>: a warp a row, `Outputs` sums at a time in registers, several packs of x in flight.
template <class T, int Width, int Outputs>
__global__ void __launch_bounds__(LogitsTiles::threads)
    logits_kernel(View<T const> x, View<T const> weights, float scale, View<float> out) {
  constexpr int loads = LogitsTiles::loads;
  constexpr Index step = Index{kWarpSize} * Width;
  Index const row = Index{blockIdx.x} * (LogitsTiles::threads / kWarpSize) + threadIdx.x / kWarpSize;
  Index const lane = threadIdx.x % kWarpSize;
  if (row >= x.rows) return;
  T const* const from = x.row(row);
  for (Index first = 0; first < weights.rows; first += Outputs) {
    float sums[Outputs] = {};
    for (Index j = lane * Width; j < x.cols; j += loads * step) {
      RawPack<T, Width> packs[loads];
#pragma unroll
      for (int i = 0; i < loads; ++i) {
        if (j + i * step < x.cols) packs[i] = load_once<Width>(from + j + i * step);
      }
#pragma unroll
      for (int i = 0; i < loads; ++i) {
        if (j + i * step >= x.cols) continue;
        auto const values = widen(packs[i]);
#pragma unroll
        for (int o = 0; o < Outputs; ++o) {
          if (first + o >= weights.rows) continue;
          auto const factors = load_lanes<Width>(weights.row(first + o) + j + i * step);
#pragma unroll
          for (int e = 0; e < Width; ++e) sums[o] = fmaf(values.value[e], factors.value[e], sums[o]);
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
__global__ void __launch_bounds__(LogitsTiles::threads)
    logits_backward_input_kernel(View<float const> d_out, View<T const> weights, float scale, View<T> d_x) {
  Index const row = Index{blockIdx.x} * (LogitsTiles::threads / kWarpSize) + threadIdx.x / kWarpSize;
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
    store_global(d_x.row(row) + j, sums.value);
  }
}

/// partial[blockIdx.y, o, j] = scale * sum over the block's rows of d_out[i, o] x[i, j] for `Outputs` outputs and, with
/// `Input`, which then must be all there are, d_x[i, j] += scale * sum_o d_out[i, o] w[o, j] on the way. A thread owns
/// `Width` columns, so that no thread needs another's. Blocks: x over groups of columns, y over rows, which are dealt
/// out a few at a time by the number of blocks alone, z over groups of outputs.
template <class T, int Width, int Outputs, bool Input>
__global__ void __launch_bounds__(LogitsTiles::backward_threads, LogitsTiles::backward_blocks)
    logits_backward_kernel(View<float const> d_out, View<T const> x, View<T const> weights, float scale, View<T> d_x,
                           float* partial) {
  constexpr int loads = LogitsTiles::backward_rows;
  Index const column = (Index{blockIdx.x} * LogitsTiles::backward_threads + threadIdx.x) * Width;
  Index const first_output = Index{blockIdx.z} * Outputs, left = weights.rows - first_output;
  int const outputs = left < Outputs ? static_cast<int>(left) : Outputs;
  if (column >= x.cols) return;
  float sums[Outputs][Width] = {};
  RawPack<T, Width> factors[Outputs];
  if constexpr (Input) {
#pragma unroll
    for (int o = 0; o < Outputs; ++o) {
      if (o < outputs) factors[o] = load_raw<Width>(weights.row(first_output + o) + column);
    }
  }
  for (Index row = Index{blockIdx.y} * loads; row < x.rows; row += Index{gridDim.y} * loads) {
    RawPack<T, Width> values[loads], olds[loads];
    float gradients[loads][Outputs];
#pragma unroll
    for (int i = 0; i < loads; ++i) {
      if (row + i >= x.rows) continue;
      values[i] = load_once<Width>(x.row(row + i) + column);
      if constexpr (Input) olds[i] = load_once<Width>(static_cast<T const*>(d_x.row(row + i)) + column);
#pragma unroll
      for (int o = 0; o < Outputs; ++o) {
        gradients[i][o] = o < outputs ? scale * d_out(row + i, first_output + o) : 0.0F;
      }
    }
#pragma unroll
    for (int i = 0; i < loads; ++i) {
      if (row + i >= x.rows) continue;
      auto const value = widen(values[i]);
#pragma unroll
      for (int o = 0; o < Outputs; ++o) {
#pragma unroll
        for (int e = 0; e < Width; ++e) sums[o][e] = fmaf(gradients[i][o], value.value[e], sums[o][e]);
      }
      if constexpr (Input) {
        auto sum = widen(olds[i]);
#pragma unroll
        for (int o = 0; o < Outputs; ++o) {
          if (o >= outputs) continue;
          keep_packed(factors[o]);
          auto const factor = widen(factors[o]);
#pragma unroll
          for (int e = 0; e < Width; ++e) sum.value[e] = fmaf(gradients[i][o], factor.value[e], sum.value[e]);
        }
        store_global(d_x.row(row + i) + column, sum.value);
      }
    }
  }
#pragma unroll
  for (int o = 0; o < Outputs; ++o) {
    if (o < outputs) store_lanes(partial + (blockIdx.y * weights.rows + first_output + o) * x.cols + column, sums[o]);
  }
}

}  // namespace mor::cuda
