// SPDX-License-Identifier: Apache-2.0
/// @file
/// Backward attention on the host: probabilities are computed again from the scores and `lse`, tile by tile.
///
/// With q' = scale q, p = exp(q'.k - lse), dp = d_out.v and delta = d_out.out: ds = p (dp - delta), d_q = scale ds k,
/// d_k = ds^T q', d_v = p^T d_out. One thread does all of a (sequence, key/value head), whose keys no other touches, so
/// that every sum has one order.
#pragma once

#include "mor/backend/host/attention_block.hpp"
#include "mor/backend/host/context.hpp"
#include "mor/backend/host/parallel.hpp"
#include "mor/backend/host/rows.hpp"
#include "mor/backend/host/vector_math.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace mor::host {

namespace detail {

/// What backward attention reads and writes.
template <class T>
struct AttentionGradients {
  View<T const> q, k, v, out, lse, d_out;
  View<T> d_q, d_k, d_v;
};

/// One thread's work on backward attention, and its scratch memory.
template <class T>
class AttentionBackward {
 public:
  AttentionBackward(AttentionSizes<T> const& sizes, T scale, T* memory) : sizes_(sizes), scale_(scale) {
    auto const take = [&memory](Index count) { return std::exchange(memory, memory + round_up(count, 64)); };
    for (T** part : {&rows_, &queries_, &gradients_}) *part = take(sizes.block_rows * sizes.head_dim);
    for (T** part : {&right_queries_, &right_gradients_, &d_queries_}) *part = take(sizes.block_rows * sizes.padded_dim);
    for (T** part : {&keys_, &values_}) *part = take(sizes.head_dim * kKeyTile);
    right_keys_ = take(kKeyTile * sizes.padded_dim);
    for (T** part : {&probabilities_, &d_scores_}) *part = take(sizes.block_rows * kKeyTile);
    packed_ = take(std::max(kKeyTile, sizes.block_rows) * TileShape<T>::rows);
    for (T** part : {&lse_, &delta_}) *part = take(sizes.block_rows);
    limits_ = reinterpret_cast<Index*>(take(sizes.block_rows * kIndexElements));
  }
  [[nodiscard]] static Index scratch_elements(AttentionSizes<T> const& sizes) {
    return 3 * round_up(sizes.block_rows * sizes.head_dim, 64) + 3 * round_up(sizes.block_rows * sizes.padded_dim, 64) +
           2 * round_up(sizes.head_dim * kKeyTile, 64) + round_up(kKeyTile * sizes.padded_dim, 64) +
           2 * round_up(sizes.block_rows * kKeyTile, 64) +
           round_up(std::max(kKeyTile, sizes.block_rows) * TileShape<T>::rows, 64) + 2 * round_up(sizes.block_rows, 64) +
           round_up(sizes.block_rows * kIndexElements, 64);
  }

  void run(AttentionGradients<T> const& views, KeyList const& keys, QueryBlock const& block) {
    gather_limits(keys, sizes_, block, limits_);
    load_block(views, block);
    for (Index first = 0; first < block.keys; first += kKeyTile) {
      Index const count = std::min(kKeyTile, block.keys - first);
      Operand<T> const k = key_tile(views.k, keys, sizes_, block, first);
      pack_right(k.transposed(), count, sizes_.head_dim, keys_);
      pack_right(key_tile(views.v, keys, sizes_, block, first).transposed(), count, sizes_.head_dim, values_);
      pack_right(k, sizes_.head_dim, count, right_keys_);
      for (Index row = 0; row < block.rows; row += TileShape<T>::rows) {
        score_panel(row, std::min(TileShape<T>::rows, block.rows - row), first, count);
      }
      Index const key_row = keys.key_begin[static_cast<std::size_t>(block.sequence)] + first;
      View<T> const d_k = views.d_k.row_range(key_row, count).columns(block.kv_head * sizes_.head_dim, sizes_.head_dim);
      View<T> const d_v = views.d_v.row_range(key_row, count).columns(block.kv_head * sizes_.head_dim, sizes_.head_dim);
      add_to_keys(block, first, probabilities_, right_gradients_, d_v);
      add_to_keys(block, first, d_scores_, right_queries_, d_k);
    }
    Index const width = sizes_.group * sizes_.head_dim;
    for (Index row = 0; row < block.rows; ++row) {
      T* const to = views.d_q.row(block.first_query + row / sizes_.group) + block.kv_head * width;
      map(sizes_.head_dim, [&](Pack<T> sum) { return sum * Pack<T>(scale_); }, to + row % sizes_.group * sizes_.head_dim,
          static_cast<T const*>(d_queries_ + row * sizes_.padded_dim));
    }
  }

 private:
  static constexpr Index kIndexElements = static_cast<Index>(sizeof(Index) / sizeof(T));

  void load_block(AttentionGradients<T> const& views, QueryBlock const& block) {
    Index const dim = sizes_.head_dim;
    gather_block(views.out, sizes_, block, T(1), d_queries_);  // borrowed: only to take the products with d_out
    gather_block(views.d_out, sizes_, block, T(1), rows_);
    for (Index row = 0; row < block.rows; ++row) {
      delta_[row] = dot(dim, static_cast<T const*>(rows_ + row * dim), static_cast<T const*>(d_queries_ + row * dim));
      lse_[row] = views.lse(block.first_query + row / sizes_.group, block.kv_head * sizes_.group + row % sizes_.group);
    }
    pack_left(Operand<T>{rows_, dim, 1}, block.rows, dim, gradients_);
    pack_right(Operand<T>{rows_, dim, 1}, dim, block.rows, right_gradients_);
    gather_block(views.q, sizes_, block, scale_, rows_);
    pack_left(Operand<T>{rows_, dim, 1}, block.rows, dim, queries_);
    pack_right(Operand<T>{rows_, dim, 1}, dim, block.rows, right_queries_);
    std::fill(d_queries_, d_queries_ + block.rows * sizes_.padded_dim, T(0));
  }

