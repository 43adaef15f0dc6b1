// SPDX-License-Identifier: Apache-2.0
/// @file
/// Forward attention on the host: scores of a block of queries with one tile of keys at a time, and an online softmax
/// (Dao et al., "FlashAttention", 2022). Nothing of size queries times keys is ever held.
#pragma once

#include "mor/backend/host/attention_block.hpp"
#include "mor/backend/host/context.hpp"
#include "mor/backend/host/parallel.hpp"
#include "mor/backend/host/vector_math.hpp"
#include "mor/math/softmax.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

namespace mor::host {

namespace detail {

/// One thread's work on forward attention, and its scratch memory.
template <class T>
class AttentionForward {
 public:
  AttentionForward(AttentionSizes<T> const& sizes, T scale, T* memory) : sizes_(sizes), scale_(scale) {
    auto const take = [&memory](Index count) { return std::exchange(memory, memory + round_up(count, 64)); };
    rows_ = take(sizes.block_rows * sizes.head_dim);
    packed_queries_ = take(sizes.block_rows * sizes.head_dim);
    packed_keys_ = take(sizes.head_dim * kKeyTile);
    packed_values_ = take(kKeyTile * sizes.padded_dim);
    scores_ = take(TileShape<T>::rows * kKeyTile);
    packed_scores_ = take(TileShape<T>::rows * kKeyTile);
    sums_ = take(sizes.block_rows * sizes.padded_dim);
    maxima_ = take(sizes.block_rows);
    totals_ = take(sizes.block_rows);
  }
  [[nodiscard]] static Index scratch_elements(AttentionSizes<T> const& sizes) {
    return 2 * round_up(sizes.block_rows * sizes.head_dim, 64) + round_up(sizes.head_dim * kKeyTile, 64) +
           round_up(kKeyTile * sizes.padded_dim, 64) + 2 * round_up(TileShape<T>::rows * kKeyTile, 64) +
           round_up(sizes.block_rows * sizes.padded_dim, 64) + 2 * round_up(sizes.block_rows, 64);
  }

  void run(View<T const> q, View<T const> k, View<T const> v, KeyList const& keys, QueryBlock const& block, View<T> out,
           View<T> lse) {
    gather_block(q, sizes_, block, rows_);
    pack_left(Operand<T>{rows_, sizes_.head_dim, 1}, block.rows, sizes_.head_dim, packed_queries_);
    std::fill(sums_, sums_ + block.rows * sizes_.padded_dim, T(0));
    std::fill(maxima_, maxima_ + block.rows, -std::numeric_limits<T>::infinity());
    std::fill(totals_, totals_ + block.rows, T(0));
    for (Index first = 0; first < block.keys; first += kKeyTile) {
      Index const count = std::min(kKeyTile, block.keys - first);
      pack_right(key_tile(k, keys, sizes_, block, first).transposed(), count, sizes_.head_dim, packed_keys_);
      pack_right(key_tile(v, keys, sizes_, block, first), sizes_.head_dim, count, packed_values_);
      for (Index row = 0; row < block.rows; row += TileShape<T>::rows) {
        Index const height = std::min(TileShape<T>::rows, block.rows - row);
        Index seen = 0;
        for (Index i = 0; i < height; ++i) {
          seen = std::max(seen, visible_keys(keys, sizes_, block, row + i, first, count));
        }
        if (seen > 0) add_tile(keys, block, row, height, first, count, seen);
      }
    }
    write(block, out, lse);
  }

 private:
  /// Adds the first `seen` keys of a tile to a panel of rows.
  void add_tile(KeyList const& keys, QueryBlock const& block, Index row, Index height, Index first, Index count,
                Index seen) {
    constexpr Index cols = TileShape<T>::cols;
    T const* const queries = packed_queries_ + row * sizes_.head_dim;
    T corrections[TileShape<T>::rows];
    Tile<T> tile;
    for (Index j = 0; j < seen; j += cols) {
      multiply_panels(height, sizes_.head_dim, queries, packed_keys_ + j * sizes_.head_dim, cols, tile);
      Pack<T> const scale(scale_);
      for (Index i = 0; i < height; ++i) {
        T* const to = scores_ + i * kKeyTile + j;
        store(to, scale * load(static_cast<T const*>(tile.values[i])));
        store(to + Pack<T>::size, scale * load(static_cast<T const*>(tile.values[i]) + Pack<T>::size));
      }
    }
    for (Index i = 0; i < height; ++i) {
      Index const visible = visible_keys(keys, sizes_, block, row + i, first, count);
      corrections[i] = softmax_row(row + i, visible, scores_ + i * kKeyTile);
      std::fill(scores_ + i * kKeyTile + visible, scores_ + i * kKeyTile + seen, T(0));
    }
    pack_left(Operand<T>{scores_, kKeyTile, 1}, height, seen, packed_scores_);
    for (Index e = 0; e < sizes_.padded_dim; e += cols) {
      multiply_panels(height, seen, packed_scores_, packed_values_ + e * count, cols, tile);
      for (Index i = 0; i < height; ++i) {
        T* const to = sums_ + (row + i) * sizes_.padded_dim + e;
        Pack<T> const correction(corrections[i]);
        for (Index part = 0; part < cols; part += Pack<T>::size) {
          store(to + part, multiply_add(correction, load(static_cast<T const*>(to + part)),
                                        load(static_cast<T const*>(tile.values[i]) + part)));
        }
      }
    }
  }

