// SPDX-License-Identifier: Apache-2.0
/// @file
/// Scalar rules of serving, shared by host and device: who goes round again, and how a rule is kept in words.
#pragma once

#include "mor/core/sampling.hpp"
#include "mor/core/types.hpp"

#include <bit>
#include <cstdint>

namespace mor::math {

/// Whether a token that has taken `taken` recursions takes another. A score that is not a number sends it on to the coda.
template <class Real>
[[nodiscard]] MOR_HOST_DEVICE constexpr bool goes_on(Index taken, Index recursions, Index least, Index most, Real score,
                                                     float threshold) {
  if (taken >= recursions || taken >= most) return false;
  return taken < least || score >= static_cast<Real>(threshold);
}

[[nodiscard]] MOR_HOST_DEVICE constexpr Row float_word(float value) { return std::bit_cast<Row>(value); }
[[nodiscard]] MOR_HOST_DEVICE constexpr float word_float(Row word) { return std::bit_cast<float>(word); }

/// Writes a rule as `kRuleWords` words; counter and history are the row's business.
MOR_HOST_DEVICE constexpr void rule_to_words(SamplingRule const& rule, Row* words) {
  words[0] = static_cast<Row>(static_cast<std::uint32_t>(rule.seed & 0xFFFFFFFFU));
  words[1] = static_cast<Row>(static_cast<std::uint32_t>(rule.seed >> 32));
  words[2] = float_word(rule.temperature);
  words[3] = float_word(rule.top_p);
  words[4] = float_word(rule.min_p);
  words[5] = float_word(rule.repetition_penalty);
  words[6] = rule.top_k;
  words[7] = 0;
}

/// The rule of the token after `position`; `text_begin` is where the slot's text begins.
[[nodiscard]] MOR_HOST_DEVICE constexpr SamplingRule rule_from_words(Row const* words, Row position, Row text_begin) {
  SamplingRule rule;
  rule.seed = static_cast<std::uint64_t>(static_cast<std::uint32_t>(words[0])) |
              (static_cast<std::uint64_t>(static_cast<std::uint32_t>(words[1])) << 32);
  rule.counter = static_cast<std::uint64_t>(position) + 1;
  rule.temperature = word_float(words[2]);
  rule.top_p = word_float(words[3]);
  rule.min_p = word_float(words[4]);
  rule.repetition_penalty = word_float(words[5]);
  rule.top_k = words[6];
  rule.history_begin = text_begin;
  rule.history_length = rule.repetition_penalty == 1.0F ? 0 : position + 1;
  return rule;
}

}  // namespace mor::math
