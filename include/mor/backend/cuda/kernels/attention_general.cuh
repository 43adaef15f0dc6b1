// SPDX-License-Identifier: Apache-2.0
/// @file
/// Row-limited attention for any element type, head dimension and alignment: a warp works on one query row and head
/// with arithmetic in float, or all warps of a block share them and join their parts at the end.
///
/// A warp reads several key rows at once where one takes fewer than its 32 lanes. Each such group of lanes keeps its
/// own running maximum, total and sums (online softmax); groups, and then warps, are joined in a fixed order.
#pragma once

#include "mor/backend/cuda/kernels/attention_arguments.cuh"
#include "mor/backend/cuda/kernels/find_sequence.cuh"
#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/tuning/attention.hpp"

#include <limits>

namespace mor::cuda {

/// How a row of head_dim elements lies in a group of lanes: `Values` neighbours a lane in one 16-byte access, or, with
/// Packed false, one element a lane and every 32nd from there.
template <class T, int GroupLanes, int LaneValues, bool Packed>
struct RowSlice {
  static constexpr bool kPacked = Packed;
  static constexpr int kLanes = GroupLanes, kValues = LaneValues;
  static constexpr int kGroups = kWarpSize / GroupLanes;
  static_assert(Packed ? LaneValues == kPackSize<T> : GroupLanes == kWarpSize);

  int dim;
  int lane;   ///< within the group
  int group;  ///< of the warp

  __device__ explicit RowSlice(int dim_)
      : dim(dim_),
        lane(static_cast<int>(threadIdx.x) % kLanes),
        group(static_cast<int>(threadIdx.x) % kWarpSize / kLanes) {}

  /// The column of value i.
  [[nodiscard]] __device__ int column(int i) const { return Packed ? lane * kValues + i : lane + i * kWarpSize; }

  /// The column of element `place` of an array of [kLanes][kValues].
  [[nodiscard]] __device__ static int column_of(int place) {
    return Packed ? place : place / kValues + place % kValues * kWarpSize;
  }

  /// Zeros where `valid` is false or the row has ended.
  __device__ void load(T const* row, bool valid, float (&to)[kValues]) const {
#pragma unroll
    for (int i = 0; i < kValues; ++i) to[i] = 0.0F;
    if (!valid) return;
    if constexpr (Packed) {
      auto const pack = load_lanes<kValues>(row + lane * kValues);
#pragma unroll
      for (int i = 0; i < kValues; ++i) to[i] = pack.value[i];
    } else {
#pragma unroll
      for (int i = 0; i < kValues; ++i) {
        if (column(i) < dim) to[i] = static_cast<float>(row[column(i)]);
      }
    }
  }

  __device__ void store(T* row, float const (&from)[kValues]) const {
    if constexpr (Packed) {
      store_lanes<kValues>(row + lane * kValues, from);
    } else {
#pragma unroll
      for (int i = 0; i < kValues; ++i) {
        if (column(i) < dim) row[column(i)] = narrow<T>(from[i]);
      }
    }
  }

  /// The scalar product of two rows, in every lane of the group.
  [[nodiscard]] __device__ static float dot(float const (&a)[kValues], float const (&b)[kValues]) {
    float sum = 0.0F;
#pragma unroll
    for (int i = 0; i < kValues; ++i) sum += a[i] * b[i];
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(kAllLanes, sum, distance);
    return sum;
  }

  /// Adds the values of all groups of the warp.
  __device__ static void add_groups(float (&values)[kValues]) {
#pragma unroll
    for (int distance = kLanes; distance < kWarpSize; distance *= 2) {
#pragma unroll
      for (int i = 0; i < kValues; ++i) values[i] += __shfl_xor_sync(kAllLanes, values[i], distance);
    }
  }
};

/// A softmax over part of a row's keys, base 2: `sums` are the values weighted with 2^(score - maximum).
template <int Values>
struct PartialAttention {
  float maximum = kLowestScore;
  float total = 0.0F;
  float sums[Values] = {};

