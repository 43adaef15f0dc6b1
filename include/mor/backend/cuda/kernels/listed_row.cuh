// SPDX-License-Identifier: Apache-2.0
/// @file
/// Lists that say which rows of a table are meant.
#pragma once

#include "mor/core/types.hpp"

namespace mor::cuda {

/// The i-th row of a list; no list means all rows in order.
__device__ __forceinline__ Index listed_row(Row const* list, Index i) {
  return list == nullptr ? i : Index{list[i]};
}

}  // namespace mor::cuda
