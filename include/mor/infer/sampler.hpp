// SPDX-License-Identifier: Apache-2.0
/// @file
/// Choosing the next token from logits: repetition penalty, temperature, top-k, top-p, min-p, in this order (the order of
/// Hugging Face's processors). The random number depends on (seed, counter) alone, so a request's text does not depend on
/// what runs beside it.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/philox.hpp"
#include "mor/core/types.hpp"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

namespace mor::infer {

/// Knobs of one request; the defaults sample from the model's own distribution.
struct SamplingParams {
  double temperature = 1.0;         ///< 0: always the most likely token (lowest id on a tie)
  Index top_k = 0;                  ///< keep the k most likely; 0: all
  double top_p = 1.0;               ///< keep the smallest set of likely tokens whose probability reaches top_p
  double min_p = 0.0;               ///< keep tokens at least min_p times as likely as the likeliest
  double repetition_penalty = 1.0;  ///< > 1: logits of tokens seen before are divided (positive) or multiplied (negative)
  std::uint64_t seed = 0;

  /// Throws InvalidArgument that names the field.
  void check() const {
    auto const in = [](bool good, char const* field, char const* expected, double got) {
      if (!good) fail(ErrorCode::InvalidArgument, "a sampling parameter is out of range", field, expected, text_of(got));
    };
    in(std::isfinite(temperature) && temperature >= 0.0, "temperature", "0 or more", temperature);
    in(top_k >= 0, "top_k", "0 (off) or more", static_cast<double>(top_k));
    in(top_p > 0.0 && top_p <= 1.0, "top_p", "in (0, 1]", top_p);
    in(min_p >= 0.0 && min_p <= 1.0, "min_p", "in [0, 1]", min_p);
    in(std::isfinite(repetition_penalty) && repetition_penalty > 0.0, "repetition_penalty", "above 0", repetition_penalty);
  }
};

/// A chosen token and the logarithm of its probability under the unmodified model.
struct Sample {
  Token token = 0;
  double log_probability = 0.0;
};

/// Draws tokens for one request. Keeps scratch memory between calls.
class Sampler {
 public:
  explicit Sampler(SamplingParams params) : params_(params) { params_.check(); }

  /// @param logits   [V], finite or -infinity; a NaN is refused (ErrorCode::NonFinite)
  /// @param history  tokens that the repetition penalty applies to
  /// @param counter  position of the new token: the index of its random number
  template <class Real>
  Sample operator()(std::span<Real const> logits, std::span<Token const> history, std::uint64_t counter) {
    load(logits);
    double const normaliser = log_sum_exp();
    Sample sample;
    if (params_.repetition_penalty != 1.0) penalize(history);
    sample.token = params_.temperature == 0.0 ? most_likely() : draw(counter);
    sample.log_probability = static_cast<double>(logits[static_cast<std::size_t>(sample.token)]) - normaliser;
    return sample;
  }

 private:
  struct Candidate {
    double logit;
    Token token;
  };

  template <class Real>
  void load(std::span<Real const> logits) {
    require(!logits.empty(), "no logits", "Sampler");
    candidates_.clear();
    for (std::size_t i = 0; i < logits.size(); ++i) {
      auto const logit = static_cast<double>(logits[i]);
      if (std::isnan(logit)) {
        fail(ErrorCode::NonFinite, "a logit is not a number", "Sampler, token " + text_of(i), "a finite value", "nan");
      }
      candidates_.push_back({logit, static_cast<Token>(i)});
    }
  }

  [[nodiscard]] double log_sum_exp() const {
    double const largest = candidates_[static_cast<std::size_t>(most_likely())].logit;
    double sum = 0.0;
    for (auto const& candidate : candidates_) sum += std::exp(candidate.logit - largest);
    return largest + std::log(sum);
  }

  /// Only while candidates are in token order.
  [[nodiscard]] Token most_likely() const {
    auto const best = std::max_element(candidates_.begin(), candidates_.end(),
                                       [](auto const& a, auto const& b) { return a.logit < b.logit; });
    return best->token;
  }

  void penalize(std::span<Token const> history) {
    seen_.assign(candidates_.size(), false);
    for (Token const token : history) {
      auto const i = static_cast<std::size_t>(token);
      if (i >= seen_.size() || seen_[i]) continue;
      seen_[i] = true;
      double& logit = candidates_[i].logit;
      logit = logit > 0.0 ? logit / params_.repetition_penalty : logit * params_.repetition_penalty;
    }
  }

  Token draw(std::uint64_t counter) {
    auto const more_likely = [](Candidate const& a, Candidate const& b) {
      return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
    };
    std::sort(candidates_.begin(), candidates_.end(), more_likely);
    if (params_.top_k > 0) candidates_.resize(std::min(candidates_.size(), static_cast<std::size_t>(params_.top_k)));
    double const largest = candidates_.front().logit;
    double total = 0.0;
    for (auto& candidate : candidates_) {
      candidate.logit = std::exp((candidate.logit - largest) / params_.temperature);  // from here on a weight
      total += candidate.logit;
    }
    total = keep_top_p(total);
    if (params_.min_p > 0.0) {
      while (candidates_.size() > 1 && candidates_.back().logit < params_.min_p) {
        total -= candidates_.back().logit;
        candidates_.pop_back();
      }
    }
    double left = uniform01(Philox{stream_key(params_.seed, 0x5a4d)}.block(counter)[0]) * total;
    for (auto const& candidate : candidates_) {
      left -= candidate.logit;
      if (left <= 0.0) return candidate.token;
    }
    return candidates_.back().token;
  }

  double keep_top_p(double total) {
    if (params_.top_p >= 1.0) return total;
    double kept = 0.0;
    std::size_t count = 0;
    while (count < candidates_.size() && kept < params_.top_p * total) kept += candidates_[count++].logit;
    candidates_.resize(std::max<std::size_t>(count, 1));
    return kept;
  }

  SamplingParams params_;
  std::vector<Candidate> candidates_;
  std::vector<bool> seen_;
};

}  // namespace mor::infer
