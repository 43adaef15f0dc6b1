// SPDX-License-Identifier: Apache-2.0
/// @file
/// Row-limited attention on tensor cores with mma.sync (Dao, "FlashAttention-2", 2023): a block has 128 query rows of
/// one head and walks the keys in tiles, while the next tile is being copied to shared memory.
///
/// Each warp keeps its rows' sums in registers and scores in the exponent of 2. Sums are taken against a reference that
/// is some score of the row seen so far, not always its largest: it is raised, and the sums rescaled, only when a score
/// outruns it by `kAttentionSlack` powers of two. What is written does not depend on the reference but by rounding.
#pragma once

#include "mor/backend/cuda/kernels/attention_arguments.cuh"
#include "mor/backend/cuda/kernels/attention_tile.cuh"
#include "mor/backend/cuda/kernels/mma.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/tuning/attention.hpp"

#include <limits>

namespace mor::cuda::sm80 {

/// Shared memory of `attention_forward`: a tile of queries, and twice a tile of keys and one of values.
template <int HeadDim>
struct ForwardLayout {
  using Sizes = tuning::AttentionSm80Forward<HeadDim>;
  static constexpr int kThreads = 32 * Sizes::warps;
  static constexpr int kQueryTile = 16 * Sizes::row_tiles * Sizes::warps;
  static constexpr std::uint32_t kTileBytes = 2 * HeadDim * Sizes::key_tile;
  static constexpr std::uint32_t kStageBytes = 2 * kTileBytes;
  static constexpr std::uint32_t kStages = 2 * HeadDim * kQueryTile;  ///< offset of the first stage
  static constexpr Index kBytes = kStages + 2 * kStageBytes;
};

/// One warp's rows: their queries, and what has been summed of their keys.
template <int HeadDim>
class ForwardWarp {
 public:
  using Layout = ForwardLayout<HeadDim>;
  using Sizes = typename Layout::Sizes;
  using Tile = SharedTile<HeadDim>;
  static constexpr int kRowTiles = Sizes::row_tiles;

  __device__ ForwardWarp(std::uint32_t queries, float scale)
      : queries_(queries), scale_(scale), rows_first_(Tile::rows_first()), columns_first_(Tile::columns_first()) {
    clear(sums_);
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        reference_[r][half] = kLowestScore;
        total_[r][half] = 0.0F;
      }
    }
    if constexpr (Sizes::queries_in_registers) {
#pragma unroll
      for (int d = 0; d < kDepth; ++d) load_left<HeadDim>(query_[d], queries_, rows_first_, d);
    }
  }

  /// A stage of keys and values that every row sees; `keys` is its address.
  __device__ void add_whole_tile(std::uint32_t keys) {
    std::uint32_t const values = keys + Layout::kTileBytes;
    Scores scores[2];
    score(scores[0], keys);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      Scores& now = scores[step % 2];
      Scores& next = scores[(step + 1) % 2];
      std::uint32_t const next_keys = keys + Tile::at_row((step + 1) * Sizes::step_keys);
      bool const ahead = Sizes::look_ahead && step + 1 < kSteps;
      raise_references(now);
      if (ahead) clear(next);
#pragma unroll
      for (int d = 0; d < kDepth; ++d) {
        if (ahead) score_depth(next, next_keys, d);
#pragma unroll
        for (int c = d * kStepTiles / kDepth; c < (d + 1) * kStepTiles / kDepth; ++c) weigh(now, c);
      }
      add_values(now, values + Tile::at_row(step * Sizes::step_keys));
      if (!Sizes::look_ahead && step + 1 < kSteps) score(next, next_keys);
    }
  }

  /// A stage of which the first key is key `first` of the list, and not every row sees all.
  __device__ void add_part_tile(std::uint32_t keys, int first, QueryRows<kRowTiles> const& rows) {
    std::uint32_t const values = keys + Layout::kTileBytes;
    int const steps = min(kSteps, (rows.highest - first + Sizes::step_keys - 1) / Sizes::step_keys);
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      Scores scores;
      score(scores, keys + Tile::at_row(step * Sizes::step_keys));
      hide(scores, first + step * Sizes::step_keys, rows);
      raise_references(scores);
#pragma unroll
      for (int c = 0; c < kStepTiles; ++c) weigh(scores, c);
      add_values(scores, values + Tile::at_row(step * Sizes::step_keys));
    }
  }

  /// `lse` and `out` are at the warp's first row, and its head.
  __device__ void write(int count, unsigned char* staging, View<float> lse, View<bfloat16> out) {
    int const lane = static_cast<int>(threadIdx.x) % kWarpSize;
    float inverse[kRowTiles][2];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float total = total_[r][half];
        total += __shfl_xor_sync(kAllLanes, total, 1);
        total += __shfl_xor_sync(kAllLanes, total, 2);
        bool const seen = total > 0.0F;
        inverse[r][half] = seen ? 1.0F / total : 0.0F;
        int const row = 16 * r + 8 * half + lane / 4;
        if (lane % 4 == 0 && row < count) {
          lse(row, 0) = seen ? reference_[r][half] * kLn2 + logf(total) : -std::numeric_limits<float>::infinity();
        }
      }
    }
    write_rows<HeadDim, kRowTiles>(sums_, inverse, staging, out.data, out.stride, count);
  }

 private:
  static constexpr int kDepth = HeadDim / 16;
  static constexpr int kStepTiles = Sizes::step_keys / 8;
  static constexpr int kSteps = Sizes::key_tile / Sizes::step_keys;
  using Scores = Accumulator<kRowTiles, kStepTiles>;

  __device__ void score_depth(Scores& scores, std::uint32_t keys, int d) {
    if constexpr (Sizes::queries_in_registers) {
      multiply_rows<HeadDim>(scores, query_[d], keys, columns_first_, d);
    } else {
      LeftFragment<kRowTiles> query;
      load_left<HeadDim>(query, queries_, rows_first_, d);
      multiply_rows<HeadDim>(scores, query, keys, columns_first_, d);
    }
  }
  __device__ void score(Scores& scores, std::uint32_t keys) {
    clear(scores);
#pragma unroll
    for (int d = 0; d < kDepth; ++d) score_depth(scores, keys, d);
  }

  /// Keys behind a row's limit score -infinity; `first` is the first key of the step.
  __device__ void hide(Scores& scores, int first, QueryRows<kRowTiles> const& rows) {
    int const column = 2 * (static_cast<int>(threadIdx.x) % 4);
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        int const seen = rows.limit[r][i / 2] - first - column - i % 2;
#pragma unroll
        for (int c = 0; c < kStepTiles; ++c) {
          if (8 * c >= seen) scores[r][c][i] = -std::numeric_limits<float>::infinity();
        }
      }
    }
  }

  /// Raises the rows' references where one has been outrun. Which rows a warp has, and nothing else, decides when.
  __device__ void raise_references(Scores const& scores) {
    float highest[kRowTiles][2];
    bool outrun = false;
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float top = fmaxf(scores[r][0][2 * half], scores[r][0][2 * half + 1]);
#pragma unroll
        for (int c = 1; c < kStepTiles; ++c)
          top = fmaxf(top, fmaxf(scores[r][c][2 * half], scores[r][c][2 * half + 1]));
        highest[r][half] = top * scale_;
        outrun = outrun || highest[r][half] > reference_[r][half] + tuning::kAttentionSlack;
      }
    }
    if (__any_sync(kAllLanes, outrun)) rescale(highest);
  }
  __device__ void rescale(float const (&highest)[kRowTiles][2]) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float top = fmaxf(reference_[r][half], highest[r][half]);
        top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 1));
        top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2));
        float const factor = exp2_fast(reference_[r][half] - top);
        reference_[r][half] = top;
        total_[r][half] *= factor;
