// SPDX-License-Identifier: Apache-2.0
/// @file
/// What forward and backward attention share: how queries are cut into blocks, and the products of a block with a
/// tile of keys.
///
/// A block is some consecutive queries of one sequence times all query heads of one key/value head, stacked as rows
/// (query major), so that grouped heads share each read of a key. Tiles of keys start at multiples of the tile size from
/// the sequence's first key, whatever the queries are and wherever the keys lie: a query gives the same bits alone and in
/// a whole prompt, over neighbouring keys and over pages of any size.
#pragma once

#include "mor/backend/host/context.hpp"
#include "mor/backend/host/micro_kernel.hpp"
#include "mor/backend/host/packing.hpp"
#include "mor/backend/host/vector_math.hpp"
#include "mor/core/active_set.hpp"
#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <algorithm>

namespace mor::host::detail {

/// Keys in a tile and rows in a block: multiples of both sides of a register tile.
inline constexpr Index kKeyTile = 96;
inline constexpr Index kBlockRows = 96;

/// Sizes that an attention's parts agree on.
template <class T>
struct AttentionSizes {
  Index group;          ///< query heads per key/value head
  Index head_dim;
  Index padded_dim;     ///< head_dim in whole register tiles
  Index block_queries;
  Index block_rows;     ///< block_queries * group in whole panels

  explicit AttentionSizes(AttentionShape const& shape)
      : group(shape.num_kv_heads > 0 ? shape.num_heads / shape.num_kv_heads : 0),
        head_dim(shape.head_dim),
        padded_dim(round_up(shape.head_dim, TileShape<T>::cols)),
        block_queries(std::max<Index>(kBlockRows / std::max<Index>(group, 1), 1)),
        block_rows(round_up(block_queries * group, TileShape<T>::rows)) {
    if (shape.num_kv_heads <= 0 || shape.num_heads % shape.num_kv_heads != 0 || shape.head_dim <= 0) {
      fail(ErrorCode::ShapeMismatch, "the heads do not form whole groups", "host::attention",
           "query heads a multiple of key/value heads, and a positive head dimension",
           text_of(shape.num_heads) + " / " + text_of(shape.num_kv_heads) + " heads of " + text_of(shape.head_dim));
    }
  }
};

/// A block of stacked query rows: row r is query `first_query + r / group`, head `first_head + r % group`.
struct QueryBlock {
  Index sequence = 0;
  Index kv_head = 0;
  Index first_query = 0;
  Index queries = 0;
  Index rows = 0;
  Index keys = 0;  ///< keys that any of its queries sees
};

template <class T>
[[nodiscard]] inline QueryBlock query_block(KeyList const& keys, AttentionSizes<T> const& sizes, Index sequence,
                                            Index kv_head, Index block) {
  auto const at = [](std::span<Row const> list, Index i) { return Index{list[static_cast<std::size_t>(i)]}; };
  QueryBlock result;
  result.sequence = sequence;
  result.kv_head = kv_head;
  result.first_query = at(keys.host_query_offsets, sequence) + block * sizes.block_queries;
  result.queries = std::min(sizes.block_queries, at(keys.host_query_offsets, sequence + 1) - result.first_query);
  result.rows = result.queries * sizes.group;
  for (Index i = 0; i < result.queries; ++i) result.keys = std::max(result.keys, at(keys.limits, result.first_query + i));
  return result;
}

/// Number of blocks of a sequence for one key/value head.
template <class T>
[[nodiscard]] inline Index count_blocks(KeyList const& keys, AttentionSizes<T> const& sizes, Index sequence) {
  auto const s = static_cast<std::size_t>(sequence);
  return divide_up(Index{keys.host_query_offsets[s + 1]} - keys.host_query_offsets[s], sizes.block_queries);
}

/// Copies a block's rows out of x [N, heads * head_dim], one after another, times `scale`.
template <class T>
inline void gather_block(View<T const> x, AttentionSizes<T> const& sizes, QueryBlock const& block, T scale, T* rows) {
  Index const width = sizes.group * sizes.head_dim;
  Pack<T> const factor(scale);
  for (Index i = 0; i < block.queries; ++i) {
    map(width, [&](Pack<T> value) { return value * factor; }, rows + i * width,
        x.row(block.first_query + i) + block.kv_head * width);
  }
}

/// The limit of each of a block's rows.
template <class T>
inline void gather_limits(KeyList const& keys, AttentionSizes<T> const& sizes, QueryBlock const& block, Index* limits) {
  for (Index i = 0; i < block.queries; ++i) {
    std::fill_n(limits + i * sizes.group, sizes.group, keys.limits[static_cast<std::size_t>(block.first_query + i)]);
  }
}

/// How many keys of a sequence from `first` on, at most `most`, are neighbours in the storage.
[[nodiscard]] inline Index count_neighbours(KeyList const& keys, Index sequence, Index first, Index most) {
  if (keys.page_size == 0) return most;
  Row const* page = keys.pages.data() + keys.key_begin[static_cast<std::size_t>(sequence)] + first / keys.page_size;
  Index count = keys.page_size - first % keys.page_size;
  for (; count < most && page[1] == page[0] + 1; ++page) count += keys.page_size;
  return std::min(count, most);
}

/// Neighbouring keys or values from key `first` of a sequence on, as an operand [key, head_dim].
template <class T>
[[nodiscard]] inline Operand<T> key_tile(View<T const> storage, KeyList const& keys, AttentionSizes<T> const& sizes,
                                         QueryBlock const& block, Index first) {
  return operand(storage).at(key_row(keys, block.sequence, first), block.kv_head * sizes.head_dim);
}

/// Copies keys or values in pages, `width` numbers each from the block's head on, one after another.
template <class T>
inline void copy_tile(View<T const> storage, KeyList const& keys, AttentionSizes<T> const& sizes, QueryBlock const& block,
                      Index first, Index count, Index width, T* copy) {
  for (Index end = first + count; first < end;) {
    Index const run = std::min(end - first, keys.page_size - first % keys.page_size);
    T const* from = storage.row(key_row(keys, block.sequence, first)) + block.kv_head * sizes.head_dim;
    for (Index i = 0; i < run; ++i, from += storage.stride) copy = std::copy_n(from, width, copy);
    first += run;
  }
}

/// How many keys of the tile at `first` any of some rows sees, at most `count`.
[[nodiscard]] inline Index visible_keys(Index const* limits, Index rows, Index first, Index count) {
  return std::clamp<Index>(*std::max_element(limits, limits + rows) - first, 0, count);
}

}  // namespace mor::host::detail
