// SPDX-License-Identifier: Apache-2.0
/// @file
/// Decoding from pages on Hopper: single query rows against long key lists, in bf16 with head dimension 64 or 128. The bytes
/// of the keys and values are the floor, so everything serves to have many of them under way at any time.
///
/// A list is cut into parts of a fixed length, and a part into a slice for each warp of a block. A warp fetches its slice by
/// cp.async into shared memory of its own, computes scores and sums of all query heads of the key/value head by mma.sync
/// (keys, then columns, along the side of 16; heads along the side of 8), and fetches the keys of its next slice while it
/// works on the values of this one. The blocks of a cluster take the parts in turns: after each round they send one another
/// what they have found, and each joins a share of the columns.
///
/// What a row gets depends on its own list alone: slices are joined within their part and parts one after another in the
/// order of the list, by the same instructions however many blocks the cluster has.
#pragma once

#include "mor/backend/cuda/kernels/attention_decode_join.cuh"
#include "mor/backend/cuda/kernels/attention_paged.cuh"
#include "mor/backend/cuda/kernels/attention_tile.cuh"
#include "mor/backend/cuda/kernels/cluster.cuh"
#include "mor/backend/cuda/kernels/overlap.cuh"
#include "mor/backend/cuda/kernels/mma.cuh"
#include "mor/backend/cuda/kernels/tma.cuh"
#include "mor/backend/cuda/tuning/architecture.hpp"
#include "mor/backend/cuda/tuning/attention.hpp"

#include <cstdint>
#include <limits>

namespace mor::cuda::sm90 {

/// A warp's slice of a part. What is read from memory is kept as it comes, so that nothing waits for it before it is used.
struct DecodeSlice {
  Row page = 0;
  int first = 0;  ///< key within the page
  int seen = 0;   ///< keys that the row sees; not positive for a slice behind the limit
};

/// Reads at once, where the compiler would move the load behind a branch.
__device__ __forceinline__ Row read_now(Row const* from) {
  Row value;
  asm volatile("ld.global.s32 %0, [%1];" : "=r"(value) : "l"(__cvta_generic_to_global(from)) : "memory");
  return value;
}

/// Starts the copy of a slice's keys or values by a warp; keys that are not seen become zeros.
template <int HeadDim, int Keys>
__device__ __forceinline__ void fetch_slice(std::uint32_t to, View<bfloat16 const> from, Index column, int page_size,
                                            DecodeSlice const& slice) {
  using Tile = sm80::SharedTile<HeadDim>;
  constexpr int kRowsAtOnce = kWarpSize / Tile::kChunks;
  int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  if constexpr (HeadDim > 64) asm volatile("" : "+r"(lane));  // see `hand_over`
  int const chunk = lane % Tile::kChunks, row = lane / Tile::kChunks;
  bfloat16 const* source = from.row(Index{slice.page} * page_size + slice.first + row) + column + chunk * 8;
#pragma unroll
  for (int i = 0; i < Keys; i += kRowsAtOnce) {
    sm80::copy_async<16>(to + Tile::offset(row + i, chunk), source, row + i < slice.seen);
    source += kRowsAtOnce * from.stride;
  }
}

/// Blocks of the `blocks` of a cluster that work on a list of `parts` parts: a power of two, so that it divides the columns.
__device__ __forceinline__ int blocks_for(int parts, int blocks) {
  return parts >= blocks ? blocks : parts <= 1 ? 1 : 1 << (32 - __clz(parts - 1));
}

/// Waits until all but the latest group of copies of every lane have arrived.
__device__ __forceinline__ void wait_for_slice() {
  sm80::wait_for_copy_groups<1>();
  __syncwarp();
}

/// Transposes an 8 x 8 matrix of which lane l holds the pair (l / 4, 2 (l % 4)), (l / 4, 2 (l % 4) + 1).
__device__ __forceinline__ std::uint32_t transposed(std::uint32_t pair) {
  std::uint32_t result;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(pair));
  return result;
}