  /// Turns a row's visible scores into exp(score - maximum), updates its maximum and total, and returns the factor for
  /// what was summed before.
  T softmax_row(Index row, Index visible, T* scores) {
    if (visible == 0) return T(1);
    T const highest = std::max(maxima_[row], maximum(visible, static_cast<T const*>(scores)));
    // Scores that are all -infinity would give NaN; with any finite offset they give zeros.
    T const offset = highest == -std::numeric_limits<T>::infinity() ? T(0) : highest;
    T const correction = math::softmax_rescale(maxima_[row], offset);
    totals_[row] = totals_[row] * correction + exp_and_sum(visible, offset, scores);
    maxima_[row] = highest;
    return correction;
  }

  void write(QueryBlock const& block, View<T> out, View<T> lse) {
    for (Index row = 0; row < block.rows; ++row) {
      Index const query = block.first_query + row / sizes_.group;
      Index const head = block.kv_head * sizes_.group + row % sizes_.group;
      Pack<T> const factor(totals_[row] == T(0) ? T(0) : T(1) / totals_[row]);
      map(sizes_.head_dim, [&](Pack<T> sum) { return sum * factor; }, out.row(query) + head * sizes_.head_dim,
          static_cast<T const*>(sums_ + row * sizes_.padded_dim));
      lse(query, head) = math::log_sum_exp(math::SoftmaxState<T>{maxima_[row], totals_[row]});
    }
  }

  AttentionSizes<T> sizes_;
  T scale_;
  T *rows_, *packed_queries_, *packed_keys_, *packed_values_, *scores_, *packed_scores_, *sums_, *maxima_, *totals_;
};

}  // namespace detail

/// out [N, H*E] and lse [N, H] of row-limited attention; see `BackendAttention`.
template <class T>
inline void attention(Context context, View<T const> q, View<T const> k, View<T const> v, KeyList const& keys,
                      AttentionShape const& shape, View<T> out, View<T> lse) {
  if (keys.num_queries == 0) return;
  detail::AttentionSizes<T> const sizes(shape);
  Scratch scratch(context);
  // first_item[s] is the number of blocks before sequence s, so that an item's sequence is found by bisection.
  Index* const first_item = scratch.take<Index>(keys.num_sequences + 1);
  first_item[0] = 0;
  for (Index s = 0; s < keys.num_sequences; ++s) {
    first_item[s + 1] = first_item[s] + detail::count_blocks(keys, sizes, s) * shape.num_kv_heads;
  }
  Index const items = first_item[keys.num_sequences];
  Index const elements = detail::AttentionForward<T>::scratch_elements(sizes);
  T* const memory = scratch.take<T>(elements * context.threads);
  // A few thousand multiplications are done sooner than another thread starts.
  bool const small = keys.num_queries * keys.max_limit * shape.num_heads * shape.head_dim < 16384;
  parallel_items(small ? 1 : context.threads, items, [&](Index reversed, int thread) {
    Index const item = items - 1 - reversed;  // late blocks see the most keys: they start first
    Index const s = std::upper_bound(first_item, first_item + keys.num_sequences + 1, item) - first_item - 1;
    Index const local = item - first_item[s];
    auto const block = detail::query_block(keys, sizes, s, local % shape.num_kv_heads, local / shape.num_kv_heads);
    detail::AttentionForward<T> worker(sizes, static_cast<T>(shape.scale), memory + elements * thread);
    worker.run(q, k, v, keys, block, out, lse);
  });
}

/// limits[i] as `BackendAttention` defines them: rank in the set where `rows` is empty, else rank in the batch.
inline void causal_limits(std::span<Row const> set_offsets, std::span<Row const> rows, std::span<Row const> batch_offsets,
                          std::span<Row const> base, std::span<Row> limits) {
  for (std::size_t s = 0; s + 1 < set_offsets.size(); ++s) {
    Row const before = base.empty() ? 0 : base[s];
    for (Row i = set_offsets[s]; i < set_offsets[s + 1]; ++i) {
      auto const at = static_cast<std::size_t>(i);
      limits[at] = before + 1 + (rows.empty() ? i - set_offsets[s] : rows[at] - batch_offsets[s]);
    }
  }
}

/// storage[key_begin[s] + limits[i] - 1] = x[i]; a row with limit 0 has no place and is left out.
template <class T>
inline void write_keys(Context context, View<T const> x, KeyList const& keys, View<T> storage) {
  for (Index s = 0; s < keys.num_sequences; ++s) {
    auto const sequence = static_cast<std::size_t>(s);
    Index const begin = keys.query_offsets[sequence];
    parallel_rows(context.threads, keys.query_offsets[sequence + 1] - begin, x.cols, [&](Index i) {
      Index const limit = keys.limits[static_cast<std::size_t>(begin + i)];
      if (limit > 0) std::copy(x.row(begin + i), x.row(begin + i) + x.cols, storage.row(keys.key_begin[sequence] + limit - 1));
    });
  }
}

}  // namespace mor::host