#pragma unroll
        for (int c = 0; c < HeadDim / 8; ++c) {
          sums_[r][c][2 * half] *= factor;
          sums_[r][c][2 * half + 1] *= factor;
        }
      }
    }
  }

  /// Turns the scores of column tile c into weights, and adds them to the totals.
  __device__ void weigh(Scores& scores, int c) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float const weight = exp2_fast(fmaf(scores[r][c][i], scale_, -reference_[r][i / 2]));
        scores[r][c][i] = weight;
        total_[r][i / 2] += weight;
      }
    }
  }

  __device__ void add_values(Scores const& weights, std::uint32_t values) {
#pragma unroll
    for (int step = 0; step < kStepTiles / 2; ++step) {
      LeftFragment<kRowTiles> left;
      round_left(left, weights, step);
      multiply_columns<HeadDim>(sums_, left, values + Tile::at_row(16 * step), rows_first_);
    }
  }

  std::uint32_t queries_;  ///< address of the warp's first row
  float scale_;            ///< of scores in powers of two
  std::uint32_t rows_first_, columns_first_;
  LeftFragment<kRowTiles> query_[Sizes::queries_in_registers ? kDepth : 1];
  Accumulator<kRowTiles, HeadDim / 8> sums_;
  float reference_[kRowTiles][2], total_[kRowTiles][2];
};

/// Blocks as `AttentionBlock` says; late tiles of queries, which see the most keys, come first.
template <int HeadDim>
__global__ void __launch_bounds__(ForwardLayout<HeadDim>::kThreads, tuning::kAttentionBlocksPerMultiprocessor)
    attention_forward(AttentionArguments<bfloat16> const arguments, View<bfloat16> const out, View<float> const lse) {
  using Layout = ForwardLayout<HeadDim>;
  using Tile = SharedTile<HeadDim>;
  using Warp = ForwardWarp<HeadDim>;
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
  if (num_keys > 0) copy_keys(0, 0);
  QueryRows<Warp::kRowTiles> const rows(arguments.limits + begin, tile_rows);
  wait_for_copies();
  __syncthreads();

  Warp warp(shared + Tile::at_row(rows.first), arguments.scale * kLog2E);
  for (int first = 0, stage = 0; first < num_keys; first += kKeyTile, stage ^= 1) {
    if (first + kKeyTile < num_keys) copy_keys(first + kKeyTile, stage ^ 1);
    std::uint32_t const now = shared + Layout::kStages + static_cast<std::uint32_t>(stage) * Layout::kStageBytes;
    if (first + kKeyTile <= rows.lowest) {
      warp.add_whole_tile(now);
    } else {
      warp.add_part_tile(now, first, rows);
    }
    wait_for_copies();
    __syncthreads();  // the next tile is there, and this one may be overwritten
  }
  Index const first_row = begin + rows.first;
  warp.write(rows.count, attention_shared + Tile::at_row(rows.first),
             {lse.row(first_row) + block.head, rows.count, 1, lse.stride},
             {out.row(first_row) + block.head * HeadDim, rows.count, HeadDim, out.stride});
}

}  // namespace mor::cuda::sm80
