// SPDX-License-Identifier: Apache-2.0
/// @file
/// Scalar rules of serving, shared by host and device: who goes round again, which depth a launch of one depth takes and
/// which slots one of some rows, whether ticks go on, and how a rule is kept in words.
#pragma once

#include "mor/core/sampling.hpp"
#include "mor/core/serving_tables.hpp"
#include "mor/core/types.hpp"

#include <algorithm>
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

/// A depth that more than so many launches of one depth have passed over comes before those with more rows.
inline constexpr Row kPatience = 16;

/// The depth that a launch of one depth takes, where `ready[d]` rows wait for depth d and `passed_over[d]` launches have
/// left them waiting: the one with most rows, or, once some depth's patience is over, the one passed over most often; the
/// deeper one on a tie. 0 where no row waits.
///
/// No row is passed over more than kPatience + recursions times: when a depth's patience is over, each other depth is taken
/// at most once before it, since that one then counts from 0 while the counts of all depths that wait grow alike.
[[nodiscard]] MOR_HOST_DEVICE constexpr Index depth_of_launch(Row const* ready, Row const* passed_over, Index recursions) {
  Index fullest = -1, oldest = -1;
  for (Index depth = 0; depth < recursions; ++depth) {
    if (ready[depth] == 0) continue;
    if (fullest < 0 || ready[depth] >= ready[fullest]) fullest = depth;
    if (oldest < 0 || passed_over[depth] >= passed_over[oldest]) oldest = depth;
  }
  if (fullest < 0) return 0;
  return passed_over[oldest] > kPatience ? oldest : fullest;
}

/// A depth's count after such a launch.
[[nodiscard]] MOR_HOST_DEVICE constexpr Row count_passed_over(Row ready, Row passed_over, bool taken) {
  return taken || ready == 0 ? 0 : passed_over + 1;
}

/// Slots one after the other, the first again behind the last.
struct SlotWindow {
  Row begin = 0, length = 0;
  [[nodiscard]] MOR_HOST_DEVICE constexpr bool holds(Row slot, Row slots) const {
    return (slot >= begin ? slot - begin : slot + slots - begin) < length;
  }
  /// The slot behind it.
  [[nodiscard]] MOR_HOST_DEVICE constexpr Row end(Row slots) const {
    Row const end = begin + length;
    return end >= slots ? end - slots : end;
  }
};

/// Slots that a word of `ready` below tells of.
inline constexpr Row kReadyBits = 32;

/// From slot `begin` on, as many slots as have `most` ready ones among them; all where there are no more. Bit s % 32 of
/// ready[s / 32] says whether slot s is.
[[nodiscard]] MOR_HOST_DEVICE constexpr SlotWindow window_of_launch(std::uint32_t const* ready, Row slots, Row begin, Index most) {
  SlotWindow window{begin, 0};
  Row taken = 0;
  while (window.length < slots) {
    Row const slot = window.end(slots), first = slot % kReadyBits;
    Row const run = std::min(kReadyBits - first, std::min(slots - slot, slots - window.length));
    std::uint32_t bits = ready[slot / kReadyBits] >> first;
    if (run < kReadyBits) bits &= (std::uint32_t{1} << run) - 1;
    Row const here = std::popcount(bits);
    if (taken + here > most) {
      for (; taken < most; ++taken) bits &= bits - 1;
      window.length += std::popcount(~bits & (bits - 1));  // up to the first that is too many. (std::countr_zero: 32 with nvcc 13.0)
      return window;
    }
    taken += here;
    window.length += run;
  }
  return window;
}

/// Whether a tick leaves rows for the next one, from its report. Rows of a prompt that wait for others have those beside
/// them, and where the lists had no room for all rows, those that had are counted.
[[nodiscard]] MOR_HOST_DEVICE constexpr bool rows_remain(Row const* report) {
  return report[ServingReport::ReadyRows] > 0 || report[ServingReport::EnteredRows] > 0 ||
         report[ServingReport::WaitingRows] > report[ServingReport::FinishedRows];
}

/// A count that is compared for equality alone, and goes on from the smallest number after the largest.
[[nodiscard]] MOR_HOST_DEVICE constexpr Row next_count(Row count, bool one_more) {
  return static_cast<Row>(static_cast<std::uint32_t>(count) + (one_more ? 1U : 0U));
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
