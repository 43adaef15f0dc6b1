// SPDX-License-Identifier: Apache-2.0
/// @file
/// One thread's part of forward attention on the host: scores of a block of queries with one tile of keys at a time, and
/// an online softmax (Dao et al., "FlashAttention", 2022). Nothing of size queries times keys is ever held.
#pragma once

#include "mor/backend/host/attention_block.hpp"
#include "mor/backend/host/context.hpp"
#include "mor/backend/host/vector_math.hpp"
#include "mor/math/softmax.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace mor::host::detail {

/// One thread's work on forward attention, and its scratch memory.
///
/// A panel of rows meets a tile of keys in three steps. Scores are computed row by row and turned to key-major order,
/// one lane a row; the softmax then works on all rows of the panel at once; and what it leaves is already the left
/// operand of the product with the values.
template <class T>
class AttentionForward {
 public:
  /// @param page_size  of the key list
  AttentionForward(AttentionSizes<T> const& sizes, T scale, Index page_size, T* memory) : sizes_(sizes), scale_(scale) {
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
    if (!copies_tiles(page_size)) return;
    for (T** copy : {&copied_keys_, &copied_values_}) *copy = take(copied_elements(sizes));
  }
  [[nodiscard]] static Index scratch_elements(AttentionSizes<T> const& sizes, Index page_size) {
    return 2 * round_up(sizes.block_rows * sizes.head_dim, 64) + round_up(sizes.head_dim * kKeyTile, 64) +
           round_up(kKeyTile * sizes.padded_dim, 64) + round_up(kLanes * kKeyTile, 64) +
           round_up(sizes.block_rows * sizes.padded_dim, 64) + 2 * round_up(sizes.block_rows / kPanel * kLanes, 64) +
           round_up(sizes.block_rows * kIndexElements, 64) +
           (copies_tiles(page_size) ? 2 * round_up(copied_elements(sizes), 64) : 0);
  }

  /// All of a block against one key/value head.
  void run(View<T const> q, View<T const> k, View<T const> v, KeyList const& keys, QueryBlock const& block, View<T> out,
           View<T> lse) {
    start(q, keys, block, 0);
    for (Index first = 0; first < block.keys; first += kKeyTile) {
      Index const count = std::min(kKeyTile, block.keys - first);
      find_pieces(k, v, keys, block, first, count, 1);
      prepare_tile(0, false);
      for (Index row = 0; row < block.rows; row += kPanel) add_tile(row, std::min(kPanel, block.rows - row), first, count);
    }
    write(block, 0, out, lse);
  }

  /// How many key/value heads `run_heads` takes at a time: so many that a tile of their keys and values stays in the
  /// second-level cache.
  [[nodiscard]] static Index most_heads(AttentionSizes<T> const& sizes) {
    Index const fitting = 196608 / (2 * kKeyTile * sizes.head_dim * static_cast<Index>(sizeof(T)));
    return std::clamp<Index>(fitting, 1, sizes.block_rows / kPanel);
  }

  /// A block of at most one panel of rows (decoding) against `heads` key/value heads from `block.kv_head` on: all heads of
  /// a tile before the next tile, because they lie side by side in memory and memory is what this waits for.
  void run_heads(View<T const> q, View<T const> k, View<T const> v, KeyList const& keys, QueryBlock block, Index heads,
                 View<T> out, View<T> lse) {
    Index const first_head = block.kv_head;
    for (Index head = 0; head < heads; ++head) {
      block.kv_head = first_head + head;
      start(q, keys, block, head * kPanel);
    }
    for (Index first = 0; first < block.keys; first += kKeyTile) {
      Index const count = std::min(kKeyTile, block.keys - first);
      block.kv_head = first_head;
      find_pieces(k, v, keys, block, first, count, heads);
      for (Index i = 0; i < num_pieces_; ++i) read_through(pieces_[i].keys, pieces_[i].count, heads * sizes_.head_dim);
      for (Index i = 0; i < num_pieces_; ++i) read_through(pieces_[i].values, pieces_[i].count, heads * sizes_.head_dim);
      for (Index head = 0; head < heads; ++head) {
        prepare_tile(head, true);
        add_tile(head * kPanel, block.rows, first, count);
      }
    }
    for (Index head = 0; head < heads; ++head) {
      block.kv_head = first_head + head;
      write(block, head * kPanel, out, lse);
    }
  }

  static constexpr Index kPanel = TileShape<T>::rows;

 private:
  static constexpr Index kLanes = Tile<T>::padded_rows;  ///< a panel's rows in whole packs
  static constexpr Index kIndexElements = static_cast<Index>(sizeof(Index) / sizeof(T));

  /// Keys of a tile that are neighbours in memory. Those that lie as they came are one piece.
  struct Piece {
    Index first = 0;  ///< in the tile: a multiple of a register tile's columns, where the panels of the keys begin
    Index count = 0;
    Operand<T> keys, values;    ///< [key, head_dim] of the first head
    T const* summed = nullptr;  ///< the values as the sums read them
    Index stride = 0;           ///< from one key to the next
    Index step = 0;             ///< from one column to the next, in whole register tiles
  };
  static constexpr Index kMostPieces = kKeyTile / TileShape<T>::cols;
  static_assert(kKeyTile % TileShape<T>::cols == 0);

