// SPDX-License-Identifier: Apache-2.0
/// @file
/// Tiles of bf16 rows in shared memory and the products of warps with them.
///
/// A row is cut into chunks of 16 bytes, and chunk c of row r lies at place c ^ (r % 8): eight rows at the same chunk,
/// which one matrix load reads, then fall into different banks. Fragments are named as in mma.cuh.
#pragma once

#include "mor/backend/cuda/kernels/mma.cuh"
#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/core/dtype.hpp"
#include "mor/core/types.hpp"

#include <cstdint>

namespace mor::cuda::sm80 {

/// Dynamic shared memory of the tensor-core attention kernels.
extern __shared__ __align__(128) unsigned char attention_shared[];

/// Sums of a warp: `RowTiles` x `ColumnTiles` tiles of 16 x 8.
template <int RowTiles, int ColumnTiles>
using Accumulator = float[RowTiles][ColumnTiles][4];

/// A left operand of 16 * RowTiles rows and 16 columns.
template <int RowTiles>
using LeftFragment = std::uint32_t[RowTiles][4];

template <int RowTiles, int ColumnTiles>
__device__ __forceinline__ void clear(Accumulator<RowTiles, ColumnTiles>& sums) {
#pragma unroll
  for (int r = 0; r < RowTiles; ++r) {
#pragma unroll
    for (int c = 0; c < ColumnTiles; ++c) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[r][c][i] = 0.0F;
    }
  }
}

/// Rows of HeadDim elements.
template <int HeadDim>
struct SharedTile {
  static constexpr int kRowBytes = 2 * HeadDim;
  static constexpr int kChunks = HeadDim / 8;
  static_assert(kChunks % 8 == 0);

  [[nodiscard]] __device__ static std::uint32_t offset(int row, int chunk) {
    return static_cast<std::uint32_t>(row * kRowBytes + ((chunk ^ (row & 7)) << 4));
  }

  /// Starts the copy of `Rows` rows by a block of `Threads`; rows from `valid` on become zeros.
  template <int Rows, int Threads>
  __device__ static void copy(std::uint32_t to, bfloat16 const* from, Index stride, int valid) {
    constexpr int kRowsAtOnce = Threads / kChunks;
    static_assert(Threads % kChunks == 0 && kRowsAtOnce % 8 == 0 && Rows % kRowsAtOnce == 0);
    int const chunk = static_cast<int>(threadIdx.x) % kChunks, row = static_cast<int>(threadIdx.x) / kChunks;
    std::uint32_t const target = to + offset(row, chunk);
    bfloat16 const* const source = from + row * stride + chunk * 8;
#pragma unroll
    for (int i = 0; i < Rows; i += kRowsAtOnce) {
      copy_async<16>(target + static_cast<std::uint32_t>(i * kRowBytes), source + i * stride, row + i < valid);
    }
  }

  /// The lane's address offset for `load_left` and `multiply_columns`: matrices stacked along rows, then along columns.
  [[nodiscard]] __device__ static std::uint32_t rows_first() {
    int const lane = static_cast<int>(threadIdx.x) % kWarpSize;
    return offset(lane % 16, lane / 16);
  }
  /// The lane's address offset for `multiply_rows`: matrices side by side, then stacked.
  [[nodiscard]] __device__ static std::uint32_t columns_first() {
    int const lane = static_cast<int>(threadIdx.x) % kWarpSize;
    return offset(lane % 8 + lane / 16 * 8, lane / 8 % 2);
  }
  /// Moves a lane's offset by 16 columns `step` times: two chunks each. The lane's chunk is 0 or 1, to which an even
  /// number is added by an exclusive or, and that commutes with the permutation.
  [[nodiscard]] __device__ static std::uint32_t at_column(std::uint32_t lane_offset, int step) {
    return lane_offset ^ static_cast<std::uint32_t>(step * 32);
  }
  [[nodiscard]] __device__ static std::uint32_t at_row(int row) {
    return static_cast<std::uint32_t>(row * kRowBytes);
  }
};

/// Columns [16 step, 16 step + 16) of a tile's rows as a left operand. `tile` is the address of the first row, a
/// multiple of 8 rows into its tile; `lane` is rows_first().
template <int HeadDim, int RowTiles>
__device__ __forceinline__ void load_left(LeftFragment<RowTiles>& to, std::uint32_t tile, std::uint32_t lane,
                                          int step) {
  using Tile = SharedTile<HeadDim>;
#pragma unroll
  for (int r = 0; r < RowTiles; ++r) load_matrices(to[r], tile + Tile::at_row(16 * r) + Tile::at_column(lane, step));
}

