// SPDX-License-Identifier: Apache-2.0
/// @file
/// Matrix product on all cores: C = addend + scale * A B. Blocking after Goto and van de Geijn, "Anatomy of
/// high-performance matrix multiplication", 2008.
///
/// An element of C is the sum of blocks of TileShape::depth products, added in ascending order. The order depends on
/// nothing but the depth: not on the number of rows, columns or threads, so decoding one token gives the bits that a
/// whole batch gives.
#pragma once

#include "mor/backend/host/context.hpp"
#include "mor/backend/host/packing.hpp"
#include "mor/backend/host/parallel.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <algorithm>

namespace mor::host {

/// Where a product goes: c = addend + scale * product. `addend` may be `c` itself, or have no data (zero).
template <class T>
struct Target {
  View<T> c;
  View<T const> addend;
  T scale = T(1);
};

namespace detail {

/// Adds a tile to rows [i, i + rows), columns [j, j + cols) of the target. The first block of the depth starts from
/// the addend, later ones from what is there.
template <class T>
inline void write_tile(Tile<T> const& tile, Target<T> const& target, bool first, Index i, Index j, Index rows, Index cols) {
  constexpr Index width = TileShape<T>::cols;
  View<T const> const base = first ? target.addend : View<T const>(target.c);
  Pack<T> const scale(target.scale);
  for (Index row = 0; row < rows; ++row) {
    T* const out = target.c.row(i + row) + j;
    T const* const product = tile.values[row];
    T const* const from = base.data == nullptr ? nullptr : base.row(i + row) + j;
    if (cols == width) {
      for (Index part = 0; part < width; part += Pack<T>::size) {
        Pack<T> const sum = from == nullptr ? scale * load(product + part)
                                            : multiply_add(scale, load(product + part), load(from + part));
        store(out + part, sum);
      }
      continue;
    }
    for (Index part = 0; part < cols; part += Pack<T>::size) {
      Index const count = std::min(cols - part, Pack<T>::size);
      Pack<T> const sum = from == nullptr ? scale * load(product + part)
                                          : multiply_add(scale, load(product + part), load_partial(from + part, count));
      store_partial(out + part, count, sum);
    }
  }
}

/// C = addend, for a product over no depth.
template <class T>
inline void write_addend(Target<T> const& target) {
  for (Index i = 0; i < target.c.rows; ++i) {
    for (Index j = 0; j < target.c.cols; ++j) {
      target.c(i, j) = target.addend.data == nullptr ? T(0) : target.addend(i, j);
    }
  }
}

/// A product with so few rows that packing all of A is nothing: every thread takes panels of B, packs a piece into its
/// first-level cache and uses it at once, so that B is read from memory exactly once.
template <class T>
inline void multiply_few_rows(Context context, Operand<T> a, Operand<T> b, Index depth, Target<T> const& target) {
  using Shape = TileShape<T>;
  Scratch scratch(context);
  Index const rows = target.c.rows;
  Index const padded_rows = round_up(rows, Shape::rows);
  T* const packed_a = scratch.take<T>(padded_rows * depth);
  for (Index k = 0; k < depth; k += Shape::depth) {
    pack_left(a.at(0, k), rows, std::min(Shape::depth, depth - k), packed_a + padded_rows * k);
  }
  T* const packed_b = scratch.take<T>(Shape::cols * Shape::depth * context.threads);
  Index const panels = divide_up(target.c.cols, Shape::cols);
  parallel_parts(context.threads, panels, 16384 / (Shape::cols * depth) + 1, [&](Index thread, Index begin, Index end) {
    T* const piece = packed_b + thread * Shape::cols * Shape::depth;
    Tile<T> tile;
    for (Index panel = begin; panel < end; ++panel) {
      Index const j = panel * Shape::cols;
      Index const cols = std::min(Shape::cols, target.c.cols - j);
      for (Index k = 0; k < depth; k += Shape::depth) {
        Index const part = std::min(Shape::depth, depth - k);
        if (rows == 1 && b.row_stride == 1 && cols == Shape::cols) {
          multiply_row(part, a.at(0, k).data, a.col_stride, b.at(k, j).data, b.col_stride, tile.values[0]);
          write_tile(tile, target, k == 0, 0, j, 1, cols);
          continue;
        }
        pack_right(b.at(k, j), cols, part, piece);
        for (Index i = 0; i < rows; i += Shape::rows) {
          Index const height = std::min(Shape::rows, rows - i);
          multiply_panels(height, part, packed_a + padded_rows * k + i * part, piece, Shape::cols, tile);
          write_tile(tile, target, k == 0, i, j, height, cols);
        }
      }
    }
  });
}

/// Sizes of the blocks of a large product.
template <class T>
struct Blocking {
  Index depth = 0;  ///< of packed B, a multiple of TileShape::depth
  Index cols = 0;   ///< of packed B
  Index rows = 0;   ///< of packed A, one block per thread

