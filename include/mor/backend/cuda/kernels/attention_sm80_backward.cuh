// SPDX-License-Identifier: Apache-2.0
/// @file
/// Gradients of row-limited attention on tensor cores with mma.sync.
///
/// Two kernels compute the weights anew from the scores and lse: one walks the keys for a tile of query rows and has
/// their d_q in registers, the other walks the query rows, and the heads of a group, for a tile of keys and has their
/// d_k and d_v in registers. That is seven products where sharing would take five, but nothing is added in device
/// memory, so that every sum has one order and is rounded once. Formulas as in attention_general_backward.cuh.
#pragma once

#include "mor/backend/cuda/kernels/attention_arguments.cuh"
#include "mor/backend/cuda/kernels/attention_tile.cuh"
#include "mor/backend/cuda/kernels/mma.cuh"
#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/tuning/attention.hpp"

#include <limits>

namespace mor::cuda::sm80 {

/// What the kernels need to know of a query row and head, stored head by head: x is lse in powers of two, +infinity for
/// a row that sees nothing (so that its weights are 0), and y is delta = d_out.out.
using RowStatistics = float2;

template <int HeadDim>
__global__ void __launch_bounds__(256)
    row_statistics(View<bfloat16 const> const out, View<bfloat16 const> const d_out, View<float const> const lse,
                   Index const rows, int const num_heads, RowStatistics* const statistics) {
  constexpr int kLanes = HeadDim / 8;
  Index const pair = (Index{blockIdx.x} * blockDim.x + threadIdx.x) / kLanes;
  int const lane = static_cast<int>(threadIdx.x) % kLanes;
  Index const row = pair / num_heads, head = pair % num_heads;
  bool const exists = row < rows;
  float delta = 0.0F;
  if (exists) {
    auto const a = load_lanes<8>(out.row(row) + head * HeadDim + lane * 8);
    auto const b = load_lanes<8>(d_out.row(row) + head * HeadDim + lane * 8);
#pragma unroll
    for (int i = 0; i < 8; ++i) delta += a.value[i] * b.value[i];
  }
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) delta += __shfl_xor_sync(kAllLanes, delta, distance);
  if (exists && lane == 0) {
    float const value = lse(row, head);
    bool const seen = value > -std::numeric_limits<float>::infinity();
    statistics[head * rows + row] = {seen ? value * kLog2E : std::numeric_limits<float>::infinity(), delta};
  }
}

/// Shared memory of `attention_queries`: tiles of q and d_out, and twice a tile of keys and one of values.
template <int HeadDim>
struct QueryLayout {
  using Sizes = tuning::AttentionSm80QueryGradient<HeadDim>;
  static constexpr int kThreads = 32 * Sizes::warps;
  static constexpr int kQueryTile = 16 * Sizes::row_tiles * Sizes::warps;
  static constexpr std::uint32_t kTileBytes = 2 * HeadDim * Sizes::key_tile;
  static constexpr std::uint32_t kStageBytes = 2 * kTileBytes;
  static constexpr std::uint32_t kRowBytes = 2 * HeadDim * kQueryTile;  ///< of q, and of d_out
  static constexpr std::uint32_t kStages = 2 * kRowBytes;
  static constexpr Index kBytes = kStages + 2 * kStageBytes;
};

/// One warp's query rows and their d_q.
template <int HeadDim>
class QueryWarp {
 public:
  using Layout = QueryLayout<HeadDim>;
  using Sizes = typename Layout::Sizes;
  using Tile = SharedTile<HeadDim>;
  static constexpr int kRowTiles = Sizes::row_tiles;

