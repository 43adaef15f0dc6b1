// SPDX-License-Identifier: Apache-2.0
/// @file
/// Rearranges parts of matrices into the panels that `multiply_panels` reads. Missing rows and columns become zeros.
#pragma once

#include "mor/backend/host/micro_kernel.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <algorithm>

namespace mor::host {

/// A matrix operand by strides, so that a transpose costs nothing: element (i, j) is data[i * row_stride + j * col_stride].
/// One of the strides is 1.
template <class T>
struct Operand {
  T const* data = nullptr;
  Index row_stride = 0;
  Index col_stride = 0;

  [[nodiscard]] Operand at(Index row, Index col) const {
    return {data + row * row_stride + col * col_stride, row_stride, col_stride};
  }
  [[nodiscard]] Operand transposed() const { return {data, col_stride, row_stride}; }
};

template <class T>
[[nodiscard]] inline Operand<T> operand(View<T const> matrix) {
  return {matrix.data, matrix.stride, 1};
}

namespace detail {
/// One panel of `Width` lanes over `depth`: panel[k * Width + lane] = source lane `lane` at depth k, where lanes are
/// `lane_stride` apart in memory and depths `depth_stride`.
template <Index Width, class T>
inline void pack_panel(T const* source, Index lane_stride, Index depth_stride, Index lanes, Index depth, T* panel) {
  if (lanes < Width) std::fill(panel, panel + Width * depth, T(0));
  if (lane_stride == 1) {
    for (Index k = 0; k < depth; ++k) {
      T const* const from = source + k * depth_stride;
      T* const to = panel + k * Width;
      if (lanes == Width) {
        std::copy(from, from + Width, to);
      } else {
        std::copy(from, from + lanes, to);
      }
    }
    return;
  }
  for (Index lane = 0; lane < lanes; ++lane) {
    T const* const from = source + lane * lane_stride;
    for (Index k = 0; k < depth; ++k) panel[k * Width + lane] = from[k * depth_stride];
  }
}
}  // namespace detail

/// Packs rows [0, rows) of the left operand over [0, depth) into panels of TileShape::rows rows, each
/// TileShape::rows * depth elements.
template <class T>
inline void pack_left(Operand<T> a, Index rows, Index depth, T* panels) {
  constexpr Index width = TileShape<T>::rows;
  for (Index i = 0; i < rows; i += width, panels += width * depth) {
    Operand<T> const part = a.at(i, 0);
    detail::pack_panel<width>(part.data, part.row_stride, part.col_stride, std::min(width, rows - i), depth, panels);
  }
}

/// Packs columns [0, cols) of the right operand over [0, depth) into panels of TileShape::cols columns.
template <class T>
inline void pack_right(Operand<T> b, Index cols, Index depth, T* panels) {
  constexpr Index width = TileShape<T>::cols;
  for (Index j = 0; j < cols; j += width, panels += width * depth) {
    Operand<T> const part = b.at(0, j);
    detail::pack_panel<width>(part.data, part.col_stride, part.row_stride, std::min(width, cols - j), depth, panels);
  }
}

}  // namespace mor::host
