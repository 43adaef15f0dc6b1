// SPDX-License-Identifier: Apache-2.0
/// @file
/// What every attention kernel is given, and how it finds its rows. Grids are one-dimensional: heads vary fastest, then
/// sequences, then tiles, so that blocks running together read the same keys.
#pragma once

#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

namespace mor::cuda {

inline constexpr float kLog2E = 1.4426950408889634F;
inline constexpr float kLn2 = 0.6931471805599453F;

/// Stands for "nothing seen" in running maxima: finite, so that differences are never NaN.
inline constexpr float kLowestScore = -1e30F;

/// 2^x in one instruction: relative error 2^-22, 0 for -infinity.
[[nodiscard]] __device__ __forceinline__ float exp2_fast(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

/// Inputs of an attention; see `KeyList` and `AttentionShape`.
template <class T>
struct AttentionArguments {
  View<T const> q, k, v;
  Row const* query_offsets = nullptr;  ///< [num_sequences + 1]
  Row const* key_begin = nullptr;      ///< [num_sequences]
  Row const* limits = nullptr;         ///< [q.rows]
  int num_sequences = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int group = 1;  ///< query heads of a key/value head
  int head_dim = 0;
  float scale = 1.0F;

  void note_to(auto& log) const { log.note(q, k, v, query_offsets, key_begin, limits, num_sequences, num_heads, num_kv_heads, group, head_dim, scale); }
};

/// What the backward pass reads and writes besides.
template <class T>
struct AttentionGradients {
  View<T const> out;
  View<float const> lse;
  View<T const> d_out;
  View<T> d_q, d_k, d_v;

  void note_to(auto& log) const { log.note(out, lse, d_out, d_q, d_k, d_v); }
};

/// The part of the work that a block of a one-dimensional grid has.
struct AttentionBlock {
  int head;
  int sequence;
  int tile;
};
[[nodiscard]] __device__ __forceinline__ AttentionBlock attention_block(int heads, int sequences) {
  auto const pair = blockIdx.x / static_cast<unsigned>(heads);
  return {static_cast<int>(blockIdx.x % static_cast<unsigned>(heads)),
          static_cast<int>(pair % static_cast<unsigned>(sequences)),
          static_cast<int>(pair / static_cast<unsigned>(sequences))};
}

/// The number of tiles of that grid.
[[nodiscard]] __device__ __forceinline__ int attention_tiles(int heads, int sequences) {
  return static_cast<int>(gridDim.x / static_cast<unsigned>(heads) / static_cast<unsigned>(sequences));
}

/// The first of rows [begin, end) that sees key `key` of its list, or `end`: limits never decrease. All lanes of a warp
/// call with the same arguments; each round they look at 32 places.
[[nodiscard]] __device__ __forceinline__ int first_seeing(Row const* limits, int begin, int end, int key) {
  int const lane = static_cast<int>(threadIdx.x) % kWarpSize;
  while (begin < end) {
    int const distance = (end - begin + kWarpSize - 1) / kWarpSize;
    int const place = begin + lane * distance;
    unsigned const seeing = __ballot_sync(kAllLanes, place >= end || limits[place] > key);
    int const first = seeing == 0 ? kWarpSize : __ffs(static_cast<int>(seeing)) - 1;
    if (first == 0) return begin;
    end = min(end, begin + first * distance);
    begin += (first - 1) * distance + 1;
  }
  return begin;
}

}  // namespace mor::cuda
