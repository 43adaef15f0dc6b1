// SPDX-License-Identifier: Apache-2.0
/// @file
/// The end of a token: final norm, head and sampling, in one pass where a backend does that, and else one after the other.
#pragma once

#include "mor/contract/serving.hpp"
#include "mor/core/sampling.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <optional>
#include <span>

namespace mor::infer {

/// Weights of the end of a token.
template <class B>
struct ServedHead {
  std::span<typename B::scalar_type const> norm;
  double eps = 1e-5;
  View<typename B::scalar_type const> head;
};

/// Rows to draw from by their rules, and what comes of it. Rows from *count on need not be drawn.
template <class B>
struct HeadRows {
  TableRows<typename B::scalar_type const> x;
  std::span<Row const> count;
  std::span<SamplingRule const> rules;
  std::span<Token const> history;
  View<typename B::real_type> logits;
  std::span<Token> tokens;
  std::span<typename B::real_type> log_probabilities;
};

template <class B>
inline void sample_in_steps(B& b, ServedHead<B> const& weights, HeadRows<B> const& rows) {
  auto const x = b.arena().template matrix<typename B::scalar_type>(static_cast<Index>(rows.x.rows.size()), rows.x.table.cols);
  b.gather_rows(rows.x.table, rows.x.rows, x);
  b.norm_logits(x, weights.norm, weights.eps, weights.head, rows.count, rows.logits);
  b.sample(rows.logits, rows.rules, rows.history, rows.tokens, rows.log_probabilities);
}

template <class B>
class ServingHead {
 public:
  ServingHead(B&, Index, Index, bool) {}
  void sample(B& b, ServedHead<B> const& weights, HeadRows<B> const& rows) const { sample_in_steps(b, weights, rows); }
};

template <FusesHeadSampling B>
class ServingHead<B> {
 public:
  /// @param wanted  false: always in steps
  ServingHead(B& b, Index hidden_size, Index vocabulary, bool wanted) {
    if (wanted) sampler_.emplace(b, hidden_size, vocabulary);
  }
  void sample(B& b, ServedHead<B> const& weights, HeadRows<B> const& rows) const {
    if (!sampler_ || !sampler_->takes(static_cast<Index>(rows.x.rows.size()), weights.norm, weights.head)) return sample_in_steps(b, weights, rows);
    sampler_->run(b.context(), rows.x, weights.norm, weights.eps, weights.head, rows.count, rows.rules, rows.history, rows.logits, rows.tokens,
                  rows.log_probabilities);
  }

 private:
  std::optional<typename B::HeadSampler> sampler_;
};

}  // namespace mor::infer
