// SPDX-License-Identifier: Apache-2.0
/// @file
/// How the update of active rows enters the stream of all rows, and its gradient. Plain moves of rows are the maps of
/// elementwise.cuh.
#pragma once

#include "mor/backend/cuda/kernels/elementwise.cuh"
#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/tuning/pointwise.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

namespace mor::cuda {

/// hidden[rows[i]] = scale[i] * y[i] + keep[i] * base[rows[i]].
template <class T>
struct CombineOperation {
  static constexpr int kLoads = 2;
  struct Place {
    T const* update;
    T const* old;
    T* to;
    float scale, keep;
  };
  template <int N>
  struct Registers {
    RawPack<T, N> update, old;
  };
  View<T const> y;
  float const* scale;
  float const* keep;
  Row const* rows;
  View<T const> base;
  View<T> hidden;

  void note_to(auto& log) const { log.note(y, scale, keep, rows, base, hidden); }

  __device__ __forceinline__ Place find(Index i, Index col) const {
    Index const row = listed_row(rows, i);
    return {y.row(i) + col, base.row(row) + col, hidden.row(row) + col, listed_factor(scale, i),
            listed_factor(keep, i)};
  }
  template <int N>
  __device__ __forceinline__ Registers<N> load(Place const& at) const {
    return {load_once<N>(at.update), load_once<N>(at.old)};
  }
  template <int N>
  __device__ __forceinline__ void store(Place const& at, Registers<N> const& now) const {
    auto const update = widen(now.update);
    auto result = widen(now.old);
#pragma unroll
    for (int e = 0; e < N; ++e) result.value[e] = fmaf(at.scale, update.value[e], at.keep * result.value[e]);
    store_lanes(at.to, result.value);
  }
};

/// out[i] = scale[i] * x[rows[i]].
template <class T>
struct ScaledGatherOperation {
  static constexpr int kLoads = 4;
  struct Place {
    T const* from;
    T* to;
    float factor;
  };
  template <int N>
  struct Registers {
    RawPack<T, N> value;
  };
  View<T const> x;
  float const* scale;
  Row const* rows;
  View<T> out;

  void note_to(auto& log) const { log.note(x, scale, rows, out); }

  __device__ __forceinline__ Place find(Index i, Index col) const {
    return {x.row(listed_row(rows, i)) + col, out.row(i) + col, listed_factor(scale, i)};
  }
  template <int N>
  __device__ __forceinline__ Registers<N> load(Place const& at) const {
    return {load_once<N>(at.from)};
  }
  template <int N>
  __device__ __forceinline__ void store(Place const& at, Registers<N> const& now) const {
    auto value = widen(now.value);
#pragma unroll
    for (int e = 0; e < N; ++e) value.value[e] *= at.factor;
    store_lanes(at.to, value.value);
  }
};

/// A warp a row: d_y[i] = scale[i] * d_hidden[rows[i]] and d_scale[i] = <d_hidden[rows[i]], y[i]>.
template <class T, int Width>
__global__ void __launch_bounds__(tuning::kMapThreads)
    combine_backward_kernel(View<T const> d_hidden, View<T const> y, float const* scale, Row const* rows, View<T> d_y,
                            float* d_scale) {
  constexpr int loads = 4;
  constexpr Index step = Index{kWarpSize} * Width;
  Index const i = Index{blockIdx.x} * (tuning::kMapThreads / kWarpSize) + threadIdx.x / kWarpSize;
  if (i >= d_y.rows) return;  // whole warps leave, and nothing below waits for another warp
  Index const lane = threadIdx.x % kWarpSize;
  T const* const gradient_row = d_hidden.row(rows[i]);
  T const* const y_row = y.row(i);
  T* const d_y_row = d_y.row(i);
  float const factor = listed_factor(scale, i);
  float product = 0.0F;
  for (Index first = lane * Width; first < d_y.cols; first += loads * step) {
    RawPack<T, Width> gradients[loads], values[loads];
#pragma unroll
    for (int n = 0; n < loads; ++n) {
      if (first + n * step < d_y.cols) {
        gradients[n] = load_once<Width>(gradient_row + first + n * step);
        values[n] = load_once<Width>(y_row + first + n * step);
      }
    }
#pragma unroll
    for (int n = 0; n < loads; ++n) {
      if (first + n * step >= d_y.cols) continue;
      auto gradient = widen(gradients[n]);
      auto const value = widen(values[n]);
#pragma unroll
      for (int e = 0; e < Width; ++e) {
        product = fmaf(gradient.value[e], value.value[e], product);
        gradient.value[e] *= factor;
      }
      store_lanes(d_y_row + first + n * step, gradient.value);
    }
  }
  product = warp_sum(product);
  if (lane == 0) d_scale[i] = product;
}

}  // namespace mor::cuda
