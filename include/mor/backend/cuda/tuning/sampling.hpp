// SPDX-License-Identifier: Apache-2.0
/// @file
/// How many blocks share a row of logits, and what each keeps of it. Plain C++.
#pragma once

#include "mor/core/types.hpp"

#include <algorithm>

namespace mor::cuda::tuning {

inline constexpr int kSampleThreads = 512;
inline constexpr int kSampleWarps = kSampleThreads / 32;
/// Logits that a warp reads at once: a 16-byte pack a lane.
inline constexpr int kSampleStep = 128;
/// Blocks of a row that can read one another's shared memory.
inline constexpr int kSampleMostBlocks = 8;
/// Logits of a block that leave room for another block on the multiprocessor: 96 KiB and a bit each.
inline constexpr Index kSamplePart = 24576;
/// Shared memory of a block beside its logits.
inline constexpr Index kSampleSmallBytes = 16 * 1024;
/// Sums of weights over a warp hold for fewer logits a block than this.
inline constexpr Index kSampleMostPart = Index{1} << 19;
/// Logits of a warp that a block reads between two looks at its sums of digits of weights, a few less than 32 bits hold.
inline constexpr Index kSampleRound = (Index{1} << 18) / kSampleWarps - kSampleStep;

/// Likeliest tokens that one block can sort out alone, how many of them top-p asks for, and up to how many are compared
/// each with each.
inline constexpr int kSampleList = 1024;
inline constexpr int kSampleListAim = 512;
inline constexpr int kSampleFew = 128;

/// What a block has of a row: the same number of logits for each warp, in whole steps.
struct SamplePlan {
  int blocks = 1;        ///< of a row
  Index span = 0;        ///< logits of a warp
  bool resident = true;  ///< the block's logits stay in shared memory; else every pass reads them again

  [[nodiscard]] constexpr Index part() const { return span * kSampleWarps; }
  /// The logits, or a bit each for those in the history.
  [[nodiscard]] constexpr Index shared_bytes() const { return resident ? 4 * part() : part() / 8; }

  /// @param block_bytes  the most shared memory that a block may have
  constexpr SamplePlan(Index rows, Index vocabulary, bool clusters, int multiprocessors, Index block_bytes) {
    split(vocabulary, 1);
    // Enough blocks for two of them to fit a multiprocessor, or, where there are few rows, for two on every
    // multiprocessor.
    while (clusters && blocks < kSampleMostBlocks &&
           (part() > kSamplePart || (rows * blocks <= multiprocessors && part() > kStep))) {
      split(vocabulary, blocks * 2);
    }
    resident = kSampleSmallBytes + 4 * part() <= block_bytes;
  }
  /// With so many blocks, whose logits stay in shared memory.
  constexpr SamplePlan(Index vocabulary, int blocks_) { split(vocabulary, blocks_); }

 private:
  static constexpr Index kStep = Index{kSampleStep} * kSampleWarps;

  constexpr void split(Index vocabulary, int count) {
    blocks = count;
    span = ((vocabulary + count - 1) / count + kStep - 1) / kStep * kSampleStep;
  }
};

}  // namespace mor::cuda::tuning
