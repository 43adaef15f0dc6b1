// SPDX-License-Identifier: Apache-2.0
/// @file
/// Rotary position embedding (Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021).
#pragma once

#include "mor/backend/cuda/kernels/rope.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/elementwise.cuh"
#include "mor/backend/cuda/ops/key_list.cuh"
#include "mor/core/active_set.hpp"
#include "mor/core/error.hpp"
#include "mor/core/view.hpp"

#include <cmath>
#include <span>

namespace mor::cuda {

namespace detail {
template <class T, int Width, class Targets>
inline void launch_rope(Context const& context, char const* verb, std::span<Row const> positions, Index head_dim, double theta,
                        bool backward, View<T> x, Targets const& targets) {
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
                       2 * entries * static_cast<Index>(sizeof(float)) +
                       rows * static_cast<Index>(sizeof(Row) + (Targets::moves ? sizeof(Index) : 0));
  LaunchShape const shape{dim3(static_cast<unsigned>(divide_up(x.rows, rows))), tuning::kRopeThreads, shared};
  launch(context, verb, shape, rope_kernel<T, Width, Targets>, positions.data(), grid, x, targets);
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
    detail::launch_rope<T, width>(context, "rope", positions, head_dim, theta, backward, x, RopeInPlace{});
  } else {
    detail::launch_rope<T, 1>(context, "rope", positions, head_dim, theta, backward, x, RopeInPlace{});
  }
}

/// Takes rows of queries, keys and values apart: queries turned to `q`, keys turned and values as they are to their places in a list,
/// those of a row with limit 0 nowhere. The same bits as `rope`, `copy` and `write_keys`. Floor: qkv once in, once out.
template <class T>
inline void rope_to_keys(Context const& context, std::span<Row const> positions, Index head_dim, double theta, View<T> qkv,
                         KeyList const& write, View<T> q, View<T> plane_k, View<T> plane_v) {
  constexpr int width = kPackSize<T>;
  if (qkv.empty()) return;
  bool const whole = head_dim > 0 && head_dim % 2 == 0 && q.cols % head_dim == 0 && plane_k.cols % head_dim == 0;
  if (!whole || plane_v.cols != plane_k.cols || qkv.cols != q.cols + 2 * plane_k.cols) {
    fail(ErrorCode::ShapeMismatch, "rows are not queries, keys and values in whole heads", "cuda::rope_to_keys",
         text_of(q.cols) + " + 2 * " + text_of(plane_k.cols) + " columns, an even head dimension that divides them",
         text_of(qkv.cols) + " columns, head dimension " + text_of(head_dim));
  }
  RopeToKeys<T> const targets{q, plane_k, plane_v, static_cast<unsigned>(q.cols / head_dim), static_cast<unsigned>(plane_k.cols / head_dim),
                              detail::key_places(write)};
  bool const packed = detail::rows_in_packs<width>(qkv) && detail::rows_in_packs<width>(q) && detail::rows_in_packs<width>(plane_k) &&
                      detail::rows_in_packs<width>(plane_v) && head_dim / 2 % width == 0;
  if (packed) {
    detail::launch_rope<T, width>(context, "rope_to_keys", positions, head_dim, theta, false, qkv, targets);
  } else {
    detail::launch_rope<T, 1>(context, "rope_to_keys", positions, head_dim, theta, false, qkv, targets);
  }
}

}  // namespace mor::cuda