  /// `queries` is the address of the warp's first row, and `statistics` is there too; there are `count` rows.
  __device__ QueryWarp(std::uint32_t queries, float scale, RowStatistics const* statistics, int count)
      : queries_(queries), scale_(scale), rows_first_(Tile::rows_first()), columns_first_(Tile::columns_first()) {
    clear(sums_);
    int const lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        int const row = 16 * r + 8 * half + lane / 4;
        RowStatistics const of_row =
            row < count ? statistics[row] : RowStatistics{std::numeric_limits<float>::infinity(), 0.0F};
        lse_[r][half] = of_row.x;
        delta_[r][half] = of_row.y;
      }
    }
    if constexpr (Sizes::rows_in_registers) {
#pragma unroll
      for (int d = 0; d < kDepth; ++d) {
        load_left<HeadDim>(query_rows_[d], queries_, rows_first_, d);
        load_left<HeadDim>(d_out_rows_[d], queries_ + Layout::kRowBytes, rows_first_, d);
      }
    }
  }

  /// A stage of keys and values of which the first is key `first` of the list.
  __device__ void add_tile(std::uint32_t keys, int first, QueryRows<kRowTiles> const& rows) {
    if (first + Sizes::key_tile <= rows.lowest) {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        add_step<false>(keys + Tile::at_row(step * Sizes::step_keys), first + step * Sizes::step_keys, rows);
      }
      return;
    }
    int const steps = min(kSteps, (rows.highest - first + Sizes::step_keys - 1) / Sizes::step_keys);
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      add_step<true>(keys + Tile::at_row(step * Sizes::step_keys), first + step * Sizes::step_keys, rows);
    }
  }

  /// `d_q` is at the warp's first row, and its head.
  __device__ void write(int count, float scale, unsigned char* staging, View<bfloat16> d_q) {
    float factor[kRowTiles][2];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) factor[r][0] = factor[r][1] = scale;
    write_rows<HeadDim, kRowTiles>(sums_, factor, staging, d_q.data, d_q.stride, count);
  }

 private:
  static constexpr int kDepth = HeadDim / 16;
  static constexpr int kStepTiles = Sizes::step_keys / 8;
  static constexpr int kSteps = Sizes::key_tile / Sizes::step_keys;
  using Scores = Accumulator<kRowTiles, kStepTiles>;
  using Rows = LeftFragment<kRowTiles>[Sizes::rows_in_registers ? kDepth : 1];

  __device__ void multiply(Scores& products, Rows const& rows, std::uint32_t left, std::uint32_t right, int d) {
    if constexpr (Sizes::rows_in_registers) {
      multiply_rows<HeadDim>(products, rows[d], right, columns_first_, d);
    } else {
      LeftFragment<kRowTiles> fragment;
      load_left<HeadDim>(fragment, left, rows_first_, d);
      multiply_rows<HeadDim>(products, fragment, right, columns_first_, d);
    }
  }

  template <bool Masked>
  __device__ void add_step(std::uint32_t keys, int first, QueryRows<kRowTiles> const& rows) {
    Scores scores, products;
    clear(scores);
#pragma unroll
    for (int d = 0; d < kDepth; ++d) multiply(scores, query_rows_, queries_, keys, d);
    clear(products);
#pragma unroll
    for (int d = 0; d < kDepth; ++d) {
      multiply(products, d_out_rows_, queries_ + Layout::kRowBytes, keys + Layout::kTileBytes, d);
#pragma unroll
      for (int c = d * kStepTiles / kDepth; c < (d + 1) * kStepTiles / kDepth; ++c)
        weigh<Masked>(scores, c, first, rows);
    }
#pragma unroll
    for (int step = 0; step < kStepTiles / 2; ++step) {
      LeftFragment<kRowTiles> left;
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          float& weight = scores[r][2 * step + i / 4][i % 4];
          weight *= products[r][2 * step + i / 4][i % 4] - delta_[r][i % 4 / 2];
        }
      }
      round_left(left, scores, step);
      multiply_columns<HeadDim>(sums_, left, keys + Tile::at_row(16 * step), rows_first_);
    }
  }

  /// Turns the scores of column tile c into weights.
  template <bool Masked>
  __device__ void weigh(Scores& scores, int c, int first, QueryRows<kRowTiles> const& rows) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float const weight = exp2_fast(fmaf(scores[r][c][i], scale_, -lse_[r][i / 2]));
        int const key = first + 8 * c + 2 * (static_cast<int>(threadIdx.x) % 4) + i % 2;
        scores[r][c][i] = !Masked || key < rows.limit[r][i / 2] ? weight : 0.0F;
      }
    }
  }

  std::uint32_t queries_;  ///< address of the warp's first row
  float scale_;            ///< of scores in powers of two
  std::uint32_t rows_first_, columns_first_;
  Rows query_rows_, d_out_rows_;
  Accumulator<kRowTiles, HeadDim / 8> sums_;
  float lse_[kRowTiles][2], delta_[kRowTiles][2];
};

