// SPDX-License-Identifier: Apache-2.0
/// @file
/// Logits in float: a router's few columns by kernels of their own, a vocabulary's by cuBLASLt.
#pragma once

#include "mor/backend/cuda/kernels/logits.cuh"
#include "mor/backend/cuda/ops/alignment.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/linear.cuh"
#include "mor/core/view.hpp"

namespace mor::cuda {

namespace detail {

inline constexpr Index kNarrowOutputs = 32;  ///< up to here x is read once a pass, or nearly so
inline constexpr int kRowsPerBlock = 8;      ///< warps of a block

template <class T, int Width>
inline void narrow_logits(Context const& context, View<T const> x, View<T const> weights, float scale, View<float> out) {
  LaunchShape const shape{dim3(static_cast<unsigned>(divide_up(x.rows, kRowsPerBlock))), 32 * kRowsPerBlock};
  if (weights.rows == 1) {
    launch(context, "linear_logits", shape, &logits_kernel<T, Width, 1>, x, weights, scale, out);
  } else {
    launch(context, "linear_logits", shape, &logits_kernel<T, Width, 4>, x, weights, scale, out);
  }
}

template <class T, int Width>
inline void logits_backward(Context const& context, View<float const> d_out, View<T const> x, View<T const> weights,
                            float scale, View<T> d_x, View<float> d_weights) {
  Scratch scratch(context);
  // As many blocks of rows as fill a large device; a number that depends on the shape alone.
  Index const rows_per_block = std::max<Index>(divide_up(x.rows, 512), 16);
  Index const blocks = divide_up(x.rows, rows_per_block);
  float* const partial = scratch.take<float>(blocks * weights.rows * x.cols);
  launch(context, "linear_logits_backward",
         {dim3(static_cast<unsigned>(divide_up(x.cols, 128 * Width)), static_cast<unsigned>(blocks),
               static_cast<unsigned>(weights.rows)),
          128},
         &logits_backward_weight_kernel<T, Width>, d_out, x, rows_per_block, partial);
  launch(context, "linear_logits_backward",
         {dim3(static_cast<unsigned>(divide_up(x.cols, 128)), static_cast<unsigned>(weights.rows)), 128},
         &logits_weight_sum_kernel<float>, partial, blocks, scale, d_weights);
  if (d_x.empty()) return;
  launch(context, "linear_logits_backward",
         {dim3(static_cast<unsigned>(divide_up(x.rows, kRowsPerBlock))), 32 * kRowsPerBlock},
         &logits_backward_input_kernel<T, Width>, d_out, weights, scale, d_x);
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
