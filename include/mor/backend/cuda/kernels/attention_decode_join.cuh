// SPDX-License-Identifier: Apache-2.0
/// @file
/// How the results of the slices of a list (see attention_decode.cuh) are joined: by one block, or by the blocks of a
/// cluster, each of which has a share of the columns and is sent what the others found for it.
#pragma once

#include "mor/backend/cuda/kernels/attention_arguments.cuh"
#include "mor/backend/cuda/kernels/cluster.cuh"
#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/kernels/tma.cuh"
#include "mor/backend/cuda/tuning/attention.hpp"

#include <cstdint>
#include <limits>

namespace mor::cuda::sm90 {

/// Up to 8 * HeadTiles query heads of a key/value head, held as pairs, of which there is a power of two. Shared memory: for each warp a slice of keys and one
/// of values; twice the results of a round's slices, sums [blocks][warps][share of the columns][pairs] of two floats, then
/// maxima and totals [blocks][warps][pairs] of four; two barriers.
template <int HeadDim, int HeadTiles>
struct DecodeLayout {
  using Sizes = tuning::AttentionDecode<HeadDim>;
  static constexpr int kWarps = Sizes::warps;
  static constexpr int kThreads = kWarpSize * kWarps;
  static constexpr int kHeads = 8 * HeadTiles, kPairs = kHeads / 2;
  static constexpr int kResidentBlocks = HeadTiles == 1 ? Sizes::resident_blocks : Sizes::resident_blocks_of_many_heads;
  static constexpr int kSliceKeys = Sizes::slice_keys, kPartKeys = Sizes::part_keys;
  static constexpr int kSliceBytes = 2 * HeadDim * kSliceKeys;
  static constexpr int kSums = 2 * kSliceBytes * kWarps;  ///< offset of the first sums
  static constexpr int kSumsBytes = 8, kStateBytes = 16;  ///< of a pair

  [[nodiscard]] MOR_HOST_DEVICE static constexpr int pairs(int group) {
    int result = 1;
    while (result < kPairs && 2 * result < group) result *= 2;
    return result;
  }
  [[nodiscard]] MOR_HOST_DEVICE static constexpr int sums_bytes(int pairs) { return kWarps * HeadDim * pairs * kSumsBytes; }
  [[nodiscard]] MOR_HOST_DEVICE static constexpr int states(int pairs) { return kSums + 2 * sums_bytes(pairs); }
  [[nodiscard]] MOR_HOST_DEVICE static constexpr int states_bytes(int pairs, int blocks) {
    return blocks * kWarps * pairs * kStateBytes;
  }
  [[nodiscard]] MOR_HOST_DEVICE static constexpr int barriers(int pairs, int blocks) {
    return states(pairs) + 2 * states_bytes(pairs, blocks);
  }
  [[nodiscard]] MOR_HOST_DEVICE static constexpr int bytes(int pairs, int blocks) {
    return barriers(pairs, blocks) + 2 * static_cast<int>(sizeof(Barrier));
  }
};

/// Where a block's results of a round lie, as addresses within its shared memory. `blocks` is a power of two.
template <int HeadDim, int HeadTiles>
struct DecodeRound {
  using Layout = DecodeLayout<HeadDim, HeadTiles>;
  std::uint32_t sums, states, barrier;
  int pairs;
  int blocks;  ///< that share the columns

  __device__ __forceinline__ DecodeRound(std::uint32_t shared, int round, int pairs_, int blocks_, int launched)
      : sums(shared + static_cast<std::uint32_t>(Layout::kSums + round % 2 * Layout::sums_bytes(pairs_))),
        states(shared + static_cast<std::uint32_t>(Layout::states(pairs_) + round % 2 * Layout::states_bytes(pairs_, launched))),
        barrier(shared + static_cast<std::uint32_t>(Layout::barriers(pairs_, launched) + round % 2 * int{sizeof(Barrier)})),
        pairs(pairs_),
        blocks(blocks_) {}

  [[nodiscard]] __device__ int share() const { return HeadDim >> (__ffs(blocks) - 1); }  ///< columns of a block
  /// Of slice `slice` of the round: warp `slice % kWarps` of block `slice / kWarps`.
  [[nodiscard]] __device__ std::uint32_t sums_of(int slice) const {
    return sums + static_cast<std::uint32_t>(slice * share() * pairs * Layout::kSumsBytes);
  }
  [[nodiscard]] __device__ std::uint32_t state_of(int slice) const {
    return states + static_cast<std::uint32_t>(slice * pairs * Layout::kStateBytes);
  }
  /// Bytes that each block is sent by `slices` slices.
  [[nodiscard]] __device__ int sent(int slices) const {
    return slices * pairs * (share() * Layout::kSumsBytes + Layout::kStateBytes);
  }
};

/// The softmax of one head over the parts joined so far, of one column. Products and sums are spelled out, so that every
/// inlined copy has the same bits.
struct DecodeSum {
  float maximum = kLowestScore, total = 0.0F, sum = 0.0F;