/// A warp's queries, and its work on a slice: `score`, `weigh`, `add_values`, `hand_over`, in this order. Scores are held as
/// [keys, heads] and sums as [columns, heads]; fragments are named as in mma.cuh.
template <int HeadDim, int HeadTiles>
class DecodeWarp {
 public:
  using Layout = DecodeLayout<HeadDim, HeadTiles>;
  using Tile = sm80::SharedTile<HeadDim>;

  /// `q` is the row at the first of `heads` heads.
  __device__ DecodeWarp(bfloat16 const* q, int heads, float scale)
      : scale_(scale), rows_first_(Tile::rows_first()), columns_first_(Tile::columns_first()) {
#pragma unroll
    for (int n = 0; n < HeadTiles; ++n) {
      int const head = 8 * n + lane() / 4;
      bfloat16 const* const from = q + head * HeadDim + 2 * (lane() % 4);
#pragma unroll
      for (int d = 0; d < kDepth; ++d) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          query_[n][d][half] = 0;
          if (head < heads) query_[n][d][half] = *reinterpret_cast<std::uint32_t const*>(from + 16 * d + 8 * half);
        }
      }
    }
  }

  __device__ void score(std::uint32_t keys) {
    sm80::clear(scores_);
#pragma unroll
    for (int m = 0; m < kKeyTiles; ++m) {
#pragma unroll
      for (int d = 0; d < kDepth; ++d) {
        std::uint32_t left[4];
        sm80::load_matrices(left, keys + Tile::at_row(16 * m) + Tile::at_column(rows_first_, d));
#pragma unroll
        for (int n = 0; n < HeadTiles; ++n) sm80::multiply_add(scores_[m][n], left, query_[n][d][0], query_[n][d][1]);
      }
    }
  }

  /// Turns the scores of the first `seen` keys into weights, and those of the others into zeros.
  __device__ void weigh(int seen) {
    if (seen < Layout::kSliceKeys) hide(seen);
#pragma unroll
    for (int n = 0; n < HeadTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float top = -std::numeric_limits<float>::infinity();
#pragma unroll
        for (int m = 0; m < kKeyTiles; ++m) top = fmaxf(top, fmaxf(scores_[m][n][i], scores_[m][n][2 + i]));
#pragma unroll
        for (int distance = 4; distance < kWarpSize; distance *= 2) {
          top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, distance));
        }
        top = fmaxf(top * scale_, kLowestScore);
        float total = 0.0F;
#pragma unroll
        for (int m = 0; m < kKeyTiles; ++m) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            float& weight = scores_[m][n][2 * half + i];
            weight = exp2_fast(fmaf(weight, scale_, -top));
            total += weight;
          }
        }
#pragma unroll
        for (int distance = 4; distance < kWarpSize; distance *= 2) {
          total += __shfl_xor_sync(kAllLanes, total, distance);
        }
        maximum_[n][i] = top;
        total_[n][i] = total;
      }
    }
  }

  __device__ void add_values(std::uint32_t values) {
    sm80::clear(sums_);
#pragma unroll
    for (int m = 0; m < kKeyTiles; ++m) {
      std::uint32_t right[HeadTiles][2];
#pragma unroll
      for (int n = 0; n < HeadTiles; ++n) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          right[n][half] = transposed(pack_bfloat16(scores_[m][n][2 * half], scores_[m][n][2 * half + 1]));
        }
      }
