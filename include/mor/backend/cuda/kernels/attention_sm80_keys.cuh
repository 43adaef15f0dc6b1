// SPDX-License-Identifier: Apache-2.0
/// @file
/// Gradients of keys and values on tensor cores with mma.sync; see attention_sm80_backward.cuh.
///
/// Scores are computed transposed, [keys, queries], so that weights leave the tensor cores as the left operand that d_v
/// and d_k take them for, without a way through shared memory.
#pragma once

#include "mor/backend/cuda/kernels/attention_arguments.cuh"
#include "mor/backend/cuda/kernels/attention_sm80_backward.cuh"
#include "mor/backend/cuda/kernels/attention_tile.cuh"
#include "mor/backend/cuda/kernels/mma.cuh"
#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/tuning/attention.hpp"

namespace mor::cuda::sm80 {

/// Shared memory of `attention_keys`: tiles of keys and values, and twice a tile of q, one of d_out, and the rows'
/// statistics and limits.
template <int HeadDim>
struct KeyLayout {
  using Sizes = tuning::AttentionSm80KeyGradient<HeadDim>;
  static constexpr int kThreads = 32 * Sizes::warps;
  static constexpr int kKeyTile = 16 * Sizes::row_tiles * Sizes::warps;
  static constexpr std::uint32_t kKeyBytes = 2 * HeadDim * kKeyTile;  ///< of keys, and of values
  static constexpr std::uint32_t kStages = 2 * kKeyBytes;
  // offsets within a stage
  static constexpr std::uint32_t kGradients = 2 * HeadDim * Sizes::query_tile;
  static constexpr std::uint32_t kStatistics = 2 * kGradients;
  static constexpr std::uint32_t kLimits = kStatistics + 8 * Sizes::query_tile;
  static constexpr std::uint32_t kStageBytes = kLimits + 4 * Sizes::query_tile;
  static constexpr Index kBytes = kStages + 2 * kStageBytes;
  static_assert(Sizes::query_tile <= kThreads && kStageBytes % 128 == 0);
};

/// One warp's keys and their gradients.
template <int HeadDim>
class KeyWarp {
 public:
  using Layout = KeyLayout<HeadDim>;
  using Sizes = typename Layout::Sizes;
  using Tile = SharedTile<HeadDim>;
  static constexpr int kRowTiles = Sizes::row_tiles;

  /// `keys` is the address of the warp's first row, which is key `first_key` of the list.
  __device__ KeyWarp(std::uint32_t keys, int first_key, float scale)
      : keys_(keys),
        first_key_(first_key),
        scale_(scale),
        rows_first_(Tile::rows_first()),
        columns_first_(Tile::columns_first()) {
    clear(d_k_);
    clear(d_v_);
  }

  /// The `count` query rows of a stage; `shared` is its address.
  __device__ void add_tile(unsigned char const* stage, std::uint32_t shared, int count) {
    auto const* const limits = reinterpret_cast<int const*>(stage + Layout::kLimits);
    if (limits[count - 1] <= first_key_) return;  // the last row sees the most
    if (limits[0] >= first_key_ + 16 * kRowTiles) {
#pragma unroll
      for (int first = 0; first < Sizes::query_tile; first += Sizes::step_queries)
        add_step<false>(stage, shared, first);
      return;
    }
#pragma unroll 1
    for (int first = 0; first < count; first += Sizes::step_queries) {
      if (limits[min(first + Sizes::step_queries, count) - 1] > first_key_) add_step<true>(stage, shared, first);
    }
  }

