// SPDX-License-Identifier: Apache-2.0
/// @file
/// Choosing the next token from logits: what a request asks for, and a sampler of rows in host memory. The random number
/// depends on (seed, counter) alone, so a request's text does not depend on what runs beside it.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/sampling.hpp"
#include "mor/core/types.hpp"
#include "mor/math/sample_row.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
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

  /// The rule of one draw, as `sample` of a backend takes it.
  [[nodiscard]] SamplingRule rule(std::uint64_t counter, Row history_begin, Row history_length) const {
    auto const narrowed = [](double value) {
      constexpr auto most = static_cast<double>(std::numeric_limits<float>::max());
      return static_cast<float>(std::min(value, most));
    };
    SamplingRule result;
    result.seed = seed;
    result.counter = counter;
    result.temperature = narrowed(temperature);
    result.top_p = narrowed(top_p);
    result.min_p = narrowed(min_p);
    result.repetition_penalty = std::max(narrowed(repetition_penalty), std::numeric_limits<float>::min());
    result.top_k = static_cast<Row>(std::min<Index>(top_k, std::numeric_limits<Row>::max()));
    result.history_begin = history_begin;
    result.history_length = history_length;
    return result;
  }
};

/// A chosen token and the logarithm of its probability under the unmodified model.
struct Sample {
  Token token = 0;
  double log_probability = 0.0;
};

/// Throws NonFinite where a backend's `sample` says that the logits of a row were not numbers.
inline void check_sampled(Token token, Index row) {
  if (token >= 0) return;
  fail(ErrorCode::NonFinite, "the logits are not numbers", "sample, row " + text_of(row),
       "finite values or -infinity, one finite at least", "nan or infinity");
}

/// Draws tokens for one request from logits in host memory, by the law of `mor::math::sample_row`. Keeps scratch memory
/// between calls.
class Sampler {
 public:
  explicit Sampler(SamplingParams params) : params_(params) { params_.check(); }

  /// @param logits   [V], finite or -infinity; a NaN is refused (ErrorCode::NonFinite)
  /// @param history  tokens that the repetition penalty applies to
  /// @param counter  position of the new token: the index of its random number
  template <class Real>
  Sample operator()(std::span<Real const> logits, std::span<Token const> history, std::uint64_t counter) {
    require(!logits.empty(), "no logits", "Sampler");
    auto const rule = params_.rule(counter, 0, static_cast<Row>(history.size()));
    order_.resize(logits.size());
    auto const sampled = math::sample_row(logits, rule, history, math::SampleRoom<Real>{room<Real>(logits.size()), order_});
    check_sampled(sampled.token, 0);
    return {sampled.token, sampled.log_probability};
  }

 private:
  template <class Real>
  [[nodiscard]] std::span<Real> room(std::size_t size) {
    auto& values = values_of(Real());
    values.resize(size);
    return values;
  }
  [[nodiscard]] std::vector<float>& values_of(float) { return floats_; }
  [[nodiscard]] std::vector<double>& values_of(double) { return doubles_; }

  SamplingParams params_;
  std::vector<float> floats_;
  std::vector<double> doubles_;
  std::vector<Token> order_;
};

}  // namespace mor::infer
