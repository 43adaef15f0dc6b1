// SPDX-License-Identifier: Apache-2.0
/// @file
/// `Batch`: a ragged list of token rows, the input of every model call, and `TrainingProgress`, the counters that make
/// a training call repeatable.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"

#include <cstdint>
#include <span>
#include <string>

namespace mor {

/// Token rows of one or more sequences, back to back and in position order. All spans are host memory.
struct Batch {
  std::span<Token const> tokens;          ///< [rows]
  std::span<Row const> positions;         ///< [rows] position of each token in its own sequence
  std::span<Row const> sequence_offsets;  ///< [sequences + 1] first row of each sequence; the last entry is `rows`

  [[nodiscard]] Index rows() const { return static_cast<Index>(tokens.size()); }
  [[nodiscard]] Index sequences() const {
    return sequence_offsets.empty() ? 0 : static_cast<Index>(sequence_offsets.size()) - 1;
  }

  /// Throws InvalidArgument unless offsets, positions and token ids are consistent.
  void check(Index vocab_size, char const* where) const {
    auto const bad = [&](char const* what, auto const& expected, auto const& got) {
      fail(ErrorCode::InvalidArgument, what, where, text_of(expected), text_of(got));
    };
    if (positions.size() != tokens.size()) bad("positions do not match tokens", tokens.size(), positions.size());
    if (sequence_offsets.empty()) bad("sequence_offsets is empty", "at least one entry", 0);
    if (sequence_offsets.front() != 0) bad("sequence_offsets does not start at 0", 0, sequence_offsets.front());
    if (sequence_offsets.back() != rows()) bad("sequence_offsets does not end at the rows", rows(), sequence_offsets.back());
    for (std::size_t s = 1; s < sequence_offsets.size(); ++s) {
      if (sequence_offsets[s] < sequence_offsets[s - 1]) bad("sequence_offsets decreases", sequence_offsets[s - 1], sequence_offsets[s]);
    }
    for (Token const token : tokens) {
      if (token < 0 || token >= vocab_size) bad("a token id is outside the vocabulary", "0 .. " + text_of(vocab_size - 1), token);
    }
    for (Row const position : positions) {
      if (position < 0) bad("a position is negative", "0 or more", position);
    }
  }
};

/// What a training call needs to know of the run so far; saved with a checkpoint.
struct TrainingProgress {
  Index forward_calls = 1;           ///< 1-based number of this micro-batch
  Index capacity_warmup_calls = 0;   ///< capacities shrink from 1 during these calls (mor-spec 3.2); 0: off
  Index balance_warmup_calls = 0;    ///< token choice sends everything to full depth during these calls
  std::uint64_t seed = 0;            ///< of the random-router control
};

/// Factors of the parts of the training loss in one micro-batch.
struct LossWeights {
  double language_model = 1.0;  ///< on the sum over targets of the negative log-likelihood, e.g. 1 / number of targets
  double router = 1.0;          ///< on every router loss, beside its own coefficient; 1 / accumulation steps for a mean
};

}  // namespace mor