#pragma unroll
      for (int c = 0; c < kDepth; ++c) {
        std::uint32_t left[4];
        sm80::load_matrices_transposed(left, values + Tile::at_row(16 * m) + Tile::at_column(columns_first_, c));
#pragma unroll
        for (int n = 0; n < HeadTiles; ++n) sm80::multiply_add(sums_[c][n], left, right[n][0], right[n][1]);
      }
    }
  }

  /// Leaves the result of slice `slice` of the round for the join, in this block or, where several share the columns, in
  /// those that they belong to.
  __device__ void hand_over(DecodeRound<HeadDim, HeadTiles> const& round, int slice) const {
    int row = lane() / 4;
    asm volatile("" : "+r"(row));  // else every address below would be held in registers from round to round
    int const share = round.share(), shift = __ffs(share) - 1;
#pragma unroll
    for (int n = 0; n < HeadTiles; ++n) {
      int const pair = 4 * n + lane() % 4;
      if (pair >= round.pairs) continue;
      std::uint32_t const sums = round.sums_of(slice) + static_cast<std::uint32_t>(pair * Layout::kSumsBytes);
      std::uint32_t const state = round.state_of(slice) + static_cast<std::uint32_t>(pair * Layout::kStateBytes);
      float4 const found{maximum_[n][0], total_[n][0], maximum_[n][1], total_[n][1]};
#pragma unroll
      for (int c = 0; c < 2 * kDepth; ++c) {
        int const column = 8 * c + row, block = column >> shift;
        auto const offset = static_cast<std::uint32_t>((column & (share - 1)) * round.pairs * Layout::kSumsBytes);
        float2 const sum{sums_[c / 2][n][c % 2 * 2], sums_[c / 2][n][c % 2 * 2 + 1]};
        if (round.blocks == 1) {
          write_shared(sums + offset, sum);
        } else {
          store_counted(address_of_block(sums + offset, block), sum, address_of_block(round.barrier, block));
        }
      }
      if (round.blocks == 1) {
        if (row == 0) write_shared(state, found);
      } else {
        for (int block = row; block < round.blocks; block += 8) {
          store_counted(address_of_block(state, block), found, address_of_block(round.barrier, block));
        }
      }
    }
  }

 private:
  static constexpr int kDepth = HeadDim / 16;
  static constexpr int kKeyTiles = Layout::kSliceKeys / 16;

  [[nodiscard]] __device__ static int lane() { return static_cast<int>(threadIdx.x) % kWarpSize; }

  __device__ void hide(int seen) {
#pragma unroll
    for (int m = 0; m < kKeyTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (16 * m + 8 * half + lane() / 4 < seen) continue;
#pragma unroll
        for (int n = 0; n < HeadTiles; ++n) {
          scores_[m][n][2 * half] = scores_[m][n][2 * half + 1] = -std::numeric_limits<float>::infinity();
        }
      }
    }
  }

  float scale_;  ///< of scores in powers of two
  std::uint32_t rows_first_, columns_first_;
  std::uint32_t query_[HeadTiles][kDepth][2];
  sm80::Accumulator<kKeyTiles, HeadTiles> scores_;
  sm80::Accumulator<kDepth, HeadTiles> sums_;
  float maximum_[HeadTiles][2], total_[HeadTiles][2];
};