  __device__ void join(float other_maximum, float other_total, float const (&other_sums)[Values]) {
    float const highest = fmaxf(maximum, other_maximum);
    float const factor = exp2_fast(maximum - highest), other_factor = exp2_fast(other_maximum - highest);
    maximum = highest;
    total = total * factor + other_total * other_factor;
#pragma unroll
    for (int i = 0; i < Values; ++i) sums[i] = sums[i] * factor + other_sums[i] * other_factor;
  }
};

/// Writes one column of a row's result and, at column 0, its lse.
template <class T>
__device__ __forceinline__ void write_attention(View<T> out, View<float> lse, Index query, int head, int head_dim, int column,
                                                PartialAttention<1> const& part) {
  float const inverse = part.total > 0.0F ? 1.0F / part.total : 0.0F;
  out(query, Index{head} * head_dim + column) = narrow<T>(part.sums[0] * inverse);
  if (column != 0) return;
  lse(query, head) =
      part.total > 0.0F ? part.maximum * kLn2 + logf(part.total) : -std::numeric_limits<float>::infinity();
}

/// Joins the parts of the groups of a warp; group 0 has the result.
template <class Slice>
__device__ __forceinline__ void join_groups(PartialAttention<Slice::kValues>& part) {
#pragma unroll
  for (int distance = Slice::kLanes; distance < kWarpSize; distance *= 2) {
    float sums[Slice::kValues];
    float const maximum = __shfl_xor_sync(kAllLanes, part.maximum, distance);
    float const total = __shfl_xor_sync(kAllLanes, part.total, distance);
#pragma unroll
    for (int i = 0; i < Slice::kValues; ++i) sums[i] = __shfl_xor_sync(kAllLanes, part.sums[i], distance);
    part.join(maximum, total, sums);
  }
}

/// Joins the parts of the block's warps, in the order of the warps; group 0 of warp 0 has the result.
template <class Slice>
__device__ __forceinline__ void join_warps(Slice const& slice, PartialAttention<Slice::kValues>& part) {
  constexpr int kValues = Slice::kValues;
  constexpr int kWarps = tuning::AttentionGeneral::warps;
  __shared__ float sums[kWarps][Slice::kLanes * kValues];
  __shared__ float maxima[kWarps], totals[kWarps];
  int const warp = static_cast<int>(threadIdx.x) / kWarpSize;
  if (slice.group == 0) {
#pragma unroll
    for (int i = 0; i < kValues; ++i) sums[warp][i * Slice::kLanes + slice.lane] = part.sums[i];
    if (slice.lane == 0) {
      maxima[warp] = part.maximum;
      totals[warp] = part.total;
    }
  }
  __syncthreads();
  if (warp != 0 || slice.group != 0) return;
  for (int other = 1; other < kWarps; ++other) {
    float other_sums[kValues];
#pragma unroll
    for (int i = 0; i < kValues; ++i) other_sums[i] = sums[other][i * Slice::kLanes + slice.lane];
    part.join(maxima[other], totals[other], other_sums);
  }
}

/// out and lse. Sharers is the number of warps that share a row: 1, or all of the block.
template <class T, class Slice, int Sharers>
__global__ void __launch_bounds__(tuning::AttentionGeneral::threads)
    attention_general(AttentionArguments<T> const arguments, View<T> const out, View<float> const lse) {
  constexpr int kAtOnce = tuning::AttentionGeneral::keys_at_once;
  constexpr int kItems = tuning::AttentionGeneral::warps / Sharers;
  Slice const slice(arguments.head_dim);
  int const warp = static_cast<int>(threadIdx.x) / kWarpSize;
  Index const item = Index{blockIdx.x} * kItems + warp / Sharers;
  Index const query = item / arguments.num_heads;
  if (query >= arguments.q.rows) return;  // all warps that share a row leave together
  int const head = static_cast<int>(item % arguments.num_heads);
  int const sequence = find_sequence(arguments.query_offsets, arguments.num_sequences, query);
  int const limit = arguments.limits[query];
  Index const key_begin = arguments.key_begin[sequence];
  Index const kv_column = Index{head / arguments.group} * arguments.head_dim;
  float const scale = arguments.scale * kLog2E;

  float q[Slice::kValues];
  slice.load(arguments.q.row(query) + Index{head} * arguments.head_dim, true, q);
  PartialAttention<Slice::kValues> part;
  int const reader = warp % Sharers * Slice::kGroups + slice.group;
  for (int base = 0; base < limit; base += Sharers * Slice::kGroups * kAtOnce) {
    float k[kAtOnce][Slice::kValues], v[kAtOnce][Slice::kValues], scores[kAtOnce];
    int const first = base + reader * kAtOnce;
#pragma unroll
    for (int n = 0; n < kAtOnce; ++n) {
      slice.load(arguments.k.row(key_begin + first + n) + kv_column, first + n < limit, k[n]);
      slice.load(arguments.v.row(key_begin + first + n) + kv_column, first + n < limit, v[n]);
    }
    float highest = part.maximum;
#pragma unroll
    for (int n = 0; n < kAtOnce; ++n) {
      float const score = scale * Slice::dot(q, k[n]);
      scores[n] = first + n < limit ? score : -std::numeric_limits<float>::infinity();
      highest = fmaxf(highest, scores[n]);
    }
    float const factor = exp2_fast(part.maximum - highest);
    part.maximum = highest;
    part.total *= factor;
#pragma unroll
    for (int i = 0; i < Slice::kValues; ++i) part.sums[i] *= factor;
#pragma unroll
    for (int n = 0; n < kAtOnce; ++n) {
      float const weight = exp2_fast(scores[n] - highest);
      part.total += weight;
#pragma unroll
      for (int i = 0; i < Slice::kValues; ++i) part.sums[i] += weight * v[n][i];
    }
  }
  join_groups<Slice>(part);
  if constexpr (Sharers > 1) {
    join_warps(slice, part);
    if (warp != 0) return;
  }
  if (slice.group != 0) return;
  float const inverse = part.total > 0.0F ? 1.0F / part.total : 0.0F;
#pragma unroll
  for (int i = 0; i < Slice::kValues; ++i) part.sums[i] *= inverse;
  slice.store(out.row(query) + Index{head} * arguments.head_dim, part.sums);
  if (slice.lane == 0) {
    lse(query, head) =
        part.total > 0.0F ? part.maximum * kLn2 + logf(part.total) : -std::numeric_limits<float>::infinity();
  }
}

}  // namespace mor::cuda
