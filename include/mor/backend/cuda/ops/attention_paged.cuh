// SPDX-License-Identifier: Apache-2.0
/// @file
/// Forward attention over keys in pages.
#pragma once

#include "mor/backend/cuda/kernels/attention_paged.cuh"
#include "mor/backend/cuda/ops/attention_decode.cuh"
#include "mor/backend/cuda/ops/attention_problem.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/tuning/architecture.hpp"
#include "mor/backend/cuda/tuning/attention.hpp"
#include "mor/backend/cuda/tuning/scratch.hpp"
#include "mor/core/active_set.hpp"
#include "mor/core/view.hpp"

#include <type_traits>

namespace mor::cuda {

namespace detail {

template <class T>
struct AttentionPagedLaunch {
  Context const& context;
  PagedArguments<T> const& paged;
  AttentionParts const& parts;
  View<T> out;
  View<float> lse;

  template <class Slice>
  void run() const {
    // A row that is read element by element has no lanes to spare for several heads.
    if constexpr (!Slice::kPacked) {
      launch_with<Slice, 1>();
    } else if (paged.attention.group == 1) {
      launch_with<Slice, 1>();
    } else {
      launch_with<Slice, tuning::AttentionPaged::packed_heads>();
    }
  }

 private:
  template <class Slice, int Heads>
  void launch_with() const {
    auto const& arguments = paged.attention;
    Index const packs = divide_up(arguments.group, Heads);
    dim3 grid = attention_grid(arguments.q.rows * arguments.num_kv_heads * packs, "attention");
    grid.y = static_cast<unsigned>(parts.count);
    launch(context, "attention", {grid, tuning::AttentionPaged::threads, 0}, &cuda::attention_paged<T, Slice, Heads>, paged,
           parts, out, lse);
  }
};

}  // namespace detail

/// out and lse of attention over pages: the decoding kernel for Hopper where it can, else kernels/attention_paged.cuh. Floor:
/// each visible key and value of a row once, 2 * num_kv_heads * head_dim elements a key.
template <class Arch, class T>
void attention_paged(Context const& context, View<T const> q, View<T const> k, View<T const> v, KeyList const& keys,
                     AttentionShape const& shape, View<T> out, View<float> lse) {
  PagedArguments<T> const paged{detail::attention_arguments<T>(q, k, v, keys, shape),
                                {keys.pages.data(), static_cast<int>(keys.page_size)},
                                keys.num_sequences == keys.num_queries && detail::most_queries(keys) == 1};
  if constexpr (std::is_same_v<Arch, Sm90> && std::is_same_v<T, bfloat16>) {
    if (tuning::attention_decodes(shape.head_dim, keys.page_size) &&
        detail::fits_tensor_cores(shape, q, k, v, View<T const>(out))) {
      return attention_decode(context, paged, keys.max_limit, out, lse);
    }
  }
  Scratch scratch(context);
  AttentionParts parts;
  tuning::AttentionPagedScratch const sizes(keys.num_queries, shape.num_heads, shape.head_dim, keys.max_limit);
  parts.count = static_cast<int>(sizes.parts);
  if (parts.count > 1) {
    parts.sums = scratch.take<float>(sizes.sums);
    parts.state = scratch.take<float2>(sizes.slots);
  }
  detail::AttentionPagedLaunch<T> const launcher{context, paged, parts, out, lse};
  detail::with_row_slice<T>(shape.head_dim, can_pack(q, k, v, View<T const>(out)), launcher);
  if (parts.count == 1) return;
  launch(context, "attention", {detail::attention_grid(keys.num_queries * shape.num_heads, "attention"),
                                static_cast<int>(divide_up(shape.head_dim, 32) * 32), 0},
         &join_attention_parts<T>, keys.limits.data(), static_cast<int>(shape.num_heads), static_cast<int>(shape.head_dim),
         parts, out, lse);
}

}  // namespace mor::cuda