/// `blocks` blocks (a power of two), a cluster where there are several, have one row and up to 8 * HeadTiles heads of one
/// key/value head. Blocks for which the list is too short end at once.
template <int HeadDim, int HeadTiles>
__global__ void __launch_bounds__(DecodeLayout<HeadDim, HeadTiles>::kThreads,
                                  DecodeLayout<HeadDim, HeadTiles>::kResidentBlocks)
    attention_decode(PagedArguments<bfloat16> const paged, int const blocks, View<bfloat16> const out,
                     View<float> const lse) {
  using Layout = DecodeLayout<HeadDim, HeadTiles>;
  using Round = DecodeRound<HeadDim, HeadTiles>;
  let_next_kernel_start<Sm90>();
  auto const& arguments = paged.attention;
  int const rank = static_cast<int>(blockIdx.x) & (blocks - 1), warp = static_cast<int>(threadIdx.x) / kWarpSize;
  PagedBlock const block = paged_block<Layout::kHeads>(arguments, blockIdx.x >> (__ffs(blocks) - 1));
  int const pairs = Layout::pairs(arguments.group);
  std::uint32_t const shared = sm80::shared_address(sm80::attention_shared);
  std::uint32_t const keys = shared + static_cast<std::uint32_t>(warp * 2 * Layout::kSliceBytes);
  std::uint32_t const values = keys + Layout::kSliceBytes;
  if (blocks > 1) {
    if (threadIdx.x == 0) {
      auto* const barriers = reinterpret_cast<Barrier*>(sm80::attention_shared + Layout::barriers(pairs, blocks));
      make_barrier(barriers[0], 1);
      make_barrier(barriers[1], 1);
      publish_barriers();
    }
    cluster_arrive();
  }
  wait_for_earlier_kernels<Sm90>();

  int const limit = read_now(arguments.limits + block.query);
  int const sequence = paged.one_row_each ? static_cast<int>(block.query)
                                          : find_sequence(arguments.query_offsets, arguments.num_sequences, block.query);
  Row const* const pages = paged.table.pages + read_now(arguments.key_begin + sequence);
  DecodeWarp<HeadDim, HeadTiles> work(arguments.q.row(block.query) + Index{block.first_head} * HeadDim, block.heads,
                                      arguments.scale * kLog2E);
  int const parts = (limit + Layout::kPartKeys - 1) / Layout::kPartKeys;
  int const active = blocks_for(parts, blocks);
  if (blocks > 1) cluster_wait();
  if (rank >= active) return;  // nobody sends anything to it

  auto const slice_of = [&](int part) {
    int const key = part * Layout::kPartKeys + warp * Layout::kSliceKeys, page = key / paged.table.page_size;
    DecodeSlice slice{0, key - page * paged.table.page_size, limit - key};
    if (slice.seen > 0) slice.page = pages[page];
    return slice;
  };
  auto const fetch = [&](std::uint32_t to, View<bfloat16 const> const& from, DecodeSlice const& slice, bool any) {
    Index const column = Index{block.kv_head} * HeadDim;
    if (any) fetch_slice<HeadDim, Layout::kSliceKeys>(to, from, column, paged.table.page_size, slice);
    sm80::close_copy_group();
  };
  DecodeSlice slice = slice_of(rank);
  fetch(keys, arguments.k, slice, rank < parts);
  fetch(values, arguments.v, slice, rank < parts);
  DecodeSlice next = slice_of(rank + active);
  DecodeJoin<HeadDim, HeadTiles> join;
  for (int first = 0, number = 0; first < parts; first += active, ++number) {  // a round: a part for each block
    Round const round(shared, number, pairs, active, blocks);
    int const present = min(active, parts - first);
    if (rank < present) {
      bool const more = first + active + rank < parts;
      wait_for_slice();
      work.score(keys);
      __syncwarp();  // the keys have been read
      fetch(keys, arguments.k, next, more);
      work.weigh(slice.seen);
      wait_for_slice();
      work.add_values(values);
      __syncwarp();
      fetch(values, arguments.v, next, more);
      work.hand_over(round, rank * Layout::kWarps + warp);
      slice = next;
      next = slice_of(first + 2 * active + rank);
    }
    // Results lie at one of two places in turn. A warp hands over those of a round when it has waited for the round before,
    // and by then every warp has joined what was in the same place: it did so before it handed over in the round before.
    if (active == 1) {
      __syncthreads();
    } else {
      if (threadIdx.x == 0) {
        expect_stores(round.barrier, round.sent(present * Layout::kWarps));
      }
      wait_for_stores(round.barrier, static_cast<std::uint32_t>(number / 2 % 2));
    }
    join.add(round, present);
  }
  join.write(pairs, HeadDim / active, rank, block.heads, out.row(block.query) + Index{block.first_head} * HeadDim,
             lse.row(block.query) + block.first_head);
}

}  // namespace mor::cuda::sm90
