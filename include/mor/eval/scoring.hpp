// SPDX-License-Identifier: Apache-2.0
/// @file
/// Log-likelihoods of continuations, computed for a ragged batch of requests: rows of one request never see another's,
/// and nothing is padded, so a score does not depend on what it is computed beside.
#pragma once

#include "mor/core/batch.hpp"
#include "mor/core/error.hpp"
#include "mor/core/finite.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"
#include "mor/eval/prompt.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace mor::eval {

/// What the model thinks of a continuation.
struct ContinuationScore {
  double log_likelihood = 0.0;  ///< in nats, summed over its tokens
  Index tokens = 0;
  Index dropped = 0;            ///< tokens at the front of the context that the model has no room for
  bool greedy = false;          ///< `score_greedy` only: every token is the likeliest; of equals the first
};

namespace detail {

/// The log-probability of a token from its row of logits.
[[nodiscard]] inline double log_probability(std::span<float const> logits, float largest, Token target) {
  auto const top = static_cast<double>(largest);
  double sum = 0.0;
  for (float const logit : logits) sum += std::exp(static_cast<double>(logit) - top);
  return static_cast<double>(logits[static_cast<std::size_t>(target)]) - top - std::log(sum);
}

inline void add_token(ContinuationScore& score, double log_probability) {
  if (!is_finite(log_probability)) {
    fail(ErrorCode::NonFinite, "a log-likelihood is not finite", "score", "a number", text_of(log_probability));
  }
  score.log_likelihood += log_probability;
  ++score.tokens;
}

}  // namespace detail

/// Scores requests in one call of the model. Contexts that are too long lose tokens at their front. Both ways of scoring
/// throw mor::error InvalidArgument for a continuation longer than the model's context, and NonFinite.
class BatchScorer {
 public:
  /// @param max_context  tokens of the model's longest sequence
  explicit BatchScorer(Index max_context) : max_context_(max_context) {}

  /// Log-likelihoods alone, from losses, which a backend computes without keeping logits.
  /// @param losses  (Batch, targets [n], rows [n]) -> n negative log-likelihoods, float, in host memory
  template <class Losses>
  [[nodiscard]] std::vector<ContinuationScore> score(std::span<ScoreRequest const> requests, Losses&& losses) {
    auto scores = make_batch(requests);
    auto const values = losses(batch(), std::span<Token const>(targets_), std::span<Row const>(rows_));
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      detail::add_token(scores[request_of_row_[i]], -static_cast<double>(values[i]));
    }
    return scores;
  }

  /// The same, and whether the model would have written the continuation itself.
  /// @param logits  (Batch, rows [n]) -> View<float const> [n, V] in host memory
  template <class Logits>
  [[nodiscard]] std::vector<ContinuationScore> score_greedy(std::span<ScoreRequest const> requests, Logits&& logits) {
    auto scores = make_batch(requests);
    for (auto& score : scores) score.greedy = true;
    View<float const> const values = logits(batch(), std::span<Row const>(rows_));
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      std::span<float const> const row(values.row(static_cast<Index>(i)), static_cast<std::size_t>(values.cols));
      auto const best = std::max_element(row.begin(), row.end());
      auto& score = scores[request_of_row_[i]];
      score.greedy = score.greedy && best - row.begin() == targets_[i];
      detail::add_token(score, detail::log_probability(row, *best, targets_[i]));
    }
    return scores;
  }

 private:
  [[nodiscard]] Batch batch() const { return {tokens_, positions_, offsets_}; }

  [[nodiscard]] std::vector<ContinuationScore> make_batch(std::span<ScoreRequest const> requests) {
    tokens_.clear();
    positions_.clear();
    rows_.clear();
    targets_.clear();
    request_of_row_.clear();
    offsets_.assign(1, 0);
    std::vector<ContinuationScore> scores;
    for (ScoreRequest const& request : requests) {
      scores.emplace_back();
      scores.back().dropped = append(request, scores.size() - 1);
    }
    return scores;
  }

  /// The rows of a request: all tokens but the last, which predicts nothing. @return tokens dropped
  Index append(ScoreRequest const& request, std::size_t number) {
    Index const length = static_cast<Index>(request.tokens.size()) - 1;
    Index const predicted = length - request.context_tokens + 1;
    if (request.context_tokens < 1 || predicted < 1 || predicted > max_context_) {
      fail(ErrorCode::InvalidArgument, "the continuation does not fit the model's context", "score",
           "1 to " + text_of(max_context_) + " tokens after at least one", text_of(predicted));
    }
    Index const dropped = std::max<Index>(0, length - max_context_);
    for (Index i = dropped; i < length; ++i) {
      auto const at = static_cast<std::size_t>(i);
      if (i + 1 >= request.context_tokens) {
        rows_.push_back(static_cast<Row>(tokens_.size()));
        targets_.push_back(request.tokens[at + 1]);
        request_of_row_.push_back(number);
      }
      tokens_.push_back(request.tokens[at]);
      positions_.push_back(static_cast<Row>(i - dropped));
    }
    offsets_.push_back(static_cast<Row>(tokens_.size()));
    return dropped;
  }

  Index max_context_;
  std::vector<Token> tokens_, targets_;
  std::vector<Row> positions_, offsets_, rows_;
  std::vector<std::size_t> request_of_row_;
};

}  // namespace mor::eval
