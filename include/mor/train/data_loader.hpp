// SPDX-License-Identifier: Apache-2.0
/// @file
/// `DataLoader`: an endless, deterministic stream of training batches whose whole state is a few integers.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/philox.hpp"
#include "mor/core/types.hpp"
#include "mor/train/row_reader.hpp"
#include "mor/train/token_source.hpp"

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

namespace mor::train {

struct LoaderOptions {
  Index context = 0;       ///< tokens of a sequence
  Index batch_size = 0;    ///< sequences of a batch
  std::uint64_t seed = 0;  ///< decides the order of the rows
  bool shuffle = true;     ///< false: rows in stored order, every epoch the same
};

/// Where a loader stands. The first three fields are the state; the others recognise the data and options they
/// belong to, so that a resume with other data is refused instead of silently different.
struct LoaderState {
  Index epoch = 0;
  Index position = 0;      ///< rows of this epoch already handed out
  std::uint64_t seed = 0;
  Index rows = 0;          ///< rows of an epoch
  Index context = 0;
  bool shuffle = true;
  bool operator==(LoaderState const&) const = default;
};

/// Hands out batches of `batch_size` rows of `context` tokens with their targets. Every row comes once an epoch; a
/// batch at the end of an epoch is filled up from the next, so all batches are of one size. The order of an epoch is
/// a permutation computed from (seed, epoch) alone. `next` allocates nothing.
class DataLoader {
 public:
  /// @throws mor::error InvalidArgument when the source holds fewer than context + 1 tokens
  DataLoader(TokenSource source, LoaderOptions const& options)
      : reader_(std::move(source), options.context, options.batch_size),
        seed_(options.seed),
        shuffle_(options.shuffle),
        order_(options.shuffle ? static_cast<std::size_t>(reader_.rows()) : 0),
        batch_rows_(static_cast<std::size_t>(options.batch_size)) {}

  [[nodiscard]] Index rows() const { return reader_.rows(); }  ///< rows of an epoch
  [[nodiscard]] Index context() const { return reader_.context(); }
  [[nodiscard]] Index batch_size() const { return reader_.batch_size(); }
  [[nodiscard]] Index tokens_per_batch() const { return context() * batch_size(); }

  /// The next batch; its spans stay valid until the next call.
  /// @throws mor::error MalformedFile when a shard holds an id outside the vocabulary; the state is then unchanged
  [[nodiscard]] TokenBatch next() {
    Index epoch = epoch_, position = position_;
    for (Index slot = 0; slot < batch_size(); ++slot) {
      Index const row = row_at(epoch, position);
      reader_.read(slot, row);
      batch_rows_[static_cast<std::size_t>(slot)] = row;
      if (++position == rows()) {
        position = 0;
        ++epoch;
      }
    }
    epoch_ = epoch;
    position_ = position;
    return reader_.batch(batch_size());
  }

  /// [batch_size] which row each sequence of the latest batch is; row r starts at token r * context.
  [[nodiscard]] std::span<Index const> latest_rows() const { return batch_rows_; }

  [[nodiscard]] LoaderState state() const { return {epoch_, position_, seed_, rows(), context(), shuffle_}; }

  /// Continues where `state` was taken.
  /// @throws mor::error InvalidArgument when the state belongs to other data or options
  void restore(LoaderState const& state) {
    check("rows of an epoch", rows(), state.rows);
    check("context", context(), state.context);
    check("shuffle", Index{shuffle_}, Index{state.shuffle});
    if (state.epoch < 0 || state.position < 0 || state.position >= rows()) {
      fail(ErrorCode::InvalidArgument, "no such position", "DataLoader: restore",
           "epoch of at least 0, position of 0 to " + text_of(rows() - 1),
           "epoch " + text_of(state.epoch) + ", position " + text_of(state.position));
    }
    if (state.seed != seed_) order_epoch_ = -1;
    seed_ = state.seed;
    epoch_ = state.epoch;
    position_ = state.position;
  }

 private:
  static void check(char const* field, Index expected, Index got) {
    if (expected == got) return;
    fail(ErrorCode::InvalidArgument, "the saved loader state belongs to other data or options",
         std::string("DataLoader: restore: ") + field, text_of(expected), text_of(got));
  }

  [[nodiscard]] Index row_at(Index epoch, Index position) {
    if (!shuffle_) return position;
    if (order_epoch_ != epoch) shuffle_order(epoch);
    return order_[static_cast<std::size_t>(position)];
  }

  /// Fisher and Yates. The remainder's bias is below rows / 2^64.
  void shuffle_order(Index epoch) {
    constexpr std::uint64_t purpose = 0x6c6f61646572;  // "loader"
    Philox const random{stream_key(seed_, purpose)};
    std::iota(order_.begin(), order_.end(), Index{0});
    for (std::size_t i = order_.size(); i > 1; --i) {
      auto const bits = random.block(i, static_cast<std::uint64_t>(epoch));
      std::uint64_t const wide = bits[0] | static_cast<std::uint64_t>(bits[1]) << 32U;
      std::swap(order_[i - 1], order_[static_cast<std::size_t>(wide % i)]);
    }
    order_epoch_ = epoch;
  }

  detail::RowReader reader_;
  std::uint64_t seed_;
  bool shuffle_;
  Index epoch_ = 0, position_ = 0;
  std::vector<Index> order_;       ///< [rows] the rows in the order of `order_epoch_`
  Index order_epoch_ = -1;
  std::vector<Index> batch_rows_;  ///< [batch_size]
};

}  // namespace mor::train
