// SPDX-License-Identifier: Apache-2.0
/// @file
/// `ValidationBatches`: the same rows at every validation, so that losses of different steps can be compared.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/train/row_reader.hpp"
#include "mor/train/token_source.hpp"

#include <algorithm>
#include <utility>

namespace mor::train {

/// The first rows of a token source, in order, as batches. The last batch may hold fewer sequences than the others:
/// weigh its mean loss by `TokenBatch::num_rows`.
class ValidationBatches {
 public:
  /// @param max_rows  rows to use; more than there are means all
  /// @throws mor::error InvalidArgument when the source holds fewer than context + 1 tokens or max_rows is below 1
  ValidationBatches(TokenSource source, Index context, Index batch_size, Index max_rows)
      : reader_(std::move(source), context, batch_size), rows_(std::min(reader_.rows(), max_rows)) {
    if (max_rows < 1) {
      fail(ErrorCode::InvalidArgument, "no rows to validate on", "ValidationBatches: max_rows", "at least 1",
           text_of(max_rows));
    }
  }

  [[nodiscard]] Index rows() const { return rows_; }
  [[nodiscard]] Index count() const { return (rows_ + reader_.batch_size() - 1) / reader_.batch_size(); }

  /// Batch `index` of `count()`; its spans stay valid until the next call.
  [[nodiscard]] TokenBatch batch(Index index) {
    if (index < 0 || index >= count()) {
      fail(ErrorCode::InvalidArgument, "no such batch", "ValidationBatches", "0 to " + text_of(count() - 1),
           text_of(index));
    }
    Index const first = index * reader_.batch_size();
    Index const sequences = std::min(reader_.batch_size(), rows_ - first);
    for (Index slot = 0; slot < sequences; ++slot) reader_.read(slot, first + slot);
    return reader_.batch(sequences);
  }

 private:
  detail::RowReader reader_;
  Index rows_;
};

}  // namespace mor::train
