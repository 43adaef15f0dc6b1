// SPDX-License-Identifier: Apache-2.0
/// @file
/// Sampling of one row of logits in host memory: the law that every backend's `sample` follows, in its plainest form.
#pragma once

#include "mor/core/sampling.hpp"
#include "mor/core/types.hpp"
#include "mor/math/ordering.hpp"
#include "mor/math/sampling.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace mor::math {

/// Room that `sample_row` works in; each as long as the row.
template <class Real>
struct SampleRoom {
  std::span<Real> values;
  std::span<Token> order;
};

/// A chosen token and the logarithm of its probability under the unmodified model.
struct SampledToken {
  Token token = -1;  ///< negative where the logits were not numbers
  double log_probability = std::numeric_limits<double>::quiet_NaN();
};

/// The tokens that are kept: those before and at a place in the order of likelihood.
template <class Real>
class KeptTokens {
 public:
  KeptTokens(std::span<Real const> values, std::span<Token> order, float power_scale, Real largest)
      : values_(values), order_(order), scale_(power_scale), largest_(largest), kept_(values.size()) {}

  [[nodiscard]] std::uint64_t weight(Token token) const {
    return sample_weight(sample_power(below_largest(values_[static_cast<std::size_t>(token)], largest_), scale_));
  }
  /// Keeps the `k` likeliest.
  void keep_most(std::size_t k) {
    if (k >= kept_) return;
    list();
    select(0, k, order_.size());
    cut(k);
  }
  /// Keeps the smallest set of the likeliest that holds the share `top_p` of what is kept.
  void keep_share(float top_p) {
    list();
    std::uint64_t total = 0;
    for (std::size_t i = 0; i < kept_; ++i) total += weight(order_[i]);
    std::uint64_t const target = top_p_target(top_p, total);
    std::uint64_t sum = 0;
    std::size_t const all = kept_;
    for (std::size_t done = 0, some = 64; done < all; some *= 4) {  // sorts no more than it has to
      std::size_t const end = std::min(all, done + some);
      select(done, end, all);
      std::sort(at(done), at(end), [this](Token a, Token b) { return before(a, b); });
      for (; done < end; ++done) {
        sum += weight(order_[done]);
        if (sum >= target) return cut(done + 1);
      }
    }
  }
  [[nodiscard]] bool kept(Token token) const { return kept_ == values_.size() || !before(last_, token); }

 private:
  [[nodiscard]] bool before(Token a, Token b) const {
    return chosen_before(ordered_key(values_[static_cast<std::size_t>(a)]), a,
                         ordered_key(values_[static_cast<std::size_t>(b)]), b);
  }
  [[nodiscard]] auto at(std::size_t i) const { return order_.begin() + static_cast<std::ptrdiff_t>(i); }
  void list() {
    if (listed_) return;
    listed_ = true;
    for (std::size_t i = 0; i < order_.size(); ++i) order_[i] = static_cast<Token>(i);
  }
  /// Puts the likeliest of [begin, end) first, the last of them at `middle` - 1.
  void select(std::size_t begin, std::size_t middle, std::size_t end) {
    if (middle >= end) return;
    std::nth_element(at(begin), at(middle - 1), at(end), [this](Token a, Token b) { return before(a, b); });
  }
  void cut(std::size_t count) {
    kept_ = count;
    last_ = order_[kept_ - 1];
  }

  std::span<Real const> values_;
  std::span<Token> order_;
  float scale_;
  Real largest_;
  std::size_t kept_;
  Token last_ = 0;
  bool listed_ = false;
};

/// Draws one token. In this order (that of Hugging Face's processors): logits of the tokens of the history are divided
/// (positive) or multiplied (negative) by the penalty, once each; temperature 0 takes the largest, the lowest id on a
/// tie; else the `top_k` likeliest tokens are kept (lower ids first among equals), of these the smallest number of
/// likeliest ones that hold the share `top_p`, of these those at least `min_p` times as likely as the likeliest. The kept
/// tokens are drawn from by their weights at the temperature, by the random number of (seed, counter) alone.
///
/// Exact: which token is drawn depends on the logits as floats and on nothing else. The log-probability is rounded.
/// Where a logit is NaN or +infinity, or all are -infinity, the token is -1 and the log-probability NaN.
///
/// @param history  the lists of all rows, of which the rule names a part
template <class Real>
[[nodiscard]] SampledToken sample_row(std::span<Real const> logits, SamplingRule const& rule,
                                      std::span<Token const> history, SampleRoom<Real> const& room) {
  constexpr Real infinity = std::numeric_limits<Real>::infinity();
  Real most = -infinity;
  bool sound = true;
  for (Real const logit : logits) {
    sound = sound && logit < infinity;  // false for NaN too
    most = std::max(most, logit);
  }
  if (!sound || most == -infinity) return {};
  std::uint64_t model_sum = 0;
  for (Real const logit : logits) model_sum += sample_weight(sample_power(below_largest(logit, most), kSampleLog2E));

  std::copy(logits.begin(), logits.end(), room.values.begin());
  if (rule.repetition_penalty != 1.0F) {
    for (Token const token : history.subspan(static_cast<std::size_t>(rule.history_begin),
                                             static_cast<std::size_t>(rule.history_length))) {
      if (token < 0 || static_cast<std::size_t>(token) >= logits.size()) continue;
      auto const i = static_cast<std::size_t>(token);
      room.values[i] = penalised_logit(logits[i], rule.repetition_penalty);
    }
  }
  auto const largest = std::max_element(room.values.begin(), room.values.end());
  auto const count = static_cast<Token>(logits.size());
  Token chosen = static_cast<Token>(largest - room.values.begin());
  if (rule.temperature > 0.0F) {
    KeptTokens<Real> tokens(room.values, room.order, sample_scale(rule.temperature), *largest);
    if (rule.top_k > 0) tokens.keep_most(static_cast<std::size_t>(rule.top_k));
    if (rule.top_p < 1.0F) tokens.keep_share(rule.top_p);
    std::uint64_t const least = min_p_weight(rule.min_p);
    auto const weight = [&](Token token) {
      if (!tokens.kept(token)) return std::uint64_t{0};
      std::uint64_t const own = tokens.weight(token);
      return own >= least ? own : 0;
    };
    std::uint64_t total = 0, sum = 0;
    for (Token token = 0; token < count; ++token) total += weight(token);
    std::uint64_t const place = sample_place(rule.seed, rule.counter, total);
    for (chosen = 0; (sum += weight(chosen)) <= place;) ++chosen;
  }
  auto const below = static_cast<double>(logits[static_cast<std::size_t>(chosen)]) - static_cast<double>(most);
  return {chosen, sample_log_probability(below, model_sum)};
}

}  // namespace mor::math
