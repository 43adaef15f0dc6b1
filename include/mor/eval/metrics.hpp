// SPDX-License-Identifier: Apache-2.0
/// @file
/// From log-likelihoods to accuracies (mor-spec 7.2).
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/eval/prompt.hpp"
#include "mor/eval/scoring.hpp"
#include "mor/eval/task.hpp"

#include <cmath>
#include <cstddef>
#include <optional>
#include <span>
#include <vector>

namespace mor::eval {

/// What an example's scores say.
struct Verdict {
  Index chosen = 0;             ///< the likeliest option; of equals the first
  Index chosen_normalized = 0;  ///< the same after dividing by the bytes of the continuation
  bool correct = false;             ///< LastWord: every token of the continuation was the greedy one
  bool correct_normalized = false;  ///< the same as `correct` for LastWord
};

/// @param scores  one for each option
[[nodiscard]] inline Verdict judge(TaskKind kind, TaskExample const& example,
                                   std::span<ContinuationScore const> scores) {
  require(scores.size() == example.options.size() && !scores.empty(), "one score for each option", "judge");
  Verdict verdict;
  if (kind == TaskKind::LastWord) {
    verdict.correct = verdict.correct_normalized = scores.front().greedy;
    return verdict;
  }
  auto const normalized = [&](Index i) {
    auto const option = static_cast<std::size_t>(i);
    return scores[option].log_likelihood / static_cast<double>(scored_text(example.options[option]).size());
  };
  auto const plain = [&](Index i) { return scores[static_cast<std::size_t>(i)].log_likelihood; };
  for (Index i = 1; i < static_cast<Index>(scores.size()); ++i) {
    if (plain(i) > plain(verdict.chosen)) verdict.chosen = i;
    if (normalized(i) > normalized(verdict.chosen_normalized)) verdict.chosen_normalized = i;
  }
  verdict.correct = verdict.chosen == example.gold;
  verdict.correct_normalized = verdict.chosen_normalized == example.gold;
  return verdict;
}

/// Sums over a task's examples.
class TaskMetrics {
 public:
  explicit TaskMetrics(TaskKind kind) : kind_(kind) {}

  void add(TaskExample const& example, std::span<ContinuationScore const> scores, Verdict const& verdict) {
    ++examples_;
    correct_ += verdict.correct ? 1 : 0;
    correct_normalized_ += verdict.correct_normalized ? 1 : 0;
    gold_nats_ -= scores[static_cast<std::size_t>(example.gold)].log_likelihood;
    bool dropped = false;
    for (ContinuationScore const& score : scores) dropped = dropped || score.dropped > 0;
    shortened_ += dropped ? 1 : 0;
  }

  [[nodiscard]] Index examples() const { return examples_; }
  [[nodiscard]] Index shortened() const { return shortened_; }  ///< examples with a context that did not fit
  [[nodiscard]] double accuracy() const { return share(correct_); }
  /// By log-likelihood a byte; only where the options have different continuations.
  [[nodiscard]] std::optional<double> accuracy_normalized() const {
    if (kind_ != TaskKind::MultipleChoice) return std::nullopt;
    return share(correct_normalized_);
  }
  /// exp of the mean negative log-likelihood of the right continuation; LastWord only.
  [[nodiscard]] std::optional<double> perplexity() const {
    if (kind_ != TaskKind::LastWord) return std::nullopt;
    return std::exp(gold_nats_ / static_cast<double>(examples_));
  }
  /// Standard error of an accuracy over these examples: that of a mean of zeros and ones, with n - 1.
  [[nodiscard]] double standard_error(double accuracy) const {
    if (examples_ < 2) return 0.0;
    return std::sqrt(accuracy * (1.0 - accuracy) / static_cast<double>(examples_ - 1));
  }

 private:
  [[nodiscard]] double share(Index count) const {
    return examples_ > 0 ? static_cast<double>(count) / static_cast<double>(examples_) : 0.0;
  }

  TaskKind kind_;
  Index examples_ = 0, correct_ = 0, correct_normalized_ = 0, shortened_ = 0;
  double gold_nats_ = 0.0;
};

}  // namespace mor::eval