  /// Adds the sums to the rows of keys that exist. `d_k` and `d_v` are at the first key of the list, and the head.
  __device__ void write(int num_keys, float scale, View<bfloat16> d_k, View<bfloat16> d_v) const {
    int const lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        int const key = first_key_ + 16 * r + 8 * half + lane / 4;
        if (key >= num_keys) continue;
#pragma unroll
        for (int c = 0; c < HeadDim / 8; ++c) {
          int const column = 8 * c + 2 * (lane % 4);
          add_pair(d_k.row(key) + column, scale * d_k_[r][c][2 * half], scale * d_k_[r][c][2 * half + 1]);
          add_pair(d_v.row(key) + column, d_v_[r][c][2 * half], d_v_[r][c][2 * half + 1]);
        }
      }
    }
  }

 private:
  static constexpr int kDepth = HeadDim / 16;
  static constexpr int kStepTiles = Sizes::step_queries / 8;
  using Scores = Accumulator<kRowTiles, kStepTiles>;

  __device__ static void add_pair(bfloat16* to, float first, float second) {
    auto const before = load_lanes<2>(static_cast<bfloat16 const*>(to));
    store_lanes<2>(to, {before.value[0] + first, before.value[1] + second});
  }

  template <bool Masked>
  __device__ void add_step(unsigned char const* stage, std::uint32_t shared, int first) {
    std::uint32_t const queries = shared + Tile::at_row(first), d_out = queries + Layout::kGradients;
    auto const* const statistics = reinterpret_cast<float4 const*>(stage + Layout::kStatistics);
    int const pair = first / 2 + static_cast<int>(threadIdx.x) % 4;  // of query rows: the lane's in column tile 0
    Scores scores, products;
    LeftFragment<kRowTiles> left;
    clear(scores);
#pragma unroll
    for (int d = 0; d < kDepth; ++d) {
      load_left<HeadDim>(left, keys_, rows_first_, d);
      multiply_rows<HeadDim>(scores, left, queries, columns_first_, d);
    }
    clear(products);
#pragma unroll
    for (int d = 0; d < kDepth; ++d) {
      load_left<HeadDim>(left, keys_ + Layout::kKeyBytes, rows_first_, d);
      multiply_rows<HeadDim>(products, left, d_out, columns_first_, d);
#pragma unroll
      for (int c = d * kStepTiles / kDepth; c < (d + 1) * kStepTiles / kDepth; ++c) {
        weigh<Masked>(scores, c, statistics[pair + 4 * c], stage, pair);
      }
    }
#pragma unroll
    for (int step = 0; step < kStepTiles / 2; ++step) {
      round_left(left, scores, step);
      multiply_columns<HeadDim>(d_v_, left, d_out + Tile::at_row(16 * step), rows_first_);
#pragma unroll
      for (int c = 2 * step; c < 2 * step + 2; ++c) {
        float4 const rows = statistics[pair + 4 * c];
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
          for (int i = 0; i < 4; ++i) scores[r][c][i] *= products[r][c][i] - (i % 2 == 0 ? rows.y : rows.w);
        }
      }
      round_left(left, scores, step);
      multiply_columns<HeadDim>(d_k_, left, queries + Tile::at_row(16 * step), rows_first_);
    }
  }

  /// Turns the scores of column tile c into weights. `rows` are the statistics of the lane's two query rows.
  template <bool Masked>
  __device__ void weigh(Scores& scores, int c, float4 rows, unsigned char const* stage, int pair) {
    int2 const limits = Masked ? reinterpret_cast<int2 const*>(stage + Layout::kLimits)[pair + 4 * c] : int2{0, 0};
    int const key = first_key_ + static_cast<int>(threadIdx.x) % kWarpSize / 4;
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float const weight = exp2_fast(fmaf(scores[r][c][i], scale_, -(i % 2 == 0 ? rows.x : rows.z)));
        bool const seen = !Masked || key + 16 * r + 8 * (i / 2) < (i % 2 == 0 ? limits.x : limits.y);
        scores[r][c][i] = seen ? weight : 0.0F;
      }
    }
  }

  std::uint32_t keys_;  ///< address of the warp's first row
  int first_key_;
  float scale_;  ///< of scores in powers of two
  std::uint32_t rows_first_, columns_first_;
  Accumulator<kRowTiles, HeadDim / 8> d_k_, d_v_;
};

