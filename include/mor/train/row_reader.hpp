// SPDX-License-Identifier: Apache-2.0
/// @file
/// Rows of training data: a token array seen as overlapping rows of context + 1 tokens, and the batches made of them.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/train/token_source.hpp"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace mor::train {

/// A batch of equally long sequences, as rows of one ragged list. The spans stay valid until the owner's next batch.
struct TokenBatch {
  std::span<Token const> inputs;          ///< [sequences * context]
  std::span<Token const> targets;         ///< [sequences * context] the token after each input
  std::span<Row const> positions;         ///< [sequences * context] 0 .. context - 1, again and again
  std::span<Row const> sequence_offsets;  ///< [sequences + 1] multiples of context

  [[nodiscard]] Index num_rows() const { return static_cast<Index>(inputs.size()); }
  [[nodiscard]] Index num_sequences() const { return static_cast<Index>(sequence_offsets.size()) - 1; }
};

namespace detail {

/// Row r is the tokens [r * context, (r + 1) * context]: rows share one token, so that every token but the first is
/// once a target. Tokens after the last whole row are not used.
class RowReader {
 public:
  /// @throws mor::error InvalidArgument when there is no whole row, or a batch would not fit `Row`
  RowReader(TokenSource source, Index context, Index batch_size)
      : source_(std::move(source)), context_(context), batch_size_(batch_size) {
    if (context < 1 || batch_size < 1 || context > std::numeric_limits<Row>::max() / batch_size) {
      fail(ErrorCode::InvalidArgument, "impossible batch", "data loader",
           "context and batch size of at least 1, their product at most " + text_of(std::numeric_limits<Row>::max()),
           "context " + text_of(context) + ", batch size " + text_of(batch_size));
    }
    rows_ = (source_.size() - 1) / context;
    if (source_.size() < context + 1) {
      fail(ErrorCode::InvalidArgument, "the text is shorter than one row of context + 1 tokens", "data loader",
           "at least " + text_of(context + 1) + " tokens", text_of(source_.size()) + " tokens");
    }
    auto const slots = static_cast<std::size_t>(context * batch_size);
    inputs_.resize(slots);
    targets_.resize(slots);
    positions_.resize(slots);
    for (std::size_t i = 0; i < slots; ++i) positions_[i] = static_cast<Row>(static_cast<Index>(i) % context);
    for (Index i = 0; i <= batch_size; ++i) offsets_.push_back(static_cast<Row>(i * context));
  }

  [[nodiscard]] Index rows() const { return rows_; }
  [[nodiscard]] Index context() const { return context_; }
  [[nodiscard]] Index batch_size() const { return batch_size_; }

  /// Reads row `row` into place `slot` of the batch.
  void read(Index slot, Index row) {
    auto const begin = static_cast<std::size_t>(slot * context_);
    auto const length = static_cast<std::size_t>(context_);
    std::span<Token> const inputs(inputs_.data() + begin, length), targets(targets_.data() + begin, length);
    source_.copy(row * context_, inputs);
    std::copy(inputs.begin() + 1, inputs.end(), targets.begin());
    source_.copy((row + 1) * context_, targets.last(1));
  }

  /// The first `sequences` places of the batch.
  [[nodiscard]] TokenBatch batch(Index sequences) const {
    auto const count = static_cast<std::size_t>(sequences * context_);
    return {{inputs_.data(), count},
            {targets_.data(), count},
            {positions_.data(), count},
            {offsets_.data(), static_cast<std::size_t>(sequences) + 1}};
  }

 private:
  TokenSource source_;
  Index context_, batch_size_, rows_ = 0;
  std::vector<Token> inputs_, targets_;
  std::vector<Row> positions_, offsets_;
};

}  // namespace detail
}  // namespace mor::train