  /// Scales what is there to a maximum that is not less.
  __device__ __forceinline__ void raise(float highest) {
    float const factor = exp2_fast(__fsub_rn(maximum, highest));
    maximum = highest;
    total = __fmul_rn(total, factor);
    sum = __fmul_rn(sum, factor);
  }
  __device__ __forceinline__ void add(float slice_maximum, float slice_total, float slice_sum) {
    float const weight = exp2_fast(__fsub_rn(slice_maximum, maximum));
    total = __fmaf_rn(slice_total, weight, total);
    sum = __fmaf_rn(slice_sum, weight, sum);
  }
  [[nodiscard]] __device__ __forceinline__ float mean() const { return total > 0.0F ? __fdividef(sum, total) : 0.0F; }
  [[nodiscard]] __device__ __forceinline__ float lse() const {
    return total > 0.0F ? maximum * kLn2 + logf(total) : -std::numeric_limits<float>::infinity();
  }
};

/// What a thread joins: pairs of heads at some columns of the block's share.
template <int HeadDim, int HeadTiles>
class DecodeJoin {
 public:
  using Layout = DecodeLayout<HeadDim, HeadTiles>;
  using Round = DecodeRound<HeadDim, HeadTiles>;

  /// Joins the first `parts` blocks' parts of a round, in their order.
  __device__ __forceinline__ void add(Round const& round, int parts) {
    int const items = round.share() * round.pairs;
#pragma unroll
    for (int k = 0; k < kItems; ++k) {
      int const item = static_cast<int>(threadIdx.x) + k * Layout::kThreads;
      if (item >= items) continue;
      std::uint32_t const column = static_cast<std::uint32_t>(item * Layout::kSumsBytes);
      std::uint32_t const pair = static_cast<std::uint32_t>((item & (round.pairs - 1)) * Layout::kStateBytes);
#pragma unroll kAhead
      for (int part = 0; part < parts; ++part) {
        float4 state[Layout::kWarps];
        float2 sums[Layout::kWarps];
#pragma unroll
        for (int w = 0; w < Layout::kWarps; ++w) {
          state[w] = read_shared_quad(round.state_of(part * Layout::kWarps + w) + pair);
          sums[w] = read_shared_pair(round.sums_of(part * Layout::kWarps + w) + column);
        }
        float first = joined_[k][0].maximum, second = joined_[k][1].maximum;
#pragma unroll
        for (int w = 0; w < Layout::kWarps; ++w) {
          first = fmaxf(first, state[w].x);
          second = fmaxf(second, state[w].z);
        }
        joined_[k][0].raise(first);
        joined_[k][1].raise(second);
#pragma unroll
        for (int w = 0; w < Layout::kWarps; ++w) {
          joined_[k][0].add(state[w].x, state[w].y, sums[w].x);
          joined_[k][1].add(state[w].z, state[w].w, sums[w].y);
        }
      }
    }
  }

  /// `out` and `lse` are the row's, at the first of `heads` heads; `rank` is the block's place in the cluster.
  __device__ __forceinline__ void write(int pairs, int share, int rank, int heads, bfloat16* out, float* lse) const {
#pragma unroll
    for (int k = 0; k < kItems; ++k) {
      int const item = static_cast<int>(threadIdx.x) + k * Layout::kThreads;
      if (item >= share * pairs) continue;
      int const column = rank * share + (item >> (__ffs(pairs) - 1)), head = 2 * (item & (pairs - 1));
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (head + i >= heads) continue;
        out[(head + i) * HeadDim + column] = narrow<bfloat16>(joined_[k][i].mean());
        if (column == 0) lse[head + i] = joined_[k][i].lse();
      }
    }
  }

 private:
  static constexpr int kItems = HeadDim * Layout::kPairs / Layout::kThreads;
  static constexpr int kAhead = kItems <= 2 ? 2 : 1;  ///< parts that are read before the first is joined
  DecodeSum joined_[kItems][2];
};

}  // namespace mor::cuda::sm90