/// sums [rows, tile rows] += left [rows, 16] times columns [16 step, 16 step + 16) of the tile's rows, transposed.
/// `lane` is columns_first().
template <int HeadDim, int RowTiles, int ColumnTiles>
__device__ __forceinline__ void multiply_rows(Accumulator<RowTiles, ColumnTiles>& sums,
                                              LeftFragment<RowTiles> const& left, std::uint32_t tile,
                                              std::uint32_t lane, int step) {
  using Tile = SharedTile<HeadDim>;
  static_assert(ColumnTiles % 2 == 0);
#pragma unroll
  for (int c = 0; c < ColumnTiles; c += 2) {
    std::uint32_t right[4];
    load_matrices(right, tile + Tile::at_row(8 * c) + Tile::at_column(lane, step));
#pragma unroll
    for (int r = 0; r < RowTiles; ++r) {
      multiply_add(sums[r][c], left[r], right[0], right[1]);
      multiply_add(sums[r][c + 1], left[r], right[2], right[3]);
    }
  }
}

/// sums [rows, HeadDim] += left [rows, 16] times the 16 rows of the tile from `tile` on. `lane` is rows_first().
template <int HeadDim, int RowTiles>
__device__ __forceinline__ void multiply_columns(Accumulator<RowTiles, HeadDim / 8>& sums,
                                                 LeftFragment<RowTiles> const& left, std::uint32_t tile,
                                                 std::uint32_t lane) {
  using Tile = SharedTile<HeadDim>;
#pragma unroll
  for (int c = 0; c < HeadDim / 8; c += 2) {
    std::uint32_t right[4];
    load_matrices_transposed(right, tile + Tile::at_column(lane, c / 2));
#pragma unroll
    for (int r = 0; r < RowTiles; ++r) {
      multiply_add(sums[r][c], left[r], right[0], right[1]);
      multiply_add(sums[r][c + 1], left[r], right[2], right[3]);
    }
  }
}

/// Columns [16 step, 16 step + 16) of sums, rounded to bf16, as a left operand: sums lie as fragments do.
template <int RowTiles, int ColumnTiles>
__device__ __forceinline__ void round_left(LeftFragment<RowTiles>& to, Accumulator<RowTiles, ColumnTiles> const& sums,
                                           int step) {
#pragma unroll
  for (int r = 0; r < RowTiles; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float const(&tile)[4] = sums[r][2 * step + half];
      to[r][2 * half] = pack_bfloat16(tile[0], tile[1]);
      to[r][2 * half + 1] = pack_bfloat16(tile[2], tile[3]);
    }
  }
}

/// Writes the first `valid` of a warp's rows of sums, times a factor for each row, as bf16. They pass through the
/// warp's own part of shared memory, `RowTiles` * 16 rows at `staging`, so that neighbouring lanes write neighbouring
/// addresses.
template <int HeadDim, int RowTiles>
__device__ __forceinline__ void write_rows(Accumulator<RowTiles, HeadDim / 8> const& sums,
                                           float const (&factor)[RowTiles][2], unsigned char* staging, bfloat16* to,
                                           Index stride, int valid) {
  using Tile = SharedTile<HeadDim>;
  int const lane = static_cast<int>(threadIdx.x) % kWarpSize;
  __syncwarp();
#pragma unroll
  for (int r = 0; r < RowTiles; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int const row = 16 * r + 8 * half + lane / 4;
#pragma unroll
      for (int c = 0; c < HeadDim / 8; ++c) {
        float const low = sums[r][c][2 * half] * factor[r][half], high = sums[r][c][2 * half + 1] * factor[r][half];
        *reinterpret_cast<std::uint32_t*>(staging + Tile::offset(row, c) + 4 * (lane % 4)) = pack_bfloat16(low, high);
      }
    }
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < RowTiles * 16 * Tile::kChunks; i += kWarpSize) {
    int const row = (i + lane) / Tile::kChunks, chunk = (i + lane) % Tile::kChunks;
    if (row < valid) {
      *reinterpret_cast<uint4*>(to + row * stride + chunk * 8) =
          *reinterpret_cast<uint4 const*>(staging + Tile::offset(row, chunk));
    }
  }
}

/// A warp's rows among a tile of query rows, and what they see. Limits of rows behind the last are the last one's.
template <int RowTiles>
struct QueryRows {
  int first = 0;   ///< of the warp, within the tile
  int count = 0;   ///< of the warp; may be negative
  int lowest = 0;  ///< smallest and largest limit
  int highest = 0;
  int limit[RowTiles][2];  ///< of the lane's rows g and g + 8 of each matrix tile

  /// `limits` are those of the tile's `tile_rows` rows.
  __device__ QueryRows(Row const* limits, int tile_rows) {
    int const lane = static_cast<int>(threadIdx.x) % kWarpSize;
    first = static_cast<int>(threadIdx.x) / kWarpSize * 16 * RowTiles;
    count = min(tile_rows - first, 16 * RowTiles);
#pragma unroll
    for (int r = 0; r < RowTiles; ++r) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        limit[r][half] = limits[min(first + 16 * r + 8 * half + lane / 4, tile_rows - 1)];
      }
    }
    if (count <= 0) return;
    lowest = limits[first];
    highest = limits[first + count - 1];
  }
};

}  // namespace mor::cuda::sm80
