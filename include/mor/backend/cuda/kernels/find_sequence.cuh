// SPDX-License-Identifier: Apache-2.0
/// @file
/// The sequence a row belongs to.
#pragma once

#include "mor/core/types.hpp"

namespace mor::cuda {

/// The s with offsets[s] <= row < offsets[s + 1], by bisection; -1 where there is none. `offsets` [sequences + 1] never
/// decrease; an empty sequence has no rows.
__device__ __forceinline__ int find_sequence(Row const* offsets, int sequences, Index row) {
  int low = 0, high = sequences + 1;  // offsets before `low` are at most row, offsets from `high` on are larger
  while (low < high) {
    int const middle = (low + high) / 2;
    if (offsets[middle] <= row) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low <= sequences ? low - 1 : -1;
}

}  // namespace mor::cuda