/// d_q. Blocks as in `attention_forward`.
template <int HeadDim>
__global__ void __launch_bounds__(QueryLayout<HeadDim>::kThreads, tuning::kAttentionBlocksPerMultiprocessor)
    attention_queries(AttentionArguments<bfloat16> const arguments, View<bfloat16 const> const d_out,
                      RowStatistics const* const statistics, View<bfloat16> const d_q) {
  using Layout = QueryLayout<HeadDim>;
  using Tile = SharedTile<HeadDim>;
  using Warp = QueryWarp<HeadDim>;
  constexpr int kKeyTile = Layout::Sizes::key_tile, kThreads = Layout::kThreads;
  AttentionBlock const block = attention_block(arguments.num_heads, arguments.num_sequences);
  int const tile = attention_tiles(arguments.num_heads, arguments.num_sequences) - 1 - block.tile;
  int const begin = arguments.query_offsets[block.sequence] + tile * Layout::kQueryTile;
  int const tile_rows = min(arguments.query_offsets[block.sequence + 1] - begin, Layout::kQueryTile);
  if (tile_rows <= 0) return;
  int const num_keys = arguments.limits[begin + tile_rows - 1];
  int const key_begin = arguments.key_begin[block.sequence], kv_column = block.head / arguments.group * HeadDim;
  bfloat16 const* const keys = arguments.k.row(key_begin) + kv_column;
  bfloat16 const* const values = arguments.v.row(key_begin) + kv_column;
  std::uint32_t const shared = shared_address(attention_shared);

  auto const copy_keys = [&](int first, int stage) {
    std::uint32_t const to = shared + Layout::kStages + static_cast<std::uint32_t>(stage) * Layout::kStageBytes;
    Tile::template copy<kKeyTile, kThreads>(to, keys + first * arguments.k.stride, arguments.k.stride,
                                            num_keys - first);
    Tile::template copy<kKeyTile, kThreads>(to + Layout::kTileBytes, values + first * arguments.v.stride,
                                            arguments.v.stride, num_keys - first);
  };
  Tile::template copy<Layout::kQueryTile, kThreads>(shared, arguments.q.row(begin) + block.head * HeadDim,
                                                    arguments.q.stride, tile_rows);
  Tile::template copy<Layout::kQueryTile, kThreads>(shared + Layout::kRowBytes, d_out.row(begin) + block.head * HeadDim,
                                                    d_out.stride, tile_rows);
  if (num_keys > 0) copy_keys(0, 0);
  QueryRows<Warp::kRowTiles> const rows(arguments.limits + begin, tile_rows);
  wait_for_copies();
  __syncthreads();

  Warp warp(shared + Tile::at_row(rows.first), arguments.scale * kLog2E,
            statistics + block.head * arguments.q.rows + begin + rows.first, rows.count);
  for (int first = 0, stage = 0; first < num_keys; first += kKeyTile, stage ^= 1) {
    if (first + kKeyTile < num_keys) copy_keys(first + kKeyTile, stage ^ 1);
    std::uint32_t const now = shared + Layout::kStages + static_cast<std::uint32_t>(stage) * Layout::kStageBytes;
    warp.add_tile(now, first, rows);
    wait_for_copies();
    __syncthreads();  // the next tile is there, and this one may be overwritten
  }
  Index const first_row = begin + rows.first;
  warp.write(rows.count, arguments.scale, attention_shared + Tile::at_row(rows.first),
             {d_q.row(first_row) + block.head * HeadDim, rows.count, HeadDim, d_q.stride});
}

}  // namespace mor::cuda::sm80
