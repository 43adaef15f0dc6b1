// SPDX-License-Identifier: Apache-2.0
/// @file
/// Backward attention.
#pragma once

#include "mor/backend/cuda/kernels/attention_general_backward.cuh"
#include "mor/backend/cuda/kernels/attention_sm80_backward.cuh"
#include "mor/backend/cuda/kernels/attention_sm80_keys.cuh"
#include "mor/backend/cuda/ops/attention_problem.cuh"
#include "mor/backend/cuda/ops/attention_sm90.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/tuning/architecture.hpp"
#include "mor/backend/cuda/tuning/attention.hpp"
#include "mor/core/active_set.hpp"
#include "mor/core/dtype.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <type_traits>

namespace mor::cuda {

namespace detail {

/// Launches the kernels for any shape.
template <class T>
struct AttentionGeneralBackwardLaunch {
  Context const& context;
  AttentionArguments<T> const& arguments;
  AttentionGradients<T> const& gradients;
  Index max_limit;

  template <class Slice>
  void run() const {
    using Sizes = tuning::AttentionGeneral;
    Index const items = arguments.q.rows * arguments.num_heads;
    Scratch scratch(context);
    auto* const delta = scratch.take<float>(items);
    launch(context, "attention_backward",
           {attention_grid(divide_up(items, Sizes::warps), "attention_backward"), Sizes::threads, 0},
           &attention_general_queries<T, Slice>, arguments, gradients, delta);
    Index const blocks = divide_up(max_limit, Sizes::warps) * arguments.num_kv_heads * arguments.num_sequences;
    launch(context, "attention_backward", {attention_grid(blocks, "attention_backward"), Sizes::threads, 0},
           &attention_general_keys<T, Slice>, arguments, gradients, delta);
  }
};

template <int HeadDim>
void attention_backward_sm80_launch(Context const& context, AttentionArguments<bfloat16> const& arguments,
                                    AttentionGradients<bfloat16> const& gradients, KeyList const& keys) {
  char const* const verb = "attention_backward";
  Scratch scratch(context);
  Index const pairs = arguments.q.rows * arguments.num_heads;
  static_assert(sizeof(sm80::RowStatistics) == tuning::kAttentionRowStatisticsBytes);
  auto* const statistics = scratch.take<sm80::RowStatistics>(pairs);
  constexpr int kThreads = 256;
  launch(context, verb, {attention_grid(divide_up(pairs * (HeadDim / 8), kThreads), verb), kThreads, 0},
         &sm80::row_statistics<HeadDim>, gradients.out, gradients.d_out, gradients.lse, arguments.q.rows,
         arguments.num_heads, statistics);

  using Keys = sm80::KeyLayout<HeadDim>;
  Index const key_tiles = divide_up(keys.max_limit, Keys::kKeyTile);
  launch(context, verb,
         {attention_grid(key_tiles * arguments.num_kv_heads * arguments.num_sequences, verb), Keys::kThreads,
          Keys::kBytes},
         &sm80::attention_keys<HeadDim>, arguments, gradients.d_out, statistics, gradients.d_k, gradients.d_v);

  using Queries = sm80::QueryLayout<HeadDim>;
  Index const query_tiles = divide_up(most_queries(keys), Queries::kQueryTile);
  launch(context, verb,
         {attention_grid(query_tiles * arguments.num_heads * arguments.num_sequences, verb), Queries::kThreads,
          Queries::kBytes},
         &sm80::attention_queries<HeadDim>, arguments, gradients.d_out, statistics, gradients.d_q);
}

/// The kernels of an architecture; every later one also runs those of Sm80.
template <class Arch, int HeadDim>
void attention_backward_on_tensor_cores(Context const& context, AttentionArguments<bfloat16> const& arguments,
                                        AttentionGradients<bfloat16> const& gradients, KeyList const& keys) {
  static_assert(Arch::capability >= Sm80::capability);
  attention_backward_sm80_launch<HeadDim>(context, arguments, gradients, keys);
}

}  // namespace detail

/// Overwrites d_q, adds to d_k and d_v of the keys that some row sees; the key lists of two sequences must not overlap.
/// Floor: 10 head_dim FLOPs for each (query, visible key, head). Two passes over the scores, one for d_q and one for
/// d_k and d_v, so that every sum has one order; on tensor cores where `attention` would be.
template <class Arch, class T>
void attention_backward(Context const& context, View<T const> q, View<T const> k, View<T const> v, KeyList const& keys,
                        AttentionShape const& shape, View<T const> out, View<float const> lse, View<T const> d_out,
                        View<T> d_q, View<T> d_k, View<T> d_v) {
  detail::check_attention(shape, "attention_backward");
  require(keys.page_size == 0, "keys in pages have no gradient", "attention_backward");
  if (keys.num_queries == 0) return;
  auto const arguments = detail::attention_arguments<T>(q, k, v, keys, shape);
  AttentionGradients<T> const gradients{out, lse, d_out, d_q, d_k, d_v};
  View<T const> const d_queries = d_q, d_keys = d_k, d_values = d_v;
  if constexpr (std::is_same_v<T, bfloat16>) {
    if (detail::fits_tensor_cores(shape, q, k, v, out, d_out, d_queries, d_keys, d_values)) {
      if constexpr (std::is_same_v<Arch, Sm90>) {
        if (attention_sm90_supports(shape, q, k, v, out, d_out, d_queries, d_keys, d_values)) {
          return attention_backward_sm90(context, q, k, v, keys, shape, out, lse, d_out, d_q, d_k, d_v);
        }
      }
      if (shape.head_dim == 64) {
        return detail::attention_backward_on_tensor_cores<Arch, 64>(context, arguments, gradients, keys);
      }
      return detail::attention_backward_on_tensor_cores<Arch, 128>(context, arguments, gradients, keys);
    }
  }
  detail::AttentionGeneralBackwardLaunch<T> const launcher{context, arguments, gradients, keys.max_limit};
  detail::with_row_slice<T>(shape.head_dim, can_pack(q, k, v, out, d_out, d_queries, d_keys, d_values), launcher);
}

}  // namespace mor::cuda
