// SPDX-License-Identifier: Apache-2.0
/// @file
/// How many blocks share a row of logits, and what each keeps of it. Plain C++.
#pragma once

#include "mor/core/types.hpp"

#include <algorithm>

namespace mor::cuda::tuning {

inline constexpr int kSampleThreads = 512;
inline constexpr int kSampleWarps = kSampleThreads / 32;
/// Blocks of a row that can read one another's shared memory.
inline constexpr int kSampleMostBlocks = 8;
/// Logits of a block that leave room for another block on the multiprocessor: 96 KiB and a bit each.
inline constexpr Index kSamplePart = 24576;
/// Shared memory of a block beside its logits.
inline constexpr Index kSampleSmallBytes = 16 * 1024;
/// Sums of digits of weights in 32 bits hold for fewer logits a block than this.
inline constexpr Index kSampleMostPart = Index{1} << 18;

/// What a block has of a row: the same number of logits for each warp, in whole groups of 32.
struct SamplePlan {
  int blocks = 1;        ///< of a row
  Index span = 0;        ///< logits of a warp
  bool resident = true;  ///< the block's logits stay in shared memory; else every pass reads them again

  [[nodiscard]] constexpr Index part() const { return span * kSampleWarps; }
  /// A bit a logit, and the logits.
  [[nodiscard]] constexpr Index shared_bytes() const { return part() / 8 + (resident ? 4 * part() : 0); }

  /// @param block_bytes  the most shared memory that a block may have
  constexpr SamplePlan(Index rows, Index vocabulary, bool clusters, int multiprocessors, Index block_bytes) {
    auto const split = [&](int count) {
      blocks = count;
      span = ((vocabulary + count - 1) / count + kSampleThreads - 1) / kSampleThreads * 32;
    };
    split(1);
    // Enough blocks for two of them to fit a multiprocessor, or, where there are few rows, to use every multiprocessor.
    while (clusters && blocks < kSampleMostBlocks &&
           (part() > kSamplePart || (rows * blocks * 2 <= multiprocessors && part() > 2 * kSampleThreads))) {
      split(blocks * 2);
    }
    resident = kSampleSmallBytes + part() / 8 + 4 * part() <= block_bytes;
  }
};

}  // namespace mor::cuda::tuning
