// SPDX-License-Identifier: Apache-2.0
/// @file
/// `Admission`: whether another request fits beside those that run, by the pages that they are expected to need yet.
#pragma once

#include "mor/infer/planner_setup.hpp"
#include "mor/infer/sequence.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace mor::infer {

/// Learns from the tokens that were read how many of them enter each recursion, and from those that were made how often one
/// ends its text before it had to. A text is expected to end after so many tokens, and to hold their number times that share
/// in each recursion's list; the sum over all requests has a variance, and some deviations of it are kept free.
class Admission {
 public:
  explicit Admission(PlannerSetup const& setup)
      : visits_(static_cast<std::size_t>(setup.shape.recursions), 0), expected_(setup.survival) {}

  /// A token that took `depth` recursions has been read.
  void saw(Row depth) {
    for (Row r = 0; r < depth; ++r) ++visits_[static_cast<std::size_t>(r)];
    if (visits_[0] < kMemory) return;
    for (Index& visits : visits_) visits /= 2;
  }
  /// A token has been made.
  void made_token() {
    if (++made_ < kMemory) return;
    made_ /= 2;
    ended_ /= 2;
  }
  /// A text has ended that could have gone on: at its end token, or since nobody wants more of it.
  void ended_early() { ++ended_; }

  /// Pages that texts will take yet, expected, and the variances of that.
  struct Need {
    double block = 0.0, ends = 0.0, variance = 0.0, ends_variance = 0.0;
    Need& operator+=(Need const& other) {
      block += other.block;
      ends += other.ends;
      variance += other.variance;
      ends_variance += other.ends_variance;
      return *this;
    }
  };
  /// Of a slot's guest, beside the pages that it has.
  [[nodiscard]] Need need_of(PlannerSetup const& setup, PagePools const& pools, Slot const& slot) const {
    Need need = expect(setup, pools, *slot.sequence);
    double held = 0.0;
    for (auto const& list : slot.pages.block) held += static_cast<double>(list.size());
    need.block = std::max(0.0, need.block - held);
    need.ends = std::max(0.0, need.ends - static_cast<double>(slot.pages.ends.size()));
    return need;
  }
  /// Whether the request fits into what is free and so many more pages, beside what the `running` ones need.
  [[nodiscard]] bool room_for(PlannerSetup const& setup, PagePools const& pools, Need const& running, Sequence const& sequence,
                              Index more, Index more_ends) const {
    Need all = expect(setup, pools, sequence);
    all += running;
    double const margin = setup.options.admission_margin;
    return all.block + margin * std::sqrt(all.variance) <= static_cast<double>(pools.block.free() + more) &&
           all.ends + margin * std::sqrt(all.ends_variance) <= static_cast<double>(pools.ends.free() + more_ends);
  }

  struct Length {
    double mean = 0.0, variance = 0.0;
  };
  /// Of tokens that a text gets yet, at most `most`, where each ends it with the measured probability: a waiting time that is cut
  /// off. (Its rate is ends over tokens, those of texts that were cut off or still run included.)
  [[nodiscard]] Length more_tokens(Index most) const {
    double const end = static_cast<double>(most), rate = static_cast<double>(ended_) / (static_cast<double>(made_) + kFirstTokens);
    if (rate * end < 1e-3) return {end, 0.0};  // below, the variance is lost in rounding, and small
    double const on = std::exp(-rate * end);  // it goes on to the end
    return {(1.0 - on) / rate, (1.0 - 2.0 * rate * end * on - on * on) / (rate * rate)};
  }

 private:
  /// Of so many tokens what was seen is remembered in full; then it counts half, again and again.
  static constexpr Index kMemory = Index{1} << 20;
  static constexpr double kFirstTokens = 1024.0;  // so many without an end are taken as seen at the start

  /// Pages that a text takes in the end.
  [[nodiscard]] Need expect(PlannerSetup const& setup, PagePools const& pools, Sequence const& text) const {
    Need sum;
    Index const there = text.length() - 1;  // the last token is never read
    Length const more = more_tokens(text.last_position - there);
    double const page = static_cast<double>(pools.page_size), n = static_cast<double>(there) + more.mean;
    double pages_a_token = 0.0;
    for (Index l = 0; l < setup.block_lists; ++l) {
      double const share = l == 0 || setup.shape.dense_lists ? 1.0 : survival(l, text);
      sum.block += std::ceil(share * n / page);
      sum.variance += n * share * (1.0 - share) / (page * page);
      pages_a_token += share / page;
    }
    sum.variance += more.variance * pages_a_token * pages_a_token;
    if (!pools.has_ends) return sum;
    sum.ends = std::ceil(n / page);
    sum.ends_variance = more.variance / (page * page);
    return sum;
  }
  /// Share of the text's tokens that enter a recursion.
  [[nodiscard]] double survival(Index recursion, Sequence const& text) const {
    if (recursion < text.least_depth) return 1.0;
    if (recursion >= text.most_depth) return 0.0;
    auto const r = static_cast<std::size_t>(recursion);
    double const seen = static_cast<double>(visits_[0]), prior = 256.0;
    return (static_cast<double>(visits_[r]) + prior * expected_[r]) / (seen + prior);
  }

  std::vector<Index> visits_;     // [Nr] tokens that entered each recursion
  std::vector<double> expected_;  // [Nr] shares, worth `prior` tokens
  Index made_ = 0, ended_ = 0;    // tokens; texts that one of them ended early
};

}  // namespace mor::infer
