// SPDX-License-Identifier: Apache-2.0
/// @file
/// Attention of single query rows against long key lists in pages: decoding. The bytes of the keys and values are the
/// floor, so a block has one row and one key/value head and reads each key once for up to `Heads` query heads that share
/// it; long lists are cut into parts of a fixed length, which are joined by a second kernel.
///
/// What a row gets depends on its own list alone: the length of a part and the order of every sum are fixed, so a token has
/// the same bits alone and in any batch.
#pragma once

#include "mor/backend/cuda/kernels/attention_general.cuh"
#include "mor/backend/cuda/kernels/key_place.cuh"
#include "mor/backend/cuda/tuning/attention.hpp"

namespace mor::cuda {

/// Unnormalised results of the parts of each row and head.
struct AttentionParts {
  float* sums = nullptr;    ///< [rows, heads, parts, head_dim]
  float2* state = nullptr;  ///< [rows, heads, parts]: maximum, total
  int count = 1;            ///< parts that the longest list may have; 1: results are final

  void note_to(auto& log) const { log.note(sums, state, count); }
};

template <class T>
struct PagedArguments {
  AttentionArguments<T> attention;
  KeyPages table;
  bool one_row_each;  ///< sequence s is row s

  void note_to(auto& log) const { log.note(attention, table, one_row_each); }
};

/// The rows of one block: a query, and some heads of one key/value head.
struct PagedBlock {
  Index query;
  int first_head, heads, kv_head;
};

/// Of item `item` of all rows, key/value heads and packs of `Heads` heads; packs vary fastest.
template <int Heads, class T>
__device__ __forceinline__ PagedBlock paged_block(AttentionArguments<T> const& arguments, unsigned item) {
  auto const packs = static_cast<unsigned>((arguments.group + Heads - 1) / Heads);
  auto const kv_heads = static_cast<unsigned>(arguments.num_kv_heads);
  unsigned const pair = item / packs, query = pair / kv_heads;
  int const pack = static_cast<int>(item - pair * packs), kv_head = static_cast<int>(pair - query * kv_heads);
  return {query, kv_head * arguments.group + pack * Heads, min(Heads, arguments.group - pack * Heads), kv_head};
}

/// One part of a list, or all of a short one. Grid: x over rows, key/value heads and packs of heads; y over parts.
template <class T, class Slice, int Heads>
__global__ void __launch_bounds__(tuning::AttentionPaged::threads)
    attention_paged(PagedArguments<T> const paged, AttentionParts const parts, View<T> const out, View<float> const lse) {
  using Sizes = tuning::AttentionPaged;
  constexpr int kValues = Slice::kValues, kAtOnce = Sizes::keys_at_once;
  constexpr int kReaders = Sizes::warps * Slice::kGroups;
  auto const& arguments = paged.attention;
  PagedBlock const block = paged_block<Heads>(arguments, blockIdx.x);
  int const limit = arguments.limits[block.query];
  int const begin = static_cast<int>(blockIdx.y) * Sizes::part_keys, end = min(limit, begin + Sizes::part_keys);
  if (blockIdx.y > 0 && begin >= limit) return;
  int const sequence = paged.one_row_each ? static_cast<int>(block.query)
                                          : find_sequence(arguments.query_offsets, arguments.num_sequences, block.query);
  Index const key_begin = arguments.key_begin[sequence];
  Index const kv_column = Index{block.kv_head} * arguments.head_dim;
  Slice const slice(arguments.head_dim);
  float const scale = arguments.scale * kLog2E;
  float q[Heads][kValues];
  PartialAttention<kValues> part[Heads];
#pragma unroll
  for (int h = 0; h < Heads; ++h) {
    slice.load(arguments.q.row(block.query) + Index{block.first_head + h} * arguments.head_dim, h < block.heads, q[h]);
#pragma unroll
    for (int i = 0; i < kValues; ++i) q[h][i] *= scale;
  }
  int const warp = static_cast<int>(threadIdx.x) / kWarpSize;
  int const reader = warp * Slice::kGroups + slice.group;
  for (int base = begin; base < end; base += kReaders * kAtOnce) {
    float k[kAtOnce][kValues], v[kAtOnce][kValues];
#pragma unroll
    for (int n = 0; n < kAtOnce; ++n) {
      int const key = base + n * kReaders + reader;
      bool const valid = key < end;
      Index const row = valid ? key_place(paged.table, key_begin, key) : 0;
      slice.load(arguments.k.row(row) + kv_column, valid, k[n]);
      slice.load(arguments.v.row(row) + kv_column, valid, v[n]);
    }
#pragma unroll
    for (int h = 0; h < Heads; ++h) {
      float scores[kAtOnce];
      float highest = part[h].maximum;
#pragma unroll
      for (int n = 0; n < kAtOnce; ++n) {
        float const score = Slice::dot(q[h], k[n]);
        scores[n] = base + n * kReaders + reader < end ? score : -std::numeric_limits<float>::infinity();
        highest = fmaxf(highest, scores[n]);
      }
      float const factor = exp2_fast(part[h].maximum - highest);
      part[h].maximum = highest;
      part[h].total *= factor;
#pragma unroll
      for (int i = 0; i < kValues; ++i) part[h].sums[i] *= factor;
#pragma unroll
      for (int n = 0; n < kAtOnce; ++n) {
        float const weight = exp2_fast(scores[n] - highest);
        part[h].total += weight;
#pragma unroll
        for (int i = 0; i < kValues; ++i) part[h].sums[i] += weight * v[n][i];
      }
    }
  }
  __shared__ float sums[Sizes::warps][Heads][Slice::kLanes * kValues];
  __shared__ float2 state[Sizes::warps][Heads];
#pragma unroll
  for (int h = 0; h < Heads; ++h) {
    join_groups<Slice>(part[h]);
    if (slice.group != 0) continue;
#pragma unroll
    for (int i = 0; i < kValues; ++i) sums[warp][h][slice.lane * kValues + i] = part[h].sums[i];
    if (slice.lane == 0) state[warp][h] = {part[h].maximum, part[h].total};
  }
  __syncthreads();
  for (int at = static_cast<int>(threadIdx.x); at < block.heads * Slice::kLanes * kValues; at += Sizes::threads) {
    int const h = at / (Slice::kLanes * kValues), place = at % (Slice::kLanes * kValues);
    PartialAttention<1> joined{state[0][h].x, state[0][h].y, {sums[0][h][place]}};
#pragma unroll
    for (int other = 1; other < Sizes::warps; ++other) {
      float const more[1] = {sums[other][h][place]};
      joined.join(state[other][h].x, state[other][h].y, more);
    }
    int const column = slice.column_of(place);
    if (column >= arguments.head_dim) continue;
    int const head = block.first_head + h;
    if (parts.count == 1) {
      write_attention(out, lse, block.query, head, arguments.head_dim, column, joined);
    } else {
      Index const slot = (block.query * arguments.num_heads + head) * parts.count + blockIdx.y;
      parts.sums[slot * arguments.head_dim + column] = joined.sums[0];
      if (column == 0) parts.state[slot] = {joined.maximum, joined.total};
    }
  }
}

/// Joins the parts of a row and head in their order; a thread a column.
template <class T>
__global__ void __launch_bounds__(tuning::AttentionGeneral::max_head_dim)
    join_attention_parts(Row const* limits, int heads, int head_dim, AttentionParts const parts, View<T> const out,
                         View<float> const lse) {
  Index const query = blockIdx.x / static_cast<unsigned>(heads);
  int const head = static_cast<int>(blockIdx.x % static_cast<unsigned>(heads)), column = static_cast<int>(threadIdx.x);
  if (column >= head_dim) return;
  int const limit = limits[query];
  int const count = max(1, (limit + tuning::AttentionPaged::part_keys - 1) / tuning::AttentionPaged::part_keys);
  Index const first = Index{blockIdx.x} * parts.count;
  PartialAttention<1> joined{parts.state[first].x, parts.state[first].y, {parts.sums[first * head_dim + column]}};
  for (int n = 1; n < count; ++n) {
    float const more[1] = {parts.sums[(first + n) * head_dim + column]};
    joined.join(parts.state[first + n].x, parts.state[first + n].y, more);
  }
  write_attention(out, lse, query, head, head_dim, column, joined);
}

}  // namespace mor::cuda
