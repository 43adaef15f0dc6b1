// SPDX-License-Identifier: Apache-2.0
/// @file
/// Tile sizes of the attention kernels. Plain C++.
///
/// The tensor-core kernels give each warp the rows of `row_tiles` matrix tiles of 16, so that a fragment read from
/// shared memory serves two products, and cut the other side into steps small enough for the accumulators to stay in
/// registers.
#pragma once

#include "mor/core/types.hpp"

namespace mor::cuda::tuning {

/// One warp works on one row (and head), or a whole block shares it where there are few rows and many keys.
struct AttentionGeneral {
  static constexpr int threads = 256;
  static constexpr int warps = threads / 32;
  static constexpr int keys_at_once = 4;  ///< read before the first is used
  static constexpr int max_head_dim = 256;
  static constexpr Index few_rows = 4;  ///< rows a sequence up to which a block shares a row
  static constexpr Index many_keys = 128;
};

/// Decoding from pages: a block has one row and one key/value head.
struct AttentionPaged {
  static constexpr int threads = 128;
  static constexpr int warps = threads / 32;
  static constexpr int keys_at_once = 4;  ///< that each group of lanes reads before it uses the first
  static constexpr int packed_heads = 4;  ///< query heads that share what a block reads
  static constexpr int part_keys = 512;   ///< a longer list is cut into parts of this length
};
/// Parts into which lists of at most `max_limit` keys are cut.
[[nodiscard]] constexpr Index attention_parts(Index max_limit) {
  return max_limit <= AttentionPaged::part_keys ? 1 : (max_limit + AttentionPaged::part_keys - 1) / AttentionPaged::part_keys;
}

/// Decoding on Hopper: a block has one row and one key/value head, and each of its warps a slice of a part of the list.
template <int HeadDim>
struct AttentionDecode {
  static constexpr int warps = 4;
  static constexpr int slice_keys = 2048 / HeadDim;  ///< 4 KiB of keys and as much of values; divides the page size
  static constexpr int part_keys = warps * slice_keys;
  /// Blocks of a multiprocessor, for up to 8 heads and for more: what shared memory has room for. Sets registers.
  static constexpr int resident_blocks = HeadDim == 64 ? 5 : 4, resident_blocks_of_many_heads = HeadDim == 64 ? 3 : 2;
};
/// How many blocks, a cluster, take turns at the parts of a list. It changes no bit of the results.
struct AttentionDecodeCluster {
  static constexpr int most_rounds = 16;     ///< turns of a block before a list gets more than fill the device,
  static constexpr int long_lists = 4;       ///< up to this many
  static constexpr int most_blocks = 16;
  static constexpr int portable_blocks = 8;  ///< that every device takes
};
/// Blocks of each of `items` rows and key/value heads, whose lists have up to `parts` parts, on a device with room for `room`
/// blocks at a time.
[[nodiscard]] constexpr int attention_decode_blocks(Index items, Index parts, Index room) {
  using Sizes = AttentionDecodeCluster;
  int blocks = 1;
  while (blocks < Sizes::most_blocks && blocks < parts) {
    bool const fits = 2 * blocks * items <= room;
    bool const few = blocks < Sizes::long_lists && Index{blocks} * Sizes::most_rounds < parts;
    if (!fits && !few) break;
    blocks *= 2;
  }
  return blocks;
}
/// Whether the decoding kernel for Hopper has this head dimension and page size (in bf16).
[[nodiscard]] constexpr bool attention_decodes(Index head_dim, Index page_size) {
  return (head_dim == 64 || head_dim == 128) && page_size % (2048 / head_dim) == 0;
}

/// Forward: 128 queries a block.
template <int HeadDim>
struct AttentionSm80Forward;
template <>
struct AttentionSm80Forward<64> {
  static constexpr int warps = 4, row_tiles = 2, key_tile = 128, step_keys = 32;
  static constexpr bool queries_in_registers = true;
  static constexpr bool look_ahead = true;  ///< scores of the next step are computed among this step's exponentials
};
template <>
struct AttentionSm80Forward<128> {
  static constexpr int warps = 4, row_tiles = 2, key_tile = 64, step_keys = 32;
  static constexpr bool queries_in_registers = false;
  static constexpr bool look_ahead = true;
};

/// Gradient of the queries: 128 queries a block.
template <int HeadDim>
struct AttentionSm80QueryGradient;
template <>
struct AttentionSm80QueryGradient<64> {
  static constexpr int warps = 4, row_tiles = 2, key_tile = 64, step_keys = 32;
  static constexpr bool rows_in_registers = true;
};
template <>
struct AttentionSm80QueryGradient<128> {
  static constexpr int warps = 4, row_tiles = 2, key_tile = 32, step_keys = 32;
  static constexpr bool rows_in_registers = false;
};

/// Gradients of keys and values: 128 or 64 keys a block.
template <int HeadDim>
struct AttentionSm80KeyGradient;
template <>
struct AttentionSm80KeyGradient<64> {
  static constexpr int warps = 4, row_tiles = 2, query_tile = 64, step_queries = 32;
};
template <>
struct AttentionSm80KeyGradient<128> {
  static constexpr int warps = 4, row_tiles = 1, query_tile = 64, step_queries = 32;
};

/// Head dimensions that the tensor-core kernels have.
[[nodiscard]] constexpr bool attention_on_tensor_cores(Index head_dim) { return head_dim == 64 || head_dim == 128; }
/// What the Sm80 backward pass keeps of each row and head, in bytes.
inline constexpr Index kAttentionRowStatisticsBytes = 8;

/// Blocks of each tensor-core kernel that share a multiprocessor: while one waits, the other computes.
inline constexpr int kAttentionBlocksPerMultiprocessor = 2;

/// How far (in powers of two) a score may outrun the reference that exponentials are taken against.
inline constexpr float kAttentionSlack = 8.0F;

/// The forward tensor-core kernel pays where some sequence has this many query rows; below, most of each tile is empty.
inline constexpr Index kAttentionFewestRows = 8;

}  // namespace mor::cuda::tuning