/// Adds to d_k and d_v. Blocks as `AttentionBlock` says, with key/value heads; early tiles of keys, which the most rows
/// see, come first.
template <int HeadDim>
__global__ void __launch_bounds__(KeyLayout<HeadDim>::kThreads, tuning::kAttentionBlocksPerMultiprocessor)
    attention_keys(AttentionArguments<bfloat16> const arguments, View<bfloat16 const> const d_out,
                   RowStatistics const* const statistics, View<bfloat16> const d_k, View<bfloat16> const d_v) {
  using Layout = KeyLayout<HeadDim>;
  using Tile = SharedTile<HeadDim>;
  constexpr int kThreads = Layout::kThreads, kQueryTile = Layout::Sizes::query_tile;
  AttentionBlock const block = attention_block(arguments.num_kv_heads, arguments.num_sequences);
  int const begin = arguments.query_offsets[block.sequence], end = arguments.query_offsets[block.sequence + 1];
  int const first_key = block.tile * Layout::kKeyTile;
  if (begin == end) return;
  int const num_keys = arguments.limits[end - 1];
  if (first_key >= num_keys) return;
  int const key_begin = arguments.key_begin[block.sequence], kv_column = block.head * HeadDim;
  std::uint32_t const shared = shared_address(attention_shared);
  Tile::template copy<Layout::kKeyTile, kThreads>(shared, arguments.k.row(key_begin + Index{first_key}) + kv_column,
                                                  arguments.k.stride, num_keys - first_key);
  Tile::template copy<Layout::kKeyTile, kThreads>(shared + Layout::kKeyBytes,
                                                  arguments.v.row(key_begin + Index{first_key}) + kv_column,
                                                  arguments.v.stride, num_keys - first_key);
  int const first_query = first_seeing(arguments.limits, begin, end, first_key);

  auto const copy_queries = [&](int head, int first, int stage) {
    std::uint32_t const to = shared + Layout::kStages + static_cast<std::uint32_t>(stage) * Layout::kStageBytes;
    int const count = end - first, thread = static_cast<int>(threadIdx.x);
    Tile::template copy<kQueryTile, kThreads>(to, arguments.q.row(first) + head * HeadDim, arguments.q.stride, count);
    Tile::template copy<kQueryTile, kThreads>(to + Layout::kGradients, d_out.row(first) + head * HeadDim, d_out.stride,
                                              count);
    if (thread < kQueryTile) {
      copy_async<8>(to + Layout::kStatistics + 8 * threadIdx.x, statistics + head * arguments.q.rows + first + thread,
                    thread < count);
      copy_async<4>(to + Layout::kLimits + 4 * threadIdx.x, arguments.limits + first + thread, thread < count);
    }
  };
  int head = block.head * arguments.group, first = first_query;
  int const end_head = head + arguments.group;
  copy_queries(head, first, 0);
  wait_for_copies();
  __syncthreads();

  int const warp_row = static_cast<int>(threadIdx.x) / kWarpSize * 16 * Layout::Sizes::row_tiles;
  KeyWarp<HeadDim> warp(shared + Tile::at_row(warp_row), first_key + warp_row, arguments.scale * kLog2E);
  for (int stage = 0; head < end_head; stage ^= 1) {
    bool const head_ends = first + kQueryTile >= end;
    int const next_head = head_ends ? head + 1 : head, next = head_ends ? first_query : first + kQueryTile;
    if (next_head < end_head) copy_queries(next_head, next, stage ^ 1);
    std::uint32_t const now = Layout::kStages + static_cast<std::uint32_t>(stage) * Layout::kStageBytes;
    warp.add_tile(attention_shared + now, shared + now, min(end - first, kQueryTile));
    wait_for_copies();
    __syncthreads();  // the next rows are there, and these may be overwritten
    head = next_head;
    first = next;
  }
  warp.write(num_keys, arguments.scale, {d_k.row(key_begin) + kv_column, num_keys, HeadDim, d_k.stride},
             {d_v.row(key_begin) + kv_column, num_keys, HeadDim, d_v.stride});
}

}  // namespace mor::cuda::sm80