  /// Probabilities and score gradients of a panel of rows with a tile of keys, and the panel's d_q.
  void score_panel(Index row, Index height, Index first, Index count) {
    constexpr Index cols = TileShape<T>::cols;
    Tile<T> scores, products;
    Index const seen = visible_keys(limits_ + row, height, first, count);
    for (Index i = 0; i < height; ++i) {
      std::fill_n(probabilities_ + (row + i) * kKeyTile + seen, kKeyTile - seen, T(0));
      std::fill_n(d_scores_ + (row + i) * kKeyTile + seen, kKeyTile - seen, T(0));
    }
    if (seen == 0) return;
    for (Index j = 0; j < seen; j += cols) {
      multiply_panels(height, sizes_.head_dim, queries_ + row * sizes_.head_dim, keys_ + j * sizes_.head_dim, cols, scores);
      multiply_panels(height, sizes_.head_dim, gradients_ + row * sizes_.head_dim, values_ + j * sizes_.head_dim, cols,
                      products);
      for (Index i = 0; i < height; ++i) {
        score_row(row + i, limits_[row + i] - first - j, scores.values[i], products.values[i], (row + i) * kKeyTile + j);
      }
    }
    pack_left(Operand<T>{d_scores_ + row * kKeyTile, kKeyTile, 1}, height, seen, packed_);
    for (Index e = 0; e < sizes_.padded_dim; e += cols) {
      multiply_panels(height, seen, packed_, right_keys_ + e * count, cols, scores);
      for (Index i = 0; i < height; ++i) {
        add_row(cols, static_cast<T const*>(scores.values[i]), d_queries_ + (row + i) * sizes_.padded_dim + e);
      }
    }
  }

  /// One row of a register tile: p and ds of its first `visible` keys, zeros for the rest.
  void score_row(Index row, Index visible, T const* scores, T const* products, Index offset) {
    Pack<T> const lse(lse_[row]), delta(delta_[row]);
    for (Index part = 0; part < TileShape<T>::cols; part += Pack<T>::size) {
      Index const count = std::clamp<Index>(visible - part, 0, Pack<T>::size);
      Pack<T> p = exp(load(scores + part) - lse);
      Pack<T> ds = p * (load(products + part) - delta);
      if (count < Pack<T>::size) {
        T lanes[Pack<T>::size] = {}, d_lanes[Pack<T>::size] = {};
        store_partial(lanes, count, p);
        store_partial(d_lanes, count, ds);
        p = load(static_cast<T const*>(lanes));
        ds = load(static_cast<T const*>(d_lanes));
      }
      store(probabilities_ + offset + part, p);
      store(d_scores_ + offset + part, ds);
    }
  }

  /// to [keys, head_dim] += scores^T right, over the block's rows. Rows before the first that sees a key are zeros.
  void add_to_keys(QueryBlock const& block, Index first, T const* scores, T const* right, View<T> to) {
    constexpr Index cols = TileShape<T>::cols;
    Tile<T> tile;
    Index begin = 0;
    for (Index key = 0; key < to.rows; key += TileShape<T>::rows) {
      Index const height = std::min(TileShape<T>::rows, to.rows - key);
      while (begin < block.rows && limits_[begin] - first <= key) ++begin;
      Index const depth = block.rows - begin;
      pack_left(Operand<T>{scores + begin * kKeyTile + key, 1, kKeyTile}, height, depth, packed_);
      for (Index e = 0; e < sizes_.head_dim; e += cols) {
        multiply_panels(height, depth, packed_, right + e * block.rows + begin * cols, cols, tile);
        for (Index i = 0; i < height; ++i) {
          add_row(std::min(cols, sizes_.head_dim - e), static_cast<T const*>(tile.values[i]), to.row(key + i) + e);
        }
      }
    }
  }

  AttentionSizes<T> sizes_;
  T scale_;
  T *rows_, *queries_, *gradients_, *right_queries_, *right_gradients_, *d_queries_, *keys_, *values_, *right_keys_;
  T *probabilities_, *d_scores_, *packed_, *lse_, *delta_;
  Index* limits_;
};

}  // namespace detail

/// Overwrites d_q, accumulates d_k and d_v. The key lists of two sequences must not overlap.
template <class T>
inline void attention_backward(Context context, detail::AttentionGradients<T> const& views, KeyList const& keys,
                               AttentionShape const& shape) {
  require(keys.page_size == 0, "keys in pages have no gradient", "attention_backward");
  if (keys.num_queries == 0) return;
  detail::AttentionSizes<T> const sizes(shape);
  Scratch scratch(context);
  Index const elements = detail::AttentionBackward<T>::scratch_elements(sizes);
  T* const memory = scratch.take<T>(elements * context.threads);
  bool const few_rows = keys.num_queries * keys.max_limit * shape.num_heads * shape.head_dim < 8192;
  parallel_items(few_rows ? 1 : context.threads, keys.num_sequences * shape.num_kv_heads, [&](Index item, int thread) {
    Index const sequence = item / shape.num_kv_heads, kv_head = item % shape.num_kv_heads;
    detail::AttentionBackward<T> worker(sizes, static_cast<T>(shape.scale), memory + elements * thread);
    for (Index block = 0; block < detail::count_blocks(keys, sizes, sequence); ++block) {
      worker.run(views, keys, detail::query_block(keys, sizes, sequence, kv_head, block));
    }
  });
}

}  // namespace mor::host
