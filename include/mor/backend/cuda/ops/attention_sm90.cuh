// SPDX-License-Identifier: Apache-2.0
/// @file
/// Row-limited attention on Hopper: bf16, head dimensions 64 and 128.
#pragma once

#include "mor/backend/cuda/kernels/attention_sm90.cuh"
#include "mor/backend/cuda/kernels/attention_sm90_backward.cuh"
#include "mor/backend/cuda/kernels/attention_sm90_plan.cuh"
#include "mor/backend/cuda/kernels/attention_sm90_query_gradient.cuh"
#include "mor/backend/cuda/kernels/tma.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/tensor_map.cuh"
#include "mor/backend/cuda/tuning/architecture.hpp"
#include "mor/backend/cuda/tuning/attention.hpp"
#include "mor/backend/cuda/tuning/attention_sm90.hpp"
#include "mor/backend/cuda/tuning/scratch.hpp"
#include "mor/core/active_set.hpp"
#include "mor/core/dtype.hpp"
#include "mor/core/view.hpp"

#include <algorithm>
#include <cstddef>

namespace mor::cuda {

namespace detail {

static_assert(sizeof(sm90::QueryItem) == tuning::kAttentionSm90ItemBytes);
static_assert(sizeof(sm90::KeyItem) == tuning::kAttentionSm90ItemBytes);

[[nodiscard]] inline sm90::PlanArguments plan_arguments(KeyList const& keys, AttentionShape const& shape, Index units,
                                                        tuning::QueryItemCount const& count, sm90::QueryItem* items) {
  sm90::PlanArguments plan;
  plan.query_offsets = keys.query_offsets.data();
  plan.key_begin = keys.key_begin.data();
  plan.limits = keys.limits.data();
  plan.num_sequences = static_cast<int>(keys.num_sequences);
  plan.group = static_cast<int>(shape.num_heads / shape.num_kv_heads);
  plan.chunk_units = static_cast<int>(units);
  plan.most_chunks = static_cast<int>(count.most);
  plan.query_items = items;
  return plan;
}

/// Query rows behind the last sequence belong to nobody: the copy engine gives zeros for them.
[[nodiscard]] inline TensorMap query_map(View<bfloat16 const> x, KeyList const& keys) {
  return tensor_map(x, std::min<Index>(x.rows, keys.host_query_offsets.back()));
}
/// Where no query sees a key, none is read, and there may be no storage to describe.
[[nodiscard]] inline TensorMap key_map(View<bfloat16 const> x, KeyList const& keys, TensorMap const& otherwise) {
  return keys.max_limit > 0 && !x.empty() ? tensor_map(x, x.rows) : otherwise;
}

template <class Storage>
inline constexpr Index kDynamicBytes = static_cast<Index>(sizeof(Storage)) + kSharedAlignment;

template <int Dim>
inline void attention_sm90(Context const& context, View<bfloat16 const> q, View<bfloat16 const> k,
                           View<bfloat16 const> v, KeyList const& keys, AttentionShape const& shape, View<bfloat16> out,
                           View<float> lse) {
  using Tiles = tuning::AttentionSm90Forward<Dim>;
  using Storage = sm90::ForwardStorage<Dim>;
  Index const group = shape.num_heads / shape.num_kv_heads;
  tuning::QueryItemCount const count(keys.host_query_offsets, group, Tiles::warpgroups);
  Scratch scratch(context);
  auto* const items = scratch.take<sm90::QueryItem>(count.items);
  launch(context, "attention (plan)", {dim3(1), sm90::kPlanThreads}, sm90::plan_forward_kernel<sm90::kPlanThreads>,
         plan_arguments(keys, shape, Tiles::warpgroups, count, items));
  sm90::ForwardArguments a{};
  a.q = query_map(q, keys);
  a.k = key_map(k, keys, a.q);
  a.v = key_map(v, keys, a.q);
  a.items = items;
  a.limits = keys.limits.data();
  a.num_pieces = static_cast<int>(count.items * shape.num_kv_heads);
  a.kv_heads = static_cast<int>(shape.num_kv_heads);
  a.group = static_cast<int>(group);
  a.scale = static_cast<float>(shape.scale);
  a.out = out;
  a.lse = lse;
  launch(context, "attention",
         {dim3(persistent_blocks(context, a.num_pieces, 1)), (Tiles::warpgroups + 1) * sm90::kWarpgroupSize,
          kDynamicBytes<Storage>},
         sm90::attention_forward_kernel<Dim>, a);
}

template <int Dim>
inline void attention_backward_sm90(Context const& context, View<bfloat16 const> q, View<bfloat16 const> k,
                                    View<bfloat16 const> v, KeyList const& keys, AttentionShape const& shape,
                                    View<bfloat16 const> out, View<float const> lse, View<bfloat16 const> d_out,
                                    View<bfloat16> d_q, View<bfloat16> d_k, View<bfloat16> d_v) {
  using KeyTiles = tuning::AttentionSm90KeyGradient<Dim>;
  using QueryTiles = tuning::AttentionSm90QueryGradient<Dim>;
  Index const group = shape.num_heads / shape.num_kv_heads, key_rows = KeyTiles::warpgroups * sm90::kTileRows;
  tuning::AttentionSm90BackwardScratch const sizes(keys.host_query_offsets, keys.max_limit, shape.num_heads, group,
                                                   QueryTiles::warpgroups, key_rows);
  auto const& count = sizes.query;
  Index const rows = keys.host_query_offsets.back(), values = sizes.values;
  Index const key_tiles = sizes.key_tiles, most_key_items = sizes.key_items;
  Scratch scratch(context);
  auto* const query_items = scratch.take<sm90::QueryItem>(count.items);
  auto* const key_items = scratch.take<sm90::KeyItem>(most_key_items);
  int* const num_key_items = scratch.take<int>(1);
  float *const scaled_lse = scratch.take<float>(values), *const delta = scratch.take<float>(values);

  sm90::PrepareArguments prepare;
  prepare.plan = plan_arguments(keys, shape, QueryTiles::warpgroups, count, query_items);
  prepare.plan.key_rows = static_cast<int>(key_rows);
  prepare.plan.most_tiles = static_cast<int>(key_tiles);
  prepare.plan.key_items = key_items;
  prepare.plan.num_key_items = num_key_items;
  prepare.out = out, prepare.d_out = d_out, prepare.lse = lse;
  prepare.rows = static_cast<int>(rows), prepare.heads = static_cast<int>(shape.num_heads);
  prepare.scaled_lse = scaled_lse, prepare.delta = delta;
  Index const blocks = 2 + divide_up(values, sm90::kPlanThreads / (Dim / 8));
  launch(context, "attention_backward (prepare)", {dim3(static_cast<unsigned>(blocks)), sm90::kPlanThreads},
         sm90::prepare_backward_kernel<Dim>, prepare);

  sm90::BackwardArguments a{};
  a.q = query_map(q, keys);
  a.d_out = query_map(d_out, keys);
  a.k = key_map(k, keys, a.q);
  a.v = key_map(v, keys, a.q);
  a.query_items = query_items, a.key_items = key_items, a.num_key_items = num_key_items;
  a.limits = keys.limits.data();
  a.lse = scaled_lse, a.delta = delta;
  a.num_query_pieces = static_cast<int>(count.items * shape.num_kv_heads);
  a.kv_heads = static_cast<int>(shape.num_kv_heads), a.group = static_cast<int>(group);
  a.scale = static_cast<float>(shape.scale);
  a.d_q = d_q, a.d_k = d_k, a.d_v = d_v;
  launch(context, "attention_backward (keys)",
         {dim3(persistent_blocks(context, most_key_items * shape.num_kv_heads, 1)),
          (KeyTiles::warpgroups + 1) * sm90::kWarpgroupSize, kDynamicBytes<sm90::KeyStorage<Dim>>},
         sm90::attention_key_gradient_kernel<Dim>, a);
  launch(context, "attention_backward (queries)",
         {dim3(persistent_blocks(context, a.num_query_pieces, 1)), (QueryTiles::warpgroups + 1) * sm90::kWarpgroupSize,
          kDynamicBytes<sm90::QueryStorage<Dim>>},
         sm90::attention_query_gradient_kernel<Dim>, a);
}

}  // namespace detail

/// Whether the Hopper kernels take these operands: head dimension 64 or 128, whole groups of heads, a positive scale,
/// and matrices that 16-byte accesses can reach.
template <class... Views>
[[nodiscard]] inline bool attention_sm90_supports(AttentionShape const& shape, Views... views) {
  return tuning::attention_on_tensor_cores(shape.head_dim) && shape.num_kv_heads > 0 &&
         shape.num_heads % shape.num_kv_heads == 0 && shape.scale > 0.0 && (is_copy_aligned(views) && ...);
}

/// Forward, where `attention_sm90_supports(shape, q, k, v, out)`. A small kernel sorts the work by cost, a persistent
/// one does it: products on tensor cores from tiles that the copy engine brings. Floor: 4 E FLOPs and one exponential
/// for each visible pair of query and key; at E = 64 both take equally long.
template <class Architecture = Sm90>
inline void attention_sm90(Context const& context, View<bfloat16 const> q, View<bfloat16 const> k,
                           View<bfloat16 const> v, KeyList const& keys, AttentionShape const& shape, View<bfloat16> out,
                           View<float> lse) {
  if (keys.num_queries == 0 || shape.num_heads == 0) return;
  if (shape.head_dim == 64) {
    detail::attention_sm90<64>(context, q, k, v, keys, shape, out, lse);
  } else {
    detail::attention_sm90<128>(context, q, k, v, keys, shape, out, lse);
  }
}

/// Backward, where `attention_sm90_supports(shape, q, k, v, out, d_out, d_q, d_k, d_v)`. One kernel makes d_k and d_v,
/// one d_q; each computes the weights again. Floor: 14 E FLOPs and two exponentials for each visible pair.
template <class Architecture = Sm90>
inline void attention_backward_sm90(Context const& context, View<bfloat16 const> q, View<bfloat16 const> k,
                                    View<bfloat16 const> v, KeyList const& keys, AttentionShape const& shape,
                                    View<bfloat16 const> out, View<float const> lse, View<bfloat16 const> d_out,
                                    View<bfloat16> d_q, View<bfloat16> d_k, View<bfloat16> d_v) {
  if (keys.num_queries == 0 || shape.num_heads == 0) return;
  if (shape.head_dim == 64) {
    detail::attention_backward_sm90<64>(context, q, k, v, keys, shape, out, lse, d_out, d_q, d_k, d_v);
  } else {
    detail::attention_backward_sm90<128>(context, q, k, v, keys, shape, out, lse, d_out, d_q, d_k, d_v);
  }
}

}  // namespace mor::cuda
