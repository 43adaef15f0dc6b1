// SPDX-License-Identifier: Apache-2.0
/// @file
/// How a matrix product of few rows is cut among blocks. Plain C++.
///
/// Weights are read in tiles of 16 rows, 32 columns at a time. The columns are cut into parts, one a warp, whose sums are
/// added in order: their number depends on the shape of the weights alone, so a row of the result has the same bits
/// however many rows there are. Everything else here decides speed only.
#pragma once

#include "mor/core/types.hpp"

#include <algorithm>

namespace mor::cuda::tuning {

struct FewRows {
  static constexpr int tile = 16, chunk = 32;  ///< weights that a warp multiplies at once
  static constexpr int most_parts = 8;         ///< also the parts in which squares are summed
  static constexpr int most_shift = 3;         ///< its logarithm
  static constexpr int most_threads = 256;
  static constexpr int deep = 12, shallow = 8;  ///< chunks of a warp on their way, in one round or in many
  static constexpr int fragment_bytes = 512;    ///< 8 rows by 32 columns of bf16, or 16 by 8 sums
  /// Shared memory beyond which sums take the place of the weights: the next kernel's weights need room beside it.
  static constexpr Index apart_bytes = 48 * 1024;
  static constexpr int general_threads = 256, general_rows = 8;
};

/// Registers of a thread of few_rows_kernel at most, and the number of threads a block that, with two blocks a
/// multiprocessor, asks the compiler for that; or with `lean` for fewer, so that the next kernel finds room.
[[nodiscard]] constexpr int few_rows_registers(int row_tiles) { return row_tiles >= 8 ? 128 : 96; }
[[nodiscard]] constexpr int few_rows_bound(int row_tiles, bool lean) {
  return row_tiles >= 8 ? 256 : row_tiles > 1 || !lean ? 320 : 384;
}

/// Parts of the columns: enough warps to have most of the weights on their way at once, and parts of at most 1024; or the
/// most, where each warp shall finish at most one fragment of a tile.
[[nodiscard]] constexpr int few_rows_parts(Index tiles, Index cols, bool most) {
  if (most) return FewRows::most_parts;
  int parts = tiles <= 192 ? 8 : tiles <= 512 ? 4 : tiles <= 1024 ? 2 : 1;
  while (parts < FewRows::most_parts && cols > Index{1024} * parts) parts *= 2;
  return parts;
}

/// The logarithm of a power of two.
[[nodiscard]] constexpr int shift_of(int power) {
  int shift = 0;
  while ((1 << shift) < power) ++shift;
  return shift;
}

/// Sizes of a product, and of the device.
struct FewRowsRequest {
  Index rows = 0, cols = 0;
  Index tiles = 0;       ///< of 16 rows of the weights
  Index half_tiles = 0;  ///< of 8 rows; 0 where a tile cannot be halved
  bool most_parts = false;
  bool clusters = true;
  int multiprocessors = 132;
  Index block_bytes = 0;  ///< shared memory that a block may have
};

/// A cluster of blocks has `weight_tiles` tiles at a time, and its blocks share the columns. All counts but those of
/// groups, clusters and rounds are powers of two.
struct FewRowsPlan {
  int row_tiles = 1;     ///< of 8 rows: 1, 4 or 8
  int weight_tiles = 1;  ///< of a cluster
  int tiles_shift = 0;   ///< logarithms of counts
  int parts = 1, parts_shift = 0, block_parts = 1;
  int cluster = 1, cluster_shift = 0;
  int share = 1, share_shift = 0;  ///< fragments of results that a block finishes
  bool half = false;      ///< tiles of 8 rows
  bool possible = false;  ///< for any number of rows
  bool sums_apart = false;  ///< sums have room of their own; else they take the place of the weights
  int groups = 0;           ///< of `weight_tiles` tiles
  int clusters = 0, rounds = 1;  ///< each cluster has every clusters-th group
  int tile_step = 0;             ///< from a warp's tile to its next
  int chunks = 0;
  int depth = 0;  ///< chunks of a warp on their way
  int slot_bytes = 0, ring_bytes = 0, warp_bytes = 0, pitch = 0;
  int sums_at = 0, rows_at = 0, squares_at = 0, barrier_at = 0;
  Index shared_bytes = 0;

  [[nodiscard]] MOR_HOST_DEVICE constexpr int warps() const { return weight_tiles * block_parts; }
  [[nodiscard]] MOR_HOST_DEVICE constexpr int threads() const { return 32 * warps(); }

