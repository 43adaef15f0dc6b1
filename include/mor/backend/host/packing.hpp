// SPDX-License-Identifier: Apache-2.0
/// @file
/// Rearranges parts of matrices into the panels that `multiply_panels` reads. Missing rows and columns become zeros.
#pragma once

#include "mor/backend/host/context.hpp"
#include "mor/backend/host/micro_kernel.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <algorithm>
#include <cstring>

namespace mor::host {

/// A matrix operand by strides, so that a transpose costs nothing: element (i, j) is data[i * row_stride + j * col_stride].
/// One of the strides is 1 (with both 1, either reading is right).
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

/// Transposes a square of `lanes` rows (missing rows are zeros) into lanes [0, Kept) of Pack::size depths of a panel.
/// Lanes beyond `Kept` spill into the next depth, whose first lanes are written later; the last depth of a panel writes
/// exactly its own.
template <Index Width, Index Kept, bool Full, class T>
inline void pack_square(T const* source, Index stride, Index lanes, bool last, T* panel) {
  constexpr Index size = Pack<T>::size;
  Pack<T> packs[size];
#pragma GCC unroll 16
  for (Index i = 0; i < size; ++i) {
    packs[i] = i < Kept && (Full || i < lanes) ? load(source + i * stride) : Pack<T>(T(0));
  }
  transpose(packs);
#pragma GCC unroll 16
  for (Index k = 0; k + 1 < size; ++k) store(panel + k * Width, packs[k]);
  if (Kept < size && last) {
    store_partial(panel + (size - 1) * Width, Kept, packs[size - 1]);
  } else {
    store(panel + (size - 1) * Width, packs[size - 1]);
  }
}

/// tile row 0 = a b over `depth` for one row `a`, its elements `a_stride` apart, and TileShape::cols rows of memory as the
/// columns of b: the sums of `multiply_panels`, in its order, with each square used in registers instead of packed.
template <class T>
inline void multiply_row(Index depth, T const* a, Index a_stride, T const* source, Index stride, T* sums) {
  constexpr Index size = Pack<T>::size, groups = TileShape<T>::cols / size;
  constexpr Index line = std::max(64 / static_cast<Index>(sizeof(T)), size);
  Pack<T> totals[groups];
  for (Pack<T>& total : totals) total = Pack<T>(T(0));
  Index const packed = depth / size * size;
  for (Index first = 0; first < packed; first += line) {
    Index const end = std::min(first + line, packed);
#pragma GCC unroll 16
    for (Index group = 0; group < groups; ++group) {
      for (Index k = first; k < end; k += size) {
        Pack<T> packs[size];
#pragma GCC unroll 16
        for (Index i = 0; i < size; ++i) packs[i] = load(source + (group * size + i) * stride + k);
        transpose(packs);
#pragma GCC unroll 16
        for (Index i = 0; i < size; ++i) {
          totals[group] = multiply_add(Pack<T>(a[(k + i) * a_stride]), packs[i], totals[group]);
        }
      }
    }
  }
  for (Index k = packed; k < depth; ++k) {
    for (Index group = 0; group < groups; ++group) {
      T lanes[size];
      for (Index i = 0; i < size; ++i) lanes[i] = source[(group * size + i) * stride + k];
      totals[group] = multiply_add(Pack<T>(a[k * a_stride]), load(static_cast<T const*>(lanes)), totals[group]);
    }
  }
  for (Index group = 0; group < groups; ++group) store(sums + group * size, totals[group]);
}

/// A panel whose lanes are rows of memory: panel[k * Width + lane] = source[lane * stride + k]. It goes by cache lines:
/// rows are often a multiple of 4 KB apart and then share one set of the cache, which holds few of them. Of the squares of
/// a depth the last, which may spill, goes first.
template <Index Width, bool Full, class T>
inline void pack_rows(T const* source, Index stride, Index lanes, Index depth, T* panel) {
  constexpr Index size = Pack<T>::size, whole = Width / size * size, rest = Width - whole;
  constexpr Index line = std::max(64 / static_cast<Index>(sizeof(T)), size);
  Index const packed = depth / size * size;
  for (Index first = 0; first < packed; first += line) {
    Index const end = std::min(first + line, packed);
    if constexpr (rest > 0) {
      for (Index k = first; k < end; k += size) {
        pack_square<Width, rest, Full>(source + whole * stride + k, stride, lanes - whole, k + size == depth,
                                       panel + k * Width + whole);
      }
    }
    for (Index lane = 0; lane < whole; lane += size) {
      for (Index k = first; k < end; k += size) {
        pack_square<Width, size, Full>(source + lane * stride + k, stride, lanes - lane, false, panel + k * Width + lane);
      }
    }
  }
  for (Index k = packed; k < depth; ++k) {
    for (Index lane = 0; lane < Width; ++lane) {
      panel[k * Width + lane] = Full || lane < lanes ? source[lane * stride + k] : T(0);
    }
  }
}

/// Panels whose depths are rows of memory: panel p holds lanes [p * Width, (p + 1) * Width) of each row. A few rows are
/// dealt out to all panels before the next few, so that memory is read in order and caches hold what is written.
template <Index Width, class T>
inline void pack_columns(T const* source, Index stride, Index lanes, Index depth, T* panels) {
  Index const group = 8;
  for (Index first = 0; first < depth; first += group) {
    Index const end = std::min(first + group, depth);
    for (Index lane = 0; lane < lanes; lane += Width) {
      T* const panel = panels + lane * depth;
      Index const kept = std::min(Width, lanes - lane);
      for (Index k = first; k < end; ++k) {
        T const* const from = source + k * stride + lane;
        if (k + group < depth) __builtin_prefetch(from + group * stride);
        if (kept == Width) {
          std::memcpy(panel + k * Width, from, Width * sizeof(T));
        } else {
          std::copy(from, from + kept, panel + k * Width);
          std::fill(panel + k * Width + kept, panel + (k + 1) * Width, T(0));
        }
      }
    }
  }
}

/// Panels of `Width` lanes each, one after another, every panel Width * depth elements.
template <Index Width, class T>
inline void pack_panels(T const* source, Index lane_stride, Index depth_stride, Index lanes, Index depth, T* panels) {
  if (lane_stride == 1) return pack_columns<Width>(source, depth_stride, lanes, depth, panels);
  Index lane = 0;
  for (; lane + Width <= lanes; lane += Width) {
    pack_rows<Width, true>(source + lane * lane_stride, lane_stride, Width, depth, panels + lane * depth);
  }
  if (lane < lanes) {
    pack_rows<Width, false>(source + lane * lane_stride, lane_stride, lanes - lane, depth, panels + lane * depth);
  }
}

}  // namespace detail

/// Packs rows [0, rows) of the left operand over [0, depth) into panels of TileShape::rows rows, each
/// TileShape::rows * depth elements.
template <class T>
inline void pack_left(Operand<T> a, Index rows, Index depth, T* panels) {
  detail::pack_panels<TileShape<T>::rows>(a.data, a.row_stride, a.col_stride, rows, depth, panels);
}

/// Packs columns [0, cols) of the right operand over [0, depth) into panels of TileShape::cols columns.
template <class T>
inline void pack_right(Operand<T> b, Index cols, Index depth, T* panels) {
  detail::pack_panels<TileShape<T>::cols>(b.data, b.col_stride, b.row_stride, cols, depth, panels);
}

}  // namespace mor::host
