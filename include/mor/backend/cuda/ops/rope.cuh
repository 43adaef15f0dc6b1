// SPDX-License-Identifier: Apache-2.0
/// @file
/// Rotary position embedding (Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021).
#pragma once

#include "mor/backend/cuda/kernels/rope.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/elementwise.cuh"
#include "mor/core/error.hpp"
#include "mor/core/view.hpp"

#include <cmath>
#include <span>

namespace mor::cuda {

namespace detail {
template <class T, int Width>
inline void launch_rope(Context const& context, std::span<Row const> positions, Index head_dim, double theta,
                        bool backward, View<T> x) {
  Index const half = head_dim / 2;
  Index const items_of_head = half / Width, items_of_row = x.cols / head_dim * items_of_head;
  Index const rows = tuning::rope_rows(items_of_row, half);
  RopeGrid const grid{rows,
                      static_cast<unsigned>(half),
                      static_cast<unsigned>(items_of_head),
                      static_cast<unsigned>(items_of_row),
                      2.0 * std::log2(theta) / static_cast<double>(head_dim),
                      backward ? -1.0F : 1.0F,
                      Divider(half),
                      Divider(items_of_row),
                      Divider(items_of_head)};
  Index const entries = divide_up(rows * half, 4) * 4;  // each table starts on a pack boundary
  Index const shared = (half + half % 2) * static_cast<Index>(sizeof(double)) +
                       2 * entries * static_cast<Index>(sizeof(float)) + rows * static_cast<Index>(sizeof(Row));
  LaunchShape const shape{dim3(static_cast<unsigned>(divide_up(x.rows, rows))), tuning::kRopeThreads, shared};
  launch(context, "rope", shape, rope_kernel<T, Width>, positions.data(), grid, x);
}
}  // namespace detail

/// In place. Floor: one read and one write of x. Angles are reduced in double and shared by all heads of a row, so no
/// table of positions is kept. `Rotation` is mor::Rotation (this layer does not know the contract).
template <class T, class Rotation>
inline void rope(Context const& context, std::span<Row const> positions, Index head_dim, double theta,
                 Rotation rotation, View<T> x) {
  constexpr int width = kPackSize<T>;
  if (x.empty()) return;
  if (head_dim <= 0 || head_dim % 2 != 0 || x.cols % head_dim != 0) {
    fail(ErrorCode::ShapeMismatch, "the head dimension does not fit the columns", "cuda::rope",
         "an even divisor of " + text_of(x.cols), text_of(head_dim));
  }
  bool const backward = rotation == Rotation::Backward;
  // Both halves of every head must be whole packs.
  if (detail::rows_in_packs<width>(x) && head_dim / 2 % width == 0) {
    detail::launch_rope<T, width>(context, positions, head_dim, theta, backward, x);
  } else {
    detail::launch_rope<T, 1>(context, positions, head_dim, theta, backward, x);
  }
}

}  // namespace mor::cuda
