// SPDX-License-Identifier: Apache-2.0
/// @file
/// Logits in float: a router's few columns by kernels of their own, a vocabulary's by cuBLASLt.
#pragma once

#include "mor/backend/cuda/kernels/logits.cuh"
#include "mor/backend/cuda/ops/alignment.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/linear.cuh"
#include "mor/backend/cuda/ops/partial_sums.cuh"
#include "mor/backend/cuda/tuning/routing.hpp"
#include "mor/backend/cuda/tuning/scratch.hpp"
#include "mor/core/view.hpp"

namespace mor::cuda {

namespace detail {

inline constexpr Index kNarrowOutputs = 32;  ///< up to here x is read once a pass, or nearly so

/// A warp a row.
[[nodiscard]] inline LaunchShape logits_shape(Index rows) {
  constexpr int threads = LogitsTiles::threads;
  return {dim3(static_cast<unsigned>(divide_up(rows, threads / kWarpSize))), threads};
}

template <class T, int Width>
inline void narrow_logits(Context const& context, View<T const> x, View<T const> weights, float scale, View<float> out) {
  launch(context, "linear_logits", logits_shape(x.rows),
         weights.rows == 1 ? &logits_kernel<T, Width, 1> : &logits_kernel<T, Width, 4>, x, weights, scale,
         out);
}

/// d_weights and, where one pass over x has room for all outputs, d_x on the way.
template <class T, int Width>
inline void logits_backward(Context const& context, View<float const> d_out, View<T const> x, View<T const> weights,
                            float scale, View<T> d_x, View<float> d_weights) {
  constexpr char const* verb = "linear_logits_backward";
  constexpr int some = LogitsTiles::backward_outputs;
  Scratch scratch(context);
  Index const outputs = weights.rows, cols = x.cols;
  tuning::LogitsBackwardScratch const sizes(x.rows, cols, outputs);
  float* const partial = scratch.take<float>(sizes.partial);
  bool const together = !d_x.empty() && outputs <= some;
  auto kernel = logits_backward_kernel<T, Width, some, false>;
  if (together) {
    kernel = outputs == 1 ? logits_backward_kernel<T, Width, 1, true> : logits_backward_kernel<T, Width, some, true>;
  } else if (outputs == 1) {
    kernel = logits_backward_kernel<T, Width, 1, false>;
  }
  dim3 const blocks(static_cast<unsigned>(divide_up(cols, LogitsTiles::backward_threads * Width)),
                    static_cast<unsigned>(sizes.blocks), static_cast<unsigned>(divide_up(outputs, some)));
  launch(context, verb, {blocks, LogitsTiles::backward_threads}, kernel, d_out, x, weights, scale, d_x, partial);
  if (d_weights.contiguous()) {
    add_partials(context, verb, partial, sizes.blocks, outputs * cols, outputs * cols, d_weights.data);
  } else {
    for (Index o = 0; o < outputs; ++o) {
      add_partials(context, verb, partial + o * cols, sizes.blocks, outputs * cols, cols, d_weights.row(o));
    }
  }
  if (d_x.empty() || together) return;
  launch(context, verb, logits_shape(x.rows), &logits_backward_input_kernel<T, Width>, d_out, weights, scale, d_x);
}

}  // namespace detail

/// Floor for a router: x once.
template <class T>
inline void linear_logits(Context const& context, View<T const> x, View<T const> weights, double scale, View<float> out) {
  if (out.empty()) return;
  auto const factor = static_cast<float>(scale);
  if (weights.rows > detail::kNarrowOutputs) return linear(context, x, weights, factor, out);
  if (can_pack(x, weights)) return detail::narrow_logits<T, kPackSize<T>>(context, x, weights, factor, out);
  detail::narrow_logits<T, 1>(context, x, weights, factor, out);
}

/// Floor: x once, d_x read and written. Sums over rows go through partial sums in a fixed order.
template <class T>
inline void linear_logits_backward(Context const& context, View<float const> d_out, View<T const> x, View<T const> weights,
                                   double scale, View<T> d_x, View<float> d_weights) {
  if (x.empty() || d_out.empty()) return;
  auto const factor = static_cast<float>(scale);
  bool const packed = can_pack(x, weights) && (d_x.empty() || can_pack(View<T const>(d_x)));
  if (packed) return detail::logits_backward<T, kPackSize<T>>(context, d_out, x, weights, factor, d_x, d_weights);
  detail::logits_backward<T, 1>(context, d_out, x, weights, factor, d_x, d_weights);
}

}  // namespace mor::cuda
