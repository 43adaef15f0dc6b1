// SPDX-License-Identifier: Apache-2.0
/// @file
/// The innermost part of every matrix product: a small tile of the result, held in registers, summed over the depth.
///
/// Each element of a tile is one chain of multiply-adds in ascending depth, whatever the tile's place and height. So a
/// row of a product has the same bits alone and in any batch.
#pragma once

#include "mor/backend/host/pack.hpp"
#include "mor/core/types.hpp"

namespace mor::host {

/// Tile sizes: 12 accumulators, two packs of the right operand and a broadcast fill 16 vector registers (32 with
/// AVX-512 hold twice as many rows).
template <class T>
struct TileShape {
  static constexpr Index rows = kVectorBytes == 64 ? 12 : 6;
  static constexpr Index cols = 2 * Pack<T>::size;
  static constexpr Index depth = 256;  ///< depth summed before a tile is added to the result: panels stay in cache
};

/// A tile of the result in memory, row-major. Its rows are whole packs, so that it can be transposed.
template <class T>
struct alignas(64) Tile {
  static constexpr Index padded_rows = (TileShape<T>::rows + Pack<T>::size - 1) / Pack<T>::size * Pack<T>::size;
  T values[padded_rows][TileShape<T>::cols];
};

namespace detail {
/// tile = a b for the first `Rows` rows of panel `a` (depth major, `Stride` apart) and panel `b` (depth major, `b_stride`
/// apart); with `goes_on`, the sums that are in the tile go on.
template <Index Rows, Index Stride, class T>
inline void multiply_panels(Index depth, T const* a, T const* b, Index b_stride, Tile<T>& tile, bool goes_on) {
  Pack<T> sums[Rows][2];
#pragma GCC unroll 16
  for (Index i = 0; i < Rows; ++i) sums[i][0] = sums[i][1] = Pack<T>(T(0));
  if (goes_on) {
#pragma GCC unroll 16
    for (Index i = 0; i < Rows; ++i) {
      sums[i][0] = load(static_cast<T const*>(&tile.values[i][0]));
      sums[i][1] = load(static_cast<T const*>(&tile.values[i][Pack<T>::size]));
    }
  }
#pragma GCC unroll 4
  for (Index k = 0; k < depth; ++k) {
    Pack<T> const left = load(b);
    Pack<T> const right = load(b + Pack<T>::size);
#pragma GCC unroll 16
    for (Index i = 0; i < Rows; ++i) {
      Pack<T> const factor(a[i]);
      sums[i][0] = multiply_add(factor, left, sums[i][0]);
      sums[i][1] = multiply_add(factor, right, sums[i][1]);
    }
    a += Stride;
    b += b_stride;
  }
#pragma GCC unroll 16
  for (Index i = 0; i < Rows; ++i) {
    store(&tile.values[i][0], sums[i][0]);
    store(&tile.values[i][Pack<T>::size], sums[i][1]);
  }
}
}  // namespace detail

/// tile = a b over `depth`, where the rows of panel `a` are `Stride` apart. The first `rows` rows of the tile are wanted,
/// the others may stay undefined. With `goes_on` the sums in the tile go on: a depth in parts gives the bits of the whole.
template <Index Stride, class T>
inline void multiply_panels_apart(Index rows, Index depth, T const* a, T const* b, Index b_stride, Tile<T>& tile,
                                  bool goes_on = false) {
  if (rows == 1) return detail::multiply_panels<1, Stride>(depth, a, b, b_stride, tile, goes_on);
  if (rows == 2) return detail::multiply_panels<2, Stride>(depth, a, b, b_stride, tile, goes_on);
  if (rows <= 4) return detail::multiply_panels<4, Stride>(depth, a, b, b_stride, tile, goes_on);
  detail::multiply_panels<TileShape<T>::rows, Stride>(depth, a, b, b_stride, tile, goes_on);
}

/// The same for a packed panel.
template <class T>
inline void multiply_panels(Index rows, Index depth, T const* a, T const* b, Index b_stride, Tile<T>& tile) {
  multiply_panels_apart<TileShape<T>::rows>(rows, depth, a, b, b_stride, tile);
}

}  // namespace mor::host
