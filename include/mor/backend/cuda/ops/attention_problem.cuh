// SPDX-License-Identifier: Apache-2.0
/// @file
/// What the attention verbs share on the host: checks, the kernels' arguments, sizes of grids, and the choice of
/// kernels.
#pragma once

#include "mor/backend/cuda/kernels/attention_arguments.cuh"
#include "mor/backend/cuda/kernels/attention_general.cuh"
#include "mor/backend/cuda/ops/alignment.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/tuning/attention.hpp"
#include "mor/core/active_set.hpp"
#include "mor/core/dtype.hpp"
#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <algorithm>
#include <limits>
#include <string>
#include <type_traits>

namespace mor::cuda::detail {

/// Throws where the heads do not form groups, or are larger than the kernels can hold.
inline void check_attention(AttentionShape const& shape, char const* verb) {
  bool const grouped = shape.num_kv_heads > 0 && shape.num_heads > 0 && shape.num_heads % shape.num_kv_heads == 0;
  if (!grouped || shape.head_dim <= 0) {
    fail(ErrorCode::ShapeMismatch, "the heads do not form whole groups", verb,
         "query heads a multiple of key/value heads, and a positive head dimension",
         text_of(shape.num_heads) + " / " + text_of(shape.num_kv_heads) + " heads of " + text_of(shape.head_dim));
  }
  constexpr Index most = tuning::AttentionGeneral::max_head_dim;
  if (shape.head_dim > most) {
    fail(ErrorCode::Unsupported, "the head dimension is larger than the kernels hold", verb, "at most " + text_of(most),
         text_of(shape.head_dim));
  }
}

template <class T>
[[nodiscard]] AttentionArguments<T> attention_arguments(View<T const> q, View<T const> k, View<T const> v,
                                                        KeyList const& keys, AttentionShape const& shape) {
  AttentionArguments<T> arguments;
  arguments.q = q;
  arguments.k = k;
  arguments.v = v;
  arguments.q.rows = keys.num_queries;
  arguments.query_offsets = keys.query_offsets.data();
  arguments.key_begin = keys.key_begin.data();
  arguments.limits = keys.limits.data();
  arguments.num_sequences = static_cast<int>(keys.num_sequences);
  arguments.num_heads = static_cast<int>(shape.num_heads);
  arguments.num_kv_heads = static_cast<int>(shape.num_kv_heads);
  arguments.group = static_cast<int>(shape.num_heads / shape.num_kv_heads);
  arguments.head_dim = static_cast<int>(shape.head_dim);
  arguments.scale = static_cast<float>(shape.scale);
  return arguments;
}

/// The largest number of query rows of a sequence.
[[nodiscard]] inline Index most_queries(KeyList const& keys) {
  Index most = 0;
  for (std::size_t s = 0; s + 1 < keys.host_query_offsets.size(); ++s) {
    most = std::max(most, Index{keys.host_query_offsets[s + 1]} - keys.host_query_offsets[s]);
  }
  return most;
}

/// Blocks of a one-dimensional grid.
[[nodiscard]] inline dim3 attention_grid(Index blocks, char const* verb) {
  constexpr Index most = std::numeric_limits<int>::max();
  if (blocks > most) {
    fail(ErrorCode::Unsupported, "the batch is too large for one launch", verb, "at most " + text_of(most) + " blocks",
         text_of(blocks));
  }
  return dim3(static_cast<unsigned>(blocks));
}

/// Whether the tensor-core kernels can take these operands.
template <class T, class... More>
[[nodiscard]] bool fits_tensor_cores(AttentionShape const& shape, View<T const> first, View<More const>... more) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    // A positive scale lets kernels look for the largest score before they scale it.
    return tuning::attention_on_tensor_cores(shape.head_dim) && shape.scale > 0.0 && can_pack(first, more...);
  } else {
    return false;
  }
}

/// Calls `launcher.run<Slice>()` with the way in which the general kernels hold a row.
template <class T, class Launcher>
void with_row_slice(Index head_dim, bool packed, Launcher const& launcher) {
  constexpr int kPack = kPackSize<T>;
  if (packed && head_dim == 8 * kPack) {
    launcher.template run<RowSlice<T, 8, kPack, true>>();
  } else if (packed && head_dim == 16 * kPack) {
    launcher.template run<RowSlice<T, 16, kPack, true>>();
  } else if (packed && head_dim == 32 * kPack) {
    launcher.template run<RowSlice<T, 32, kPack, true>>();
  } else if (head_dim <= 2 * kWarpSize) {
    launcher.template run<RowSlice<T, kWarpSize, 2, false>>();
  } else {
    static_assert(tuning::AttentionGeneral::max_head_dim == 8 * kWarpSize);
    launcher.template run<RowSlice<T, kWarpSize, 8, false>>();
  }
}

}  // namespace mor::cuda::detail
