// SPDX-License-Identifier: Apache-2.0
/// @file
/// Sizes of the kernels that keep a serving engine's tables (one block each, since they wait for memory and for barriers
/// and hardly compute), and which kernels multiply its rows. Plain C++.
#pragma once

#include "mor/core/types.hpp"

#include <algorithm>

namespace mor::cuda::tuning {

inline constexpr int kServingThreads = 1024;
/// Cells that a thread looks at between two barriers, where there are more cells than threads.
inline constexpr int kServingSteps = 4;
/// Lists whose last row a block keeps in shared memory at a time, 4 bytes each.
inline constexpr Index kServingLists = 8192;

/// Threads that copy a tick's report, a few words a row.
inline constexpr int kServingLogThreads = 256;

/// Up to so many rows the kernels for few rows multiply, in the verbs that serve: above, the library's are faster.
inline constexpr Index kServingFewRows = 64;

/// Threads for `items` pieces of work: whole warps, and no more than there is work for, since each barrier waits for all.
[[nodiscard]] constexpr int serving_threads(Index items) {
  return static_cast<int>(std::clamp<Index>((items + 31) / 32 * 32, 32, kServingThreads));
}

}  // namespace mor::cuda::tuning
