// SPDX-License-Identifier: Apache-2.0
/// @file
/// Copies of rows whose addresses a block has worked out. `Unit` is what one access moves: 16 bytes, or one element
/// where rows are not aligned.
#pragma once

#include "mor/backend/cuda/kernels/elementwise.cuh"
#include "mor/backend/cuda/tuning/pointwise.hpp"
#include "mor/core/types.hpp"

#include <type_traits>

namespace mor::cuda {

/// A matrix in units.
template <class Unit>
struct UnitRows {
  Unit* data;
  Index stride;  ///< units

  void note_to(auto& log) const { log.note(data, stride); }
};

/// Where a block's rows are: offsets from the first unit of each matrix, in shared memory.
template <int Rows>
struct RowOffsets {
  Index from[Rows];
  Index to[Rows];  ///< negative for a row that is not copied
};

/// Copies `rows` rows of `units` units. Several loads of a thread are in flight before its first store.
template <int Threads, int Rows, class Unit>
__device__ __forceinline__ void copy_row_tile(Unit const* from, Unit* to, RowOffsets<Rows> const& offsets,
                                              unsigned rows, unsigned units) {
  constexpr unsigned flight = 4;
  unsigned const total = rows * units;
  for (unsigned first = threadIdx.x; first < total; first += flight * Threads) {
    Unit held[flight];
    Index target[flight];
#pragma unroll
    for (unsigned k = 0; k < flight; ++k) {
      unsigned const at = first + k * Threads;
      target[k] = -1;
      if (at >= total) continue;
      unsigned const row = at / units, unit = at - row * units;
      if (offsets.to[row] < 0) continue;
      held[k] = from[offsets.from[row] + unit];
      target[k] = offsets.to[row] + unit;
    }
#pragma unroll
    for (unsigned k = 0; k < flight; ++k) {
      if (target[k] >= 0) to[target[k]] = held[k];
    }
  }
}

}  // namespace mor::cuda
