// SPDX-License-Identifier: Apache-2.0
/// @file
/// Gradients of row-limited attention for any element type, head dimension and alignment.
///
/// With p = exp(scale q.k - lse), delta = d_out.out and ds = p (d_out.v - delta): d_q = scale sum ds k over the row's
/// keys, d_k = scale sum ds q and d_v = sum p d_out over the rows that see the key and the heads of its group. A warp
/// works on one query row and head, or on one key row and key/value head; every sum has one order.
#pragma once

#include "mor/backend/cuda/kernels/attention_arguments.cuh"
#include "mor/backend/cuda/kernels/attention_general.cuh"
#include "mor/backend/cuda/kernels/find_sequence.cuh"
#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/tuning/attention.hpp"

namespace mor::cuda {

/// d_q, and delta [rows, heads] for the kernel of the keys.
template <class T, class Slice>
__global__ void __launch_bounds__(tuning::AttentionGeneral::threads)
    attention_general_queries(AttentionArguments<T> const arguments, AttentionGradients<T> const gradients,
                              float* const delta_out) {
  constexpr int kWarps = tuning::AttentionGeneral::warps;
  Slice const slice(arguments.head_dim);
  Index const item = Index{blockIdx.x} * kWarps + threadIdx.x / kWarpSize;
  Index const query = item / arguments.num_heads;
  if (query >= arguments.q.rows) return;
  int const head = static_cast<int>(item % arguments.num_heads);
  int const sequence = find_sequence(arguments.query_offsets, arguments.num_sequences, query);
  int const limit = arguments.limits[query];
  Index const key_begin = arguments.key_begin[sequence];
  Index const column = Index{head} * arguments.head_dim;
  Index const kv_column = Index{head / arguments.group} * arguments.head_dim;
  float const scale = arguments.scale * kLog2E;
  float const lse = gradients.lse(query, head) * kLog2E;

  float q[Slice::kValues], d_out[Slice::kValues], sums[Slice::kValues];
  slice.load(gradients.out.row(query) + column, true, sums);
  slice.load(gradients.d_out.row(query) + column, true, d_out);
  slice.load(arguments.q.row(query) + column, true, q);
  float const delta = Slice::dot(d_out, sums);
  if (threadIdx.x % kWarpSize == 0) delta_out[item] = delta;
#pragma unroll
  for (int i = 0; i < Slice::kValues; ++i) sums[i] = 0.0F;
  for (int base = 0; base < limit; base += Slice::kGroups) {
    int const key = base + slice.group;
    bool const seen = key < limit;
    float k[Slice::kValues], v[Slice::kValues];
    slice.load(arguments.k.row(key_begin + key) + kv_column, seen, k);
    slice.load(arguments.v.row(key_begin + key) + kv_column, seen, v);
    float const score = scale * Slice::dot(q, k);
    float const d_weight = Slice::dot(d_out, v);
    float const weight = seen ? exp2_fast(score - lse) : 0.0F;
    float const d_score = weight * (d_weight - delta);
#pragma unroll
    for (int i = 0; i < Slice::kValues; ++i) sums[i] += d_score * k[i];
  }
  Slice::add_groups(sums);
  if (slice.group != 0) return;
#pragma unroll
  for (int i = 0; i < Slice::kValues; ++i) sums[i] *= arguments.scale;
  slice.store(gradients.d_q.row(query) + column, sums);
}

/// Adds to d_k and d_v. Blocks as `AttentionBlock` says, with one key row a warp.
template <class T, class Slice>
__global__ void __launch_bounds__(tuning::AttentionGeneral::threads)
    attention_general_keys(AttentionArguments<T> const arguments, AttentionGradients<T> const gradients,
                           float const* const delta) {
  Slice const slice(arguments.head_dim);
  AttentionBlock const block = attention_block(arguments.num_kv_heads, arguments.num_sequences);
  int const begin = arguments.query_offsets[block.sequence], end = arguments.query_offsets[block.sequence + 1];
  int const key = block.tile * tuning::AttentionGeneral::warps + static_cast<int>(threadIdx.x) / kWarpSize;
  int const first = first_seeing(arguments.limits, begin, end, key);
  if (first == end) return;  // a key that nobody sees, or none at all
  Index const key_row = Index{arguments.key_begin[block.sequence]} + key;
  Index const kv_column = Index{block.head} * arguments.head_dim;
  float const scale = arguments.scale * kLog2E;

  float k[Slice::kValues], v[Slice::kValues], d_k[Slice::kValues] = {}, d_v[Slice::kValues] = {};
  slice.load(arguments.k.row(key_row) + kv_column, true, k);
  slice.load(arguments.v.row(key_row) + kv_column, true, v);
  for (int head = block.head * arguments.group; head < (block.head + 1) * arguments.group; ++head) {
    Index const column = Index{head} * arguments.head_dim;
    for (int base = first; base < end; base += Slice::kGroups) {
      int const query = base + slice.group;
      bool const exists = query < end;
      float q[Slice::kValues], d_out[Slice::kValues];
      slice.load(arguments.q.row(query) + column, exists, q);
      slice.load(gradients.d_out.row(query) + column, exists, d_out);
      float const lse = exists ? gradients.lse(query, head) * kLog2E : 0.0F;
      float const row_delta = exists ? delta[Index{query} * arguments.num_heads + head] : 0.0F;
      float const score = scale * Slice::dot(q, k);
      float const d_weight = Slice::dot(d_out, v);
      float const weight = exists ? exp2_fast(score - lse) : 0.0F;
      float const d_score = weight * (d_weight - row_delta);
#pragma unroll
      for (int i = 0; i < Slice::kValues; ++i) {
        d_k[i] += d_score * q[i];
        d_v[i] += weight * d_out[i];
      }
    }
  }
  Slice::add_groups(d_k);
  Slice::add_groups(d_v);
  if (slice.group != 0) return;
  T* const d_k_row = gradients.d_k.row(key_row) + kv_column;
  T* const d_v_row = gradients.d_v.row(key_row) + kv_column;
  float before_k[Slice::kValues], before_v[Slice::kValues];
  slice.load(d_k_row, true, before_k);
  slice.load(d_v_row, true, before_v);
#pragma unroll
  for (int i = 0; i < Slice::kValues; ++i) {
    d_k[i] = before_k[i] + arguments.scale * d_k[i];
    d_v[i] = before_v[i] + d_v[i];
  }
  slice.store(d_k_row, d_k);
  slice.store(d_v_row, d_v);
}

}  // namespace mor::cuda
