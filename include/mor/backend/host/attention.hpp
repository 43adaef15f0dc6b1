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
#include <utility>

namespace mor::host {

namespace detail {

/// One thread's work on forward attention, and its scratch memory.
///
/// A panel of rows meets a tile of keys in three steps. Scores are computed row by row and turned to key-major order,
/// one lane a row; the softmax then works on all rows of the panel at once; and what it leaves is already the left
/// operand of the product with the values.
template <class T>
class AttentionForward {
 public:
  AttentionForward(AttentionSizes<T> const& sizes, T scale, T* memory) : sizes_(sizes), scale_(scale) {
    auto const take = [&memory](Index count) { return std::exchange(memory, memory + round_up(count, 64)); };
    rows_ = take(sizes.block_rows * sizes.head_dim);
    packed_queries_ = take(sizes.block_rows * sizes.head_dim);
    packed_keys_ = take(sizes.head_dim * kKeyTile);
    packed_values_ = take(kKeyTile * sizes.padded_dim);
    scores_ = take(kLanes * kKeyTile);
    sums_ = take(sizes.block_rows * sizes.padded_dim);
    maxima_ = take(sizes.block_rows / kPanel * kLanes);
    totals_ = take(sizes.block_rows / kPanel * kLanes);
    limits_ = reinterpret_cast<Index*>(take(sizes.block_rows * kIndexElements));
  }
  [[nodiscard]] static Index scratch_elements(AttentionSizes<T> const& sizes) {
    return 2 * round_up(sizes.block_rows * sizes.head_dim, 64) + round_up(sizes.head_dim * kKeyTile, 64) +
           round_up(kKeyTile * sizes.padded_dim, 64) + round_up(kLanes * kKeyTile, 64) +
           round_up(sizes.block_rows * sizes.padded_dim, 64) + 2 * round_up(sizes.block_rows / kPanel * kLanes, 64) +
           round_up(sizes.block_rows * kIndexElements, 64);
  }

  void run(View<T const> q, View<T const> k, View<T const> v, KeyList const& keys, QueryBlock const& block, View<T> out,
           View<T> lse) {
    gather_block(q, sizes_, block, scale_, rows_);
    gather_limits(keys, sizes_, block, limits_);
    pack_left(Operand<T>{rows_, sizes_.head_dim, 1}, block.rows, sizes_.head_dim, packed_queries_);
    Index const lanes = divide_up(block.rows, kPanel) * kLanes;
    std::fill(sums_, sums_ + block.rows * sizes_.padded_dim, T(0));
    std::fill(maxima_, maxima_ + lanes, -std::numeric_limits<T>::infinity());
    std::fill(totals_, totals_ + lanes, T(0));
    for (Index first = 0; first < block.keys; first += kKeyTile) {
      Index const count = std::min(kKeyTile, block.keys - first);
      prepare_tile(key_tile(k, keys, sizes_, block, first), key_tile(v, keys, sizes_, block, first), count,
                   block.rows <= kPanel ? block.keys - first - kKeyTile : 0);
      for (Index row = 0; row < block.rows; row += kPanel) {
        Index const height = std::min(kPanel, block.rows - row);
        Index const seen = visible_keys(limits_ + row, height, first, count);
        if (seen > 0) add_tile(row, height, first, seen);
      }
    }
    write(block, out, lse);
  }

 private:
  static constexpr Index kPanel = TileShape<T>::rows;
  static constexpr Index kLanes = Tile<T>::padded_rows;  ///< a panel's rows in whole packs
  static constexpr Index kIndexElements = static_cast<Index>(sizeof(Index) / sizeof(T));

  /// Packs the keys and values of a tile. With a single panel of rows, values are used once and are read where they are
  /// if they fill register tiles; the time then goes into waiting for memory, and the next tile (`ahead` more keys) is
  /// called for while this one is packed.
  void prepare_tile(Operand<T> k, Operand<T> v, Index count, Index ahead) {
    constexpr Index cols = TileShape<T>::cols;
    for (Index j = 0; j < count; j += cols) {
      for (Index i = j; i < std::min(j + cols, ahead); ++i) {
        prefetch_row(k.at(kKeyTile + i, 0).data);
        prefetch_row(v.at(kKeyTile + i, 0).data);
      }
      pack_right(k.at(j, 0).transposed(), std::min(cols, count - j), sizes_.head_dim, packed_keys_ + j * sizes_.head_dim);
    }
    if (ahead > 0 && sizes_.head_dim == sizes_.padded_dim) {
      values_ = v.data;
      values_stride_ = v.row_stride;
      values_step_ = 1;
      return;
    }
    pack_right(v, sizes_.head_dim, count, packed_values_);
    values_ = packed_values_;
    values_stride_ = cols;
    values_step_ = count;
  }

