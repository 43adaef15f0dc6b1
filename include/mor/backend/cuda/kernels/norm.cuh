// SPDX-License-Identifier: Apache-2.0
/// @file
/// Root-mean-square normalisation. A row that fits the registers of its threads is read once.
#pragma once

#include "mor/backend/cuda/kernels/elementwise.cuh"
#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/tuning/pointwise.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

namespace mor::cuda {

/// The sum over a group of threads that shares a row: a warp, or the whole block of `Threads`.
template <int Group, int Threads>
__device__ __forceinline__ float group_sum(float value, float* shared) {
  static_assert(Group == kWarpSize || Group == Threads);
  if constexpr (Group == kWarpSize) {
    return warp_sum(value);
  } else {
    return block_sum<Threads>(value, shared);
  }
}

/// `Group` threads a row: rstd = 1 / sqrt(mean(x^2) + eps), out = round(x * rstd) * weights. The first packs of each
/// thread stay in registers; what a very wide row has more is read again.
template <class T, int Width, int Group>
__global__ void __launch_bounds__(tuning::kNormThreads)
    rms_norm_kernel(View<T const> x, T const* weights, float eps, View<T> out, float* rstd) {
  constexpr int threads = tuning::kNormThreads, packs = tuning::kNormPacks;
  constexpr Index step = Index{Group} * Width;
  __shared__ float shared[threads / kWarpSize];
  Index const row = Index{blockIdx.x} * (threads / Group) + threadIdx.x / Group;
  if (row >= x.rows) return;  // whole warps; a block of one row never leaves
  Index const cols = x.cols, first = static_cast<Index>(threadIdx.x % Group) * Width;
  T const* const from = x.row(row);
  T* const to = out.row(row);

  RawPack<T, Width> values[packs], factors[packs];
#pragma unroll
  for (int i = 0; i < packs; ++i) {
    if (first + i * step < cols) values[i] = load_once<Width>(from + first + i * step);
  }
#pragma unroll
  for (int i = 0; i < packs; ++i) {
    if (first + i * step < cols) factors[i] = load_raw<Width>(weights + first + i * step);
  }
  float sum = 0.0F;
  auto const add_squares = [&sum](Lanes<T, Width> const& lanes) {
#pragma unroll
    for (int e = 0; e < Width; ++e) sum = fmaf(lanes.value[e], lanes.value[e], sum);
  };
#pragma unroll
  for (int i = 0; i < packs; ++i) {
    if (first + i * step < cols) add_squares(widen(values[i]));
  }
#pragma unroll 1
  for (Index j = first + packs * step; j < cols; j += step) add_squares(load_lanes<Width>(from + j));

  sum = group_sum<Group, threads>(sum, shared);
  float const inverse = rsqrtf(__fdividef(sum, static_cast<float>(cols)) + eps);
  if (first == 0) rstd[row] = inverse;
  auto const write = [to, inverse](Lanes<T, Width> lanes, Lanes<T, Width> const& weight, Index j) {
#pragma unroll
    for (int e = 0; e < Width; ++e) {
      lanes.value[e] = static_cast<float>(narrow<T>(lanes.value[e] * inverse)) * weight.value[e];
    }
    store_lanes(to + j, lanes.value);
  };
#pragma unroll
  for (int i = 0; i < packs; ++i) {
    keep_packed(values[i]);
    if (first + i * step < cols) write(widen(values[i]), widen(factors[i]), first + i * step);
  }
#pragma unroll 1
  for (Index j = first + packs * step; j < cols; j += step) {
    write(load_lanes<Width>(from + j), load_lanes<Width>(weights + j), j);
  }
}

/// Adds the gradient of one pack: with n = x rstd and g = d_out * weights, d_x += rstd (g - n mean(g n)).
template <class T, int Width>
__device__ __forceinline__ void norm_input_gradient(Lanes<T, Width> const& gradient, Lanes<T, Width> const& value,
                                                    Lanes<T, Width> const& weight, float rstd, float mean,
                                                    Lanes<T, Width> sum, T* d_x) {
#pragma unroll
  for (int e = 0; e < Width; ++e) {
    float const direction = fmaf(gradient.value[e], weight.value[e], -(value.value[e] * rstd * mean));
    sum.value[e] = fmaf(rstd, direction, sum.value[e]);
  }
  store_lanes(d_x, sum.value);
}

/// Backward for rows of at most `kNormPacks` packs a thread, `Group` threads a row. d_x is accumulated in place; the
/// block's sum of d_out * x * rstd over its rows goes to row blockIdx.x of `partial` [blocks, cols]. Rows are dealt out
/// by the number of blocks alone.
template <class T, int Width, int Group>
__global__ void __launch_bounds__(Group == kWarpSize ? tuning::kNormBackwardThreads : Group, Group == kWarpSize ? 2 : 4)
    rms_norm_backward_kernel(View<T const> d_out, View<T const> x, T const* weights, float const* rstd, View<T> d_x,
                             float* partial) {
  constexpr int threads = Group == kWarpSize ? tuning::kNormBackwardThreads : Group;
  constexpr int groups = threads / Group, packs = tuning::kNormPacks;
  constexpr int step = Group * Width;
  __shared__ __align__(16) float shared[groups == 1 ? threads / kWarpSize : groups * packs * step];
  int const cols = static_cast<int>(x.cols), group = static_cast<int>(threadIdx.x) / Group;
  int const first = static_cast<int>(threadIdx.x) % Group * Width;

  RawPack<T, Width> factors[packs];
  float sums[packs][Width];
#pragma unroll
  for (int i = 0; i < packs; ++i) {
    if (first + i * step < cols) factors[i] = load_raw<Width>(weights + first + i * step);
#pragma unroll
    for (int e = 0; e < Width; ++e) sums[i][e] = 0.0F;
  }
  for (Index row = Index{blockIdx.x} * groups + group; row < x.rows; row += Index{gridDim.x} * groups) {
    RawPack<T, Width> gradients[packs], values[packs], olds[packs];
    T* const to = d_x.row(row);
#pragma unroll
    for (int i = 0; i < packs; ++i) {
      if (first + i * step >= cols) continue;
      gradients[i] = load_once<Width>(d_out.row(row) + first + i * step);
      values[i] = load_once<Width>(x.row(row) + first + i * step);
      olds[i] = load_once<Width>(static_cast<T const*>(to) + first + i * step);
    }
    float const inverse = rstd[row];
    float product = 0.0F;
#pragma unroll
    for (int i = 0; i < packs; ++i) {
      if (first + i * step >= cols) continue;
      auto const gradient = widen(gradients[i]), value = widen(values[i]), weight = widen(factors[i]);
#pragma unroll
      for (int e = 0; e < Width; ++e) {
        product = fmaf(gradient.value[e] * weight.value[e], value.value[e], product);
        sums[i][e] = fmaf(gradient.value[e], value.value[e] * inverse, sums[i][e]);
      }
    }
    float const mean = __fdividef(group_sum<Group, threads>(product, shared) * inverse, static_cast<float>(cols));
#pragma unroll
    for (int i = 0; i < packs; ++i) {
      keep_packed(gradients[i]), keep_packed(values[i]), keep_packed(factors[i]);
      if (first + i * step >= cols) continue;
      norm_input_gradient(widen(gradients[i]), widen(values[i]), widen(factors[i]), inverse, mean, widen(olds[i]),
                          to + first + i * step);
    }
  }

  float* const result = partial + Index{blockIdx.x} * cols;
  if constexpr (groups == 1) {
#pragma unroll
    for (int i = 0; i < packs; ++i) {
      if (first + i * step < cols) store_lanes(result + first + i * step, sums[i]);
    }
  } else {
    constexpr int width = packs * step;  // columns that a warp holds
#pragma unroll
    for (int i = 0; i < packs; ++i) store_lanes(shared + group * width + first + i * step, sums[i]);
    __syncthreads();
    for (int j = static_cast<int>(threadIdx.x); j < cols; j += threads) {
      float total = shared[j];
#pragma unroll
      for (int g = 1; g < groups; ++g) total += shared[g * width + j];
      result[j] = total;
    }
  }
}

/// Backward for rows of any width and alignment: a block a row, read twice. Each thread owns the same columns of every
/// row, and sums their weight gradients in its own part of `partial`.
template <class T, int Width>
__global__ void __launch_bounds__(tuning::kNormBackwardThreads)
    rms_norm_backward_wide_kernel(View<T const> d_out, View<T const> x, T const* weights, float const* rstd,
                                  View<T> d_x, float* partial) {
  constexpr int threads = tuning::kNormBackwardThreads;
  constexpr Index step = Index{threads} * Width;
  __shared__ float shared[threads / kWarpSize];
  Index const cols = x.cols, first = Index{threadIdx.x} * Width;
  float* const sums = partial + Index{blockIdx.x} * cols;
  for (Index row = blockIdx.x; row < x.rows; row += gridDim.x) {
    T const* const gradients = d_out.row(row);
    T const* const values = x.row(row);
    T* const to = d_x.row(row);
    float const inverse = rstd[row];
    bool const first_row = row == blockIdx.x;
    float product = 0.0F;
    for (Index j = first; j < cols; j += step) {
      auto const gradient = load_lanes<Width>(gradients + j), value = load_lanes<Width>(values + j);
      auto const weight = load_lanes<Width>(weights + j);
      Lanes<float, Width> sum{};
      if (!first_row) sum = load_lanes<Width>(static_cast<float const*>(sums) + j);
#pragma unroll
      for (int e = 0; e < Width; ++e) {
        product = fmaf(gradient.value[e] * weight.value[e], value.value[e], product);
        sum.value[e] = fmaf(gradient.value[e], value.value[e] * inverse, sum.value[e]);
      }
      store_lanes(sums + j, sum.value);
    }
    float const mean = __fdividef(block_sum<threads>(product, shared) * inverse, static_cast<float>(cols));
    for (Index j = first; j < cols; j += step) {
      norm_input_gradient(load_lanes<Width>(gradients + j), load_lanes<Width>(values + j),
                          load_lanes<Width>(weights + j), inverse, mean,
                          load_lanes<Width>(static_cast<T const*>(to) + j), to + j);
    }
  }
}

}  // namespace mor::cuda
