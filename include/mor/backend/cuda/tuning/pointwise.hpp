// SPDX-License-Identifier: Apache-2.0
/// @file
/// Sizes of the kernels that are bound by memory: norms, rotary embedding, row moves, element-wise maps, optimizer.
/// Counts of blocks that decide the order of a sum depend on shapes alone, so that every device computes the same bits.
#pragma once

#include "mor/core/types.hpp"

#include <algorithm>

namespace mor::cuda::tuning {

inline constexpr int kMapThreads = 256;

/// What a load tells the caches of data that the kernel reads once. `Streamed` (ld.cs) gives its lines away first, so that
/// they push out neither results that the next kernel reads nor, which would cost a write each, results that memory does
/// not have yet.
enum class Reading { Cached, Streamed };
inline constexpr Reading kReading = Reading::Streamed;

/// Rows that fit the registers of one warp are read once by a warp each; wider ones by a block of `kNormThreads`.
inline constexpr int kNormThreads = 128;
inline constexpr int kNormPacks = 4;  ///< 16-byte packs of a row that a thread keeps
inline constexpr int kNormBackwardThreads = 256;
/// Backward blocks: two a multiprocessor of an H100 (132), each with room for 128 registers a thread.
inline constexpr Index kNormBackwardBlocks = 264;
/// With a block of `kNormThreads` a row, as many threads make twice as many blocks.
inline constexpr Index kNormBackwardWideBlocks = 528;
inline constexpr int kPartialColumns = 32;  ///< columns of weight gradients that one block sums up

/// Blocks of a backward pass in which each block works on `rows_of_block` rows at a time.
[[nodiscard]] constexpr Index norm_backward_blocks(Index rows, Index rows_of_block, Index most) {
  return std::min((rows + rows_of_block - 1) / rows_of_block, most);
}

/// Which kernel runs a norm's backward pass, and its blocks: a function of shapes and alignment alone. `width` elements
/// are a 16-byte pack.
struct NormBackwardPlan {
  enum class Kind { Warp, Block, Wide, General };
  Kind kind = Kind::General;
  Index blocks = 0;
  Index partial = 0;  ///< floats of scratch: a row of weight gradients a block

  constexpr NormBackwardPlan(Index rows, Index cols, bool packed, Index width) {
    Index const in_registers = Index{kNormPacks} * width;
    if (packed && cols <= in_registers * 32) {
      kind = Kind::Warp;
      blocks = norm_backward_blocks(rows, kNormBackwardThreads / 32, kNormBackwardBlocks);
    } else if (packed && cols <= in_registers * kNormThreads) {
      kind = Kind::Block;
      blocks = norm_backward_blocks(rows, 1, kNormBackwardWideBlocks);
    } else {
      kind = packed ? Kind::Wide : Kind::General;
      blocks = norm_backward_blocks(rows, 1, kNormBackwardWideBlocks);
    }
    partial = blocks * cols;
  }
};

inline constexpr int kRopeThreads = 256;
inline constexpr int kRopeItems = 3;  ///< pairs of packs that a thread has in flight
inline constexpr Index kRopeTableEntries = 2048;

/// Rows that one block rotates: enough for `kRopeItems` items a thread, as long as the table of angles stays small.
[[nodiscard]] constexpr Index rope_rows(Index items_of_row, Index half) {
  return std::max<Index>(std::min(Index{kRopeThreads} * kRopeItems / items_of_row, kRopeTableEntries / half), 1);
}

inline constexpr int kSumThreads = 256;
inline constexpr int kSumLoads = 4;           ///< 16-byte loads that a thread has in flight
inline constexpr Index kMostSumParts = 1056;  ///< eight blocks a multiprocessor of an H100

/// Parts of a long sum, of at least 4096 numbers.
[[nodiscard]] constexpr Index sum_parts(Index count) {
  Index const smallest = Index{kSumThreads} * kSumLoads * 4;
  return std::clamp<Index>((count + smallest - 1) / smallest, 1, kMostSumParts);
}

inline constexpr int kAdamwThreads = 256;

}  // namespace mor::cuda::tuning
