// SPDX-License-Identifier: Apache-2.0
/// @file
/// Forward attention.
#pragma once

#include "mor/backend/cuda/kernels/attention_general.cuh"
#include "mor/backend/cuda/kernels/attention_sm80.cuh"
#include "mor/backend/cuda/ops/attention_paged.cuh"
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

/// Launches the kernel for any shape.
template <class T>
struct AttentionGeneralLaunch {
  Context const& context;
  AttentionArguments<T> const& arguments;
  View<T> out;
  View<float> lse;
  bool share_rows;

  template <class Slice>
  void run() const {
    using Sizes = tuning::AttentionGeneral;
    Index const items = arguments.q.rows * arguments.num_heads;
    Index const blocks = share_rows ? items : divide_up(items, Sizes::warps);
    auto* const kernel = share_rows ? &attention_general<T, Slice, Sizes::warps> : &attention_general<T, Slice, 1>;
    launch(context, "attention", {attention_grid(blocks, "attention"), Sizes::threads, 0}, kernel, arguments, out, lse);
  }
};

template <int HeadDim>
void attention_sm80_launch(Context const& context, AttentionArguments<bfloat16> const& arguments, Index most_queries,
                           View<bfloat16> out, View<float> lse) {
  using Layout = sm80::ForwardLayout<HeadDim>;
  Index const tiles = divide_up(most_queries, Layout::kQueryTile);
  dim3 const grid = attention_grid(tiles * arguments.num_heads * arguments.num_sequences, "attention");
  launch(context, "attention", {grid, Layout::kThreads, Layout::kBytes}, &sm80::attention_forward<HeadDim>, arguments,
         out, lse);
}

/// The kernels of an architecture; every later one also runs those of Sm80.
template <class Arch, int HeadDim>
void attention_on_tensor_cores(Context const& context, AttentionArguments<bfloat16> const& arguments,
                               Index most_queries, View<bfloat16> out, View<float> lse) {
  static_assert(Arch::capability >= Sm80::capability);
  attention_sm80_launch<HeadDim>(context, arguments, most_queries, out, lse);
}

}  // namespace detail

/// out and lse of row-limited attention. Floor: 4 head_dim FLOPs for each (query, visible key, head). Head dimensions
/// 64 and 128 in bf16 with 16-byte alignment run on tensor cores; everything else, and batches in which every sequence
/// has a few rows (decoding, where reading the keys is the floor), with a warp or a block a row.
template <class Arch, class T>
void attention(Context const& context, View<T const> q, View<T const> k, View<T const> v, KeyList const& keys,
               AttentionShape const& shape, View<T> out, View<float> lse) {
  detail::check_attention(shape, "attention");
  if (keys.num_queries == 0) return;
  if (keys.page_size > 0) return attention_paged<Arch, T>(context, q, k, v, keys, shape, out, lse);
  auto const arguments = detail::attention_arguments<T>(q, k, v, keys, shape);
  Index const most_queries = detail::most_queries(keys);
  if constexpr (std::is_same_v<T, bfloat16>) {
    if (most_queries >= tuning::kAttentionFewestRows && detail::fits_tensor_cores(shape, q, k, v, View<T const>(out))) {
      if constexpr (std::is_same_v<Arch, Sm90>) {
        if (attention_sm90_supports(shape, q, k, v, View<T const>(out))) {
          return attention_sm90(context, q, k, v, keys, shape, out, lse);
        }
      }
      if (shape.head_dim == 64) {
        return detail::attention_on_tensor_cores<Arch, 64>(context, arguments, most_queries, out, lse);
      }
      return detail::attention_on_tensor_cores<Arch, 128>(context, arguments, most_queries, out, lse);
    }
  }
  using Sizes = tuning::AttentionGeneral;
  bool const share_rows = most_queries <= Sizes::few_rows && keys.max_limit >= Sizes::many_keys;
  detail::AttentionGeneralLaunch<T> const launcher{context, arguments, out, lse, share_rows};
  detail::with_row_slice<T>(shape.head_dim, can_pack(q, k, v, View<T const>(out)), launcher);
}

}  // namespace mor::cuda