  Blocking(Index m, Index n, Index k, int threads) {
    using Shape = TileShape<T>;
    Index const room = (Index{4} << 20) / static_cast<Index>(sizeof(T));  // packed B stays in the last-level cache
    depth = round_up(std::min<Index>(k, 2048), Shape::depth);
    cols = std::min(round_up(n, Shape::cols), std::max(room / depth / Shape::cols, Index{1}) * Shape::cols);
    // Row blocks near 96 rows, so that a block of A stays in the second-level cache, and the same number per thread.
    Index const rounds = divide_up(m, 96 * threads);
    rows = round_up(divide_up(m, rounds * threads), Shape::rows);
  }
};

template <class T>
inline void multiply_blocked(Context context, Operand<T> a, Operand<T> b, Index depth, Target<T> const& target) {
  using Shape = TileShape<T>;
  Index const m = target.c.rows, n = target.c.cols;
  Blocking<T> const block(m, n, depth, context.threads);
  Scratch scratch(context);
  T* const packed_b = scratch.take<T>(std::min(block.depth, depth) * block.cols);
  T* const packed_a = scratch.take<T>(block.rows * Shape::depth * context.threads);
  for (Index j0 = 0; j0 < n; j0 += block.cols) {
    Index const cols = std::min(block.cols, n - j0);
    Index const padded_cols = round_up(cols, Shape::cols);
    for (Index k0 = 0; k0 < depth; k0 += block.depth) {
      Index const block_depth = std::min(block.depth, depth - k0);
      Index const slices = divide_up(block_depth, Shape::depth);
      Index const panels = padded_cols / Shape::cols;
      parallel_items(context.threads, slices * panels, [&](Index item, int) {
        Index const k = item / panels * Shape::depth, j = item % panels * Shape::cols;
        Index const part = std::min(Shape::depth, block_depth - k);
        pack_right(b.at(k0 + k, j0 + j), std::min(Shape::cols, cols - j), part, packed_b + padded_cols * k + j * part);
      });
      parallel_items(context.threads, divide_up(m, block.rows), [&](Index item, int thread) {
        Index const i0 = item * block.rows;
        Index const rows = std::min(block.rows, m - i0);
        T* const left = packed_a + block.rows * Shape::depth * thread;
        Tile<T> tile;
        for (Index k = 0; k < block_depth; k += Shape::depth) {
          Index const part = std::min(Shape::depth, block_depth - k);
          pack_left(a.at(i0, k0 + k), rows, part, left);
          for (Index j = 0; j < cols; j += Shape::cols) {
            T const* const right = packed_b + padded_cols * k + j * part;
            for (Index i = 0; i < rows; i += Shape::rows) {
              Index const height = std::min(Shape::rows, rows - i);
              multiply_panels(height, part, left + i * part, right, Shape::cols, tile);
              write_tile(tile, target, k0 + k == 0, i0 + i, j0 + j, height, std::min(Shape::cols, cols - j));
            }
          }
        }
      });
    }
  }
}

}  // namespace detail

/// c = addend + scale * a b, with a [m, depth], b [depth, n] and c [m, n].
template <class T>
inline void multiply(Context context, Operand<T> a, Operand<T> b, Index depth, Target<T> target) {
  if (target.c.empty()) return;
  if (depth == 0) return detail::write_addend(target);
  Index const few = 48;  // measured: above it, packing B once for all threads is faster
  if (target.c.rows <= few) {
    detail::multiply_few_rows(context, a, b, depth, target);
  } else {
    detail::multiply_blocked(context, a, b, depth, target);
  }
}

}  // namespace mor::host
