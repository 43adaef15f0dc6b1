// SPDX-License-Identifier: Apache-2.0
/// @file
/// Language-model head and loss: logits exist for one group of rows at a time.
#pragma once

#include "mor/backend/cuda/kernels/cross_entropy.cuh"
#include "mor/backend/cuda/ops/alignment.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/linear.cuh"
#include "mor/backend/cuda/tuning/head.hpp"
#include "mor/core/view.hpp"

#include <algorithm>
#include <span>

namespace mor::cuda {

namespace detail {

/// Loss of each row and, with `Gradient`, d_logits in place. Floor: logits read once, and written once; rows that do not
/// fit shared memory are read twice.
template <bool Gradient, class T>
inline void cross_entropy(Context const& context, View<T> logits, Token const* targets, float weight, float* losses) {
  bool const packed = can_pack(View<T const>(logits));
  LaunchShape shape{dim3(static_cast<unsigned>(logits.rows)), tuning::kCrossEntropyThreads, 0};
  if constexpr (Gradient) {
    Index const row_bytes = logits.cols * static_cast<Index>(sizeof(T));
    if (packed && row_bytes + tuning::kCrossEntropySmallBytes <= context.device->max_shared_bytes) {
      shape.shared_bytes = row_bytes;
      return launch(context, "head_loss", shape, &cross_entropy_gradient_kernel<T>, logits, targets, weight, losses);
    }
  }
  launch(context, "head_loss", shape,
         packed ? &cross_entropy_kernel<T, kPackSize<T>, Gradient> : &cross_entropy_kernel<T, 1, Gradient>, logits,
         targets, weight, losses);
}

}  // namespace detail

/// 2 N V D FLOPs, and N V elements of logits written and read once.
template <class T>
inline void head_loss(Context const& context, View<T const> x, View<T const> weights, std::span<Token const> targets,
                      std::span<float> losses) {
  Index const group = tuning::head_rows(x.rows, weights.rows, sizeof(T));
  Scratch scratch(context);
  View<T> const logits(scratch.take<T>(group * weights.rows), group, weights.rows);
  for (Index first = 0; first < x.rows; first += group) {
    Index const count = std::min(group, x.rows - first);
    View<T> const part = logits.row_range(0, count);
    linear(context, x.row_range(first, count), weights, 1.0F, part);
    detail::cross_entropy<false>(context, part, targets.data() + first, 0.0F, losses.data() + first);
  }
}

/// Three products of 2 N V D FLOPs, and N V elements of logits written, read, written and read twice.
template <class T>
inline void head_loss_backward(Context const& context, View<T const> x, View<T const> weights,
                               std::span<Token const> targets, double weight, std::span<float> losses, View<T> d_x,
                               View<float> d_weights) {
  Index const group = tuning::head_rows(x.rows, weights.rows, sizeof(T));
  Scratch scratch(context);
  View<T> const logits(scratch.take<T>(group * weights.rows), group, weights.rows);
  for (Index first = 0; first < x.rows; first += group) {
    Index const count = std::min(group, x.rows - first);
    View<T> const part = logits.row_range(0, count);
    View<T const> const rows = x.row_range(first, count);
    linear(context, rows, weights, 1.0F, part);
    detail::cross_entropy<true>(context, part, targets.data() + first, static_cast<float>(weight), losses.data() + first);
    linear_backward_input(context, View<T const>(part), weights, false, d_x.row_range(first, count));
    linear_backward_weight(context, View<T const>(part), rows, d_weights);
  }
}

}  // namespace mor::cuda
