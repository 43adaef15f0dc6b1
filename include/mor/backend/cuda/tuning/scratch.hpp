// SPDX-License-Identifier: Apache-2.0
/// @file
/// Scratch memory of operations: how many elements each takes, by shapes alone. The operations take what is said here,
/// and `cuda::ScratchSize` adds it up without running them. Plain C++.
#pragma once

#include "mor/backend/cuda/tuning/attention.hpp"
#include "mor/backend/cuda/tuning/attention_sm90.hpp"
#include "mor/backend/cuda/tuning/head.hpp"
#include "mor/backend/cuda/tuning/pointwise.hpp"
#include "mor/backend/cuda/tuning/routing.hpp"
#include "mor/core/memory.hpp"
#include "mor/core/types.hpp"

#include <algorithm>
#include <span>

namespace mor::cuda::tuning {

/// Arena bytes of `count` elements of T.
template <class T>
[[nodiscard]] constexpr Index room(Index count) {
  return mor::detail::aligned(count * static_cast<Index>(sizeof(T)));
}

[[nodiscard]] constexpr Index parts_of(Index count, Index size) { return (count + size - 1) / size; }

/// The embedding's gradient: the sort of the tokens, then a chunk's first and last sum.
template <class Tiles>
struct EmbedBackwardScratch {
  Index blocks;        ///< of the sort
  Index digit_counts;  ///< int
  Index tokens;        ///< of each of two lists of Token and two of Row
  Index chunks;
  Index partial;  ///< float

  constexpr EmbedBackwardScratch(Index count, Index cols)
      : blocks(parts_of(count, Index{kDigits} * Tiles::sort_items)),
        digit_counts(blocks * kDigits),
        tokens(count),
        chunks(parts_of(count, Tiles::chunk)),
        partial(2 * chunks * cols) {}
  [[nodiscard]] constexpr Index bytes() const {
    return room<int>(digit_counts) + 2 * room<Token>(tokens) + 2 * room<Row>(tokens) + room<float>(partial);
  }
};

/// Partial sums of a sum or a sum of squares: none where one block does it.
[[nodiscard]] constexpr Index sum_partials(Index count) {
  Index const parts = sum_parts(count);
  return parts > 1 ? parts : 0;
}

/// Blocks that share out the rows in the gradient of router logits; a number that depends on the shape alone.
struct LogitsBackwardScratch {
  Index blocks;
  Index partial;  ///< float

  constexpr LogitsBackwardScratch(Index rows, Index cols, Index outputs)
      : blocks(std::min<Index>(parts_of(rows, LogitsTiles::backward_rows), LogitsTiles::backward_groups)),
        partial(blocks * outputs * cols) {}
};

/// Sums of the routers' losses, in double.
template <class Tiles>
[[nodiscard]] constexpr Index router_bce_parts(Index candidates) {
  return parts_of(candidates, Index{Tiles::threads} * Tiles::items);
}
template <class Tiles>
[[nodiscard]] constexpr Index z_loss_parts(Index rows) {
  return parts_of(rows, Tiles::threads);
}
template <class Tiles>
[[nodiscard]] constexpr Index balance_parts(Index rows) {
  return parts_of(rows, Index{Tiles::threads} * Tiles::items);
}

/// What parts of long lists of keys in pages leave to be joined; nothing where no list is cut.
struct AttentionPagedScratch {
  Index parts;
  Index slots;  ///< a maximum and a sum, two floats each
  Index sums;   ///< float

  constexpr AttentionPagedScratch(Index queries, Index heads, Index head_dim, Index max_limit)
      : parts(attention_parts(max_limit)), slots(parts > 1 ? queries * heads * parts : 0), sums(slots * head_dim) {}
  [[nodiscard]] constexpr Index bytes() const { return room<float>(sums) + room<float>(2 * slots); }
};

/// Items of the Hopper attention kernels' list of queries: units of 64 queries of one head, `units` at a time, for each
/// key/value head.
struct QueryItemCount {
  Index items = 0;
  Index most = 0;  ///< of a sequence

  constexpr QueryItemCount(std::span<Row const> query_offsets, Index group, Index units) {
    for (std::size_t s = 0; s + 1 < query_offsets.size(); ++s) {
      Index const queries = Index{query_offsets[s + 1]} - query_offsets[s];
      Index const of_sequence = parts_of(parts_of(queries, kAttentionSm90TileRows) * group, units);
      items += of_sequence;
      most = std::max(most, of_sequence);
    }
  }
};

/// Work lists and statistics of a backward pass of those kernels.
struct AttentionSm90BackwardScratch {
  QueryItemCount query;
  Index key_tiles;  ///< of a sequence
  Index key_items;
  Index values;  ///< float, twice: a log-sum and a scalar product for each row and head

  constexpr AttentionSm90BackwardScratch(std::span<Row const> query_offsets, Index max_limit, Index heads,
                                         Index group, Index query_units, Index key_rows)
      : query(query_offsets, group, query_units),
        key_tiles(parts_of(max_limit, key_rows)),
        key_items(std::max<Index>(static_cast<Index>(query_offsets.size()) - 1, 0) * key_tiles),
        values(query_offsets.empty() ? 0 : Index{query_offsets.back()} * heads) {}
  [[nodiscard]] constexpr Index bytes() const {
    return mor::detail::aligned(query.items * kAttentionSm90ItemBytes) +
           mor::detail::aligned(key_items * kAttentionSm90ItemBytes) + room<int>(1) + 2 * room<float>(values);
  }
};

}  // namespace mor::cuda::tuning