  void prefetch_row(T const* row) const {
    for (Index e = 0; e < sizes_.head_dim; e += 64 / static_cast<Index>(sizeof(T))) __builtin_prefetch(row + e);
  }

  /// Adds the first `seen` keys of the tile at `first` to a panel of rows.
  void add_tile(Index row, Index height, Index first, Index seen) {
    constexpr Index cols = TileShape<T>::cols;
    Tile<T> tile{};  // rows that no product fills are transposed with the others
    for (Index j = 0; j < seen; j += cols) {
      multiply_panels(height, sizes_.head_dim, packed_queries_ + row * sizes_.head_dim, packed_keys_ + j * sizes_.head_dim,
                      cols, tile);
      pack_rows<kLanes, true>(static_cast<T const*>(tile.values[0]), cols, kLanes, cols, scores_ + j * kLanes);
    }
    T corrections[kLanes];
    for (Index lane = 0; lane < kLanes; lane += Pack<T>::size) {
      softmax(row, std::min(height - lane, Pack<T>::size), lane, first, seen, corrections + lane);
    }
    for (Index e = 0; e < sizes_.padded_dim; e += cols) {
      multiply_panels_apart<kLanes>(height, seen, static_cast<T const*>(scores_), values_ + e * values_step_, values_stride_,
                                    tile);
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

  /// Turns the scores of one pack of rows into exp(score - maximum), updates the rows' maxima and totals, and stores the
  /// factors for what was summed before. Keys that a row does not see become zeros.
  void softmax(Index row, Index rows, Index lane, Index first, Index seen, T* corrections) {
    T const lowest = -std::numeric_limits<T>::infinity();
    T* const maxima = maxima_ + row / kPanel * kLanes + lane;
    T* const totals = totals_ + row / kPanel * kLanes + lane;
    T visible[Pack<T>::size] = {};
    Index all = rows > 0 ? seen : 0;  // every row sees the keys before this one
    for (Index i = 0; i < rows; ++i) {
      Index const limit = std::clamp<Index>(limits_[row + lane + i] - first, 0, seen);
      visible[i] = static_cast<T>(limit);
      all = std::min(all, limit);
    }
    Pack<T> const limit = load(static_cast<T const*>(visible));
    Pack<T> const before = load(static_cast<T const*>(maxima));
    Pack<T> highest = before;
    for (Index key = 0; key < all; ++key) highest = larger(highest, load(static_cast<T const*>(scores_) + key * kLanes + lane));
    for (Index key = all; key < seen; ++key) {
      T* const at = scores_ + key * kLanes + lane;
      Pack<T> const score = select(limit.v > Pack<T>(key).v, load(static_cast<T const*>(at)), Pack<T>(lowest));
      store(at, score);
      highest = larger(highest, score);
    }
    // A row that has seen nothing has maximum -infinity, which no score can be compared with; 0 serves.
    Pack<T> const offset = select(highest.v == Pack<T>(lowest).v, Pack<T>(T(0)), highest);
    Pack<T> sum(T(0));
    for (Index key = 0; key < seen; ++key) {
      T* const at = scores_ + key * kLanes + lane;
      Pack<T> const weight = exp(load(static_cast<T const*>(at)) - offset);
      store(at, weight);
      sum += weight;
    }
    Pack<T> const correction = exp(before - offset);
    store(totals, multiply_add(load(static_cast<T const*>(totals)), correction, sum));
    store(maxima, highest);
    store(corrections, correction);
  }

  void write(QueryBlock const& block, View<T> out, View<T> lse) {
    for (Index row = 0; row < block.rows; ++row) {
      Index const query = block.first_query + row / sizes_.group;
      Index const head = block.kv_head * sizes_.group + row % sizes_.group;
      Index const lane = row / kPanel * kLanes + row % kPanel;
      Pack<T> const factor(totals_[lane] == T(0) ? T(0) : T(1) / totals_[lane]);
      map(sizes_.head_dim, [&](Pack<T> sum) { return sum * factor; }, out.row(query) + head * sizes_.head_dim,
          static_cast<T const*>(sums_ + row * sizes_.padded_dim));
      lse(query, head) = math::log_sum_exp(math::SoftmaxState<T>{maxima_[lane], totals_[lane]});
    }
  }

  AttentionSizes<T> sizes_;
  T scale_;
  T *rows_, *packed_queries_, *packed_keys_, *packed_values_, *scores_, *sums_, *maxima_, *totals_;
  Index* limits_;
  T const* values_ = nullptr;
  Index values_stride_ = 0;  ///< from one key to the next
  Index values_step_ = 0;    ///< from one column to the next, in whole register tiles
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
  bool const few_rows = keys.num_queries * keys.max_limit * shape.num_heads * shape.head_dim < 16384;
  parallel_items(few_rows ? 1 : context.threads, items, [&](Index reversed, int thread) {
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