  /// Whether pages may end where no panel of keys begins.
  [[nodiscard]] static bool copies_tiles(Index page_size) { return page_size % TileShape<T>::cols != 0; }
  /// Numbers of a tile's keys, or values, of as many heads as `run_heads` may take.
  [[nodiscard]] static Index copied_elements(AttentionSizes<T> const& sizes) {
    return kKeyTile * most_heads(sizes) * sizes.head_dim;
  }

  /// The pieces of the `count` keys from `first` on, of `heads` heads: those that no panels fit are copied to be one piece.
  void find_pieces(View<T const> k, View<T const> v, KeyList const& keys, QueryBlock const& block, Index first, Index count,
                   Index heads) {
    num_pieces_ = 0;
    for (Index at = 0; at < count;) {
      Index const neighbours = count_neighbours(keys, block.sequence, first + at, count - at);
      if (neighbours < count && copies_tiles(keys.page_size)) {
        Index const width = heads * sizes_.head_dim;
        copy_tile(k, keys, sizes_, block, first, count, width, copied_keys_);
        copy_tile(v, keys, sizes_, block, first, count, width, copied_values_);
        pieces_[num_pieces_++] = {0, count, {copied_keys_, width, 1}, {copied_values_, width, 1}};
        return;
      }
      pieces_[num_pieces_++] = {at, neighbours, key_tile(k, keys, sizes_, block, first + at),
                                key_tile(v, keys, sizes_, block, first + at)};
      at += neighbours;
    }
  }

  /// Brings rows into the cache in the order of memory. Packing reads several rows at a time, which the processor's
  /// prefetchers do not follow: going through first makes decoding against a long list twice as fast.
  static void read_through(Operand<T> rows, Index count, Index width) {
    for (Index i = 0; i < count; ++i) {
      T const volatile* const row = rows.at(i, 0).data;
      for (Index e = 0; e < width; e += 64 / static_cast<Index>(sizeof(T))) static_cast<void>(row[e]);
    }
  }

  /// Loads a block's queries as rows from `row` on, and makes their sums empty.
  void start(View<T const> q, KeyList const& keys, QueryBlock const& block, Index row) {
    gather_block(q, sizes_, block, scale_, rows_);
    gather_limits(keys, sizes_, block, limits_ + row);
    pack_left(Operand<T>{rows_, sizes_.head_dim, 1}, block.rows, sizes_.head_dim, packed_queries_ + row * sizes_.head_dim);
    Index const lane = row / kPanel * kLanes, lanes = divide_up(block.rows, kPanel) * kLanes;
    std::fill_n(sums_ + row * sizes_.padded_dim, block.rows * sizes_.padded_dim, T(0));
    std::fill_n(maxima_ + lane, lanes, -std::numeric_limits<T>::infinity());
    std::fill_n(totals_ + lane, lanes, T(0));
  }

  /// Packs a head's keys and values of a tile. Values that are used by one panel only are read where they are, if they fill
  /// register tiles.
  void prepare_tile(Index head, bool once) {
    Index const column = head * sizes_.head_dim;
    for (Index i = 0; i < num_pieces_; ++i) {
      Piece& piece = pieces_[i];
      Operand<T> const values = piece.values.at(0, column);
      pack_right(piece.keys.at(0, column).transposed(), piece.count, sizes_.head_dim,
                 packed_keys_ + piece.first * sizes_.head_dim);
      if (once && sizes_.head_dim == sizes_.padded_dim) {
        piece.summed = values.data;
        piece.stride = values.row_stride;
        piece.step = 1;
        continue;
      }
      T* const packed = packed_values_ + piece.first * sizes_.padded_dim;
      pack_right(values, sizes_.head_dim, piece.count, packed);
      piece.summed = packed;
      piece.stride = TileShape<T>::cols;
      piece.step = piece.count;
    }
  }

  /// Adds the `count` keys of the tile at `first`, as far as it sees them, to a panel of rows.
  void add_tile(Index row, Index height, Index first, Index count) {
    constexpr Index cols = TileShape<T>::cols;
    Index const seen = visible_keys(limits_ + row, height, first, count);
    if (seen == 0) return;
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
      for (Index i = 0; i < num_pieces_ && pieces_[i].first < seen; ++i) {
        Piece const& piece = pieces_[i];
        multiply_panels_apart<kLanes>(height, std::min(piece.count, seen - piece.first),
                                      static_cast<T const*>(scores_) + piece.first * kLanes, piece.summed + e * piece.step,
                                      piece.stride, tile, i > 0);
      }
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

  void write(QueryBlock const& block, Index first_row, View<T> out, View<T> lse) {
    for (Index i = 0; i < block.rows; ++i) {
      Index const query = block.first_query + i / sizes_.group, row = first_row + i;
      Index const head = block.kv_head * sizes_.group + i % sizes_.group;
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
  T *copied_keys_ = nullptr, *copied_values_ = nullptr;
  Piece pieces_[kMostPieces];
  Index num_pieces_ = 0;
};

}  // namespace mor::host::detail