  constexpr explicit FewRowsPlan(FewRowsRequest request) {
    parts = few_rows_parts(request.tiles, request.cols, request.most_parts);
    parts_shift = shift_of(parts);
    chunks = static_cast<int>((request.cols + FewRows::chunk - 1) / FewRows::chunk);
    Index const rows = request.rows;
    request.rows = 32;
    possible = arrange(request, 4);
    request.rows = rows;
    if (rows <= 8 && arrange(request, 1)) return;
    if (rows > 32 && arrange(request, 8)) return;
    arrange(request, 4);
  }

 private:
  constexpr bool arrange(FewRowsRequest const& request, int tiles_of_rows) {
    row_tiles = tiles_of_rows;
    Index const comfortable = (request.block_bytes + 1024) / 3 - 1024;
    bool const few = row_tiles == 1;
    half = few && request.half_tiles > 0 && request.tiles < request.multiprocessors;
    Index const tiles = half ? request.half_tiles : request.tiles;
    // With few rows a block reads whole rows of the weights; with many, a block that has more weights and fewer columns
    // reads the rows' elements less often.
    int const most_tiles = FewRows::most_threads / 32 / parts;
    bool const clustered = request.clusters && !few;
    weight_tiles = few ? std::max(1, 4 / parts) : !clustered ? most_tiles : parts == 1 ? 8 : 4;
    tiles_shift = shift_of(weight_tiles);
    groups = static_cast<int>((tiles + weight_tiles - 1) / weight_tiles);
    cluster = 1;
    while (32 * weight_tiles * parts / cluster > FewRows::most_threads) cluster *= 2;
    size(request);
    while (clustered && cluster < parts &&
           (shared_bytes > comfortable || Index{groups} * cluster * 3 <= Index{request.multiprocessors} * 2)) {
      cluster *= 2;
      size(request);
    }
    return shared_bytes <= request.block_bytes;
  }

  /// Rounds, and the layout of shared memory.
  constexpr void size(FewRowsRequest const& request) {
    block_parts = parts / cluster;
    cluster_shift = shift_of(cluster);
    share = weight_tiles * row_tiles / cluster;
    share_shift = shift_of(share);
    rounds = 1;
    lay_out(request);
    rounds = rounds_needed(request);
    if (rounds > 1) {
      lay_out(request);
      rounds = std::max(2, rounds_needed(request));
    }
    clusters = (groups + rounds - 1) / rounds;
    rounds = (groups + clusters - 1) / clusters;
    tile_step = clusters * weight_tiles;
  }

  [[nodiscard]] constexpr int rounds_needed(FewRowsRequest const& request) const {
    Index const by_memory = (request.block_bytes + 1024) / (shared_bytes + 1024);
    Index const by_registers = Index{65536} / (few_rows_registers(row_tiles) * threads());
    Index const at_once = std::max<Index>(1, std::min(by_memory, by_registers) * request.multiprocessors / cluster);
    return static_cast<int>((groups + at_once - 1) / at_once);
  }

  constexpr void lay_out(FewRowsRequest const& request) {
    int const part_chunks = (chunks + parts - 1) / parts, sums = row_tiles * FewRows::fragment_bytes;
    depth = rounds > 1 ? FewRows::shallow : FewRows::deep;
    slot_bytes = half ? FewRows::fragment_bytes : 2 * FewRows::fragment_bytes;
    ring_bytes = std::min(depth, part_chunks * rounds) * slot_bytes;
    // An odd number of half lines: a warp's reads of neighbouring rows meet no bank twice.
    int const block_chunks = (chunks + cluster - 1) / cluster;
    pitch = 2 * FewRows::chunk * (block_chunks | 1);
    int const rows = static_cast<int>(std::min(request.rows, Index{8} * row_tiles));
    int const squares_bytes = FewRows::most_parts * 8 * row_tiles * 4, barrier_bytes = 16;
    int const apart = warps() * (ring_bytes + sums) + rows * pitch + squares_bytes + barrier_bytes;
    sums_apart = rounds > 1 || (cluster > 1 && apart <= FewRows::apart_bytes);
    warp_bytes = sums_apart ? ring_bytes : std::max(ring_bytes, sums);
    sums_at = sums_apart ? warps() * warp_bytes : 0;
    rows_at = warps() * (warp_bytes + (sums_apart ? sums : 0));
    squares_at = rows_at + rows * pitch;
    barrier_at = squares_at + squares_bytes;
    shared_bytes = barrier_at + barrier_bytes;
  }
};

}  // namespace mor::cuda::tuning
