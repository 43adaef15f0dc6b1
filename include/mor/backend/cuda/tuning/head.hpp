// SPDX-License-Identifier: Apache-2.0
/// @file
/// Sizes of the language-model head: how many rows of logits exist at a time.
#pragma once

#include "mor/core/types.hpp"

#include <algorithm>

namespace mor::cuda::tuning {

inline constexpr int kCrossEntropyThreads = 512;
/// Parts of a row whose arrival a thread waits for one after the other.
inline constexpr int kCrossEntropyGroups = 4;
/// Shared memory of a block beside its row of logits.
inline constexpr Index kCrossEntropySmallBytes = 512;
/// Room for logits: at a vocabulary of 49152 in bf16 4266 rows, enough for products at full speed.
inline constexpr Index kLogitBytes = Index{400} << 20;

/// Rows of logits held at a time: groups of nearly equal size, in whole tiles of 128.
[[nodiscard]] constexpr Index head_rows(Index rows, Index vocabulary, Index element_bytes) {
  Index const most = std::max<Index>(kLogitBytes / std::max<Index>(vocabulary * element_bytes, 1), 128);
  if (rows <= most) return rows;
  Index const groups = (rows + most - 1) / most;
  return std::min(rows, ((rows + groups - 1) / groups + 127) / 128 * 128);
}

}  // namespace mor::cuda::tuning
