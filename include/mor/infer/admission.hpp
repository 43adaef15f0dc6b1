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

/// Learns from the tokens that were read how many of them enter each recursion. A text of n tokens is expected to hold n
/// times that share in the recursion's list; the sum over all requests has a variance, and some deviations of it are kept free.
class Admission {
 public:
  explicit Admission(PlannerSetup const& setup)
      : visits_(static_cast<std::size_t>(setup.shape.recursions), 0), expected_(setup.survival) {}

  /// A token that took `depth` recursions has been read.
  void saw(Row depth) {
    for (Row r = 0; r < depth; ++r) ++visits_[static_cast<std::size_t>(r)];
  }

  /// Pages that texts will take yet, expected, and the variance of that.
  struct Need {
    double block = 0.0, ends = 0.0, variance = 0.0;
    Need& operator+=(Need const& other) {
      block += other.block;
      ends += other.ends;
      variance += other.variance;
      return *this;
    }
  };
  /// Of a slot's guest, beside the pages that it has.
  [[nodiscard]] Need need_of(PlannerSetup const& setup, PagePools const& pools, Slot const& slot) const {
    Need need = expect(setup, pools, slot.sequence->last_position);
    double held = 0.0;
    for (auto const& list : slot.pages.block) held += static_cast<double>(list.size());
    need.block = std::max(0.0, need.block - held);
    need.ends = std::max(0.0, need.ends - static_cast<double>(slot.pages.ends.size()));
    return need;
  }
  /// Whether the request fits into what is free and so many more pages, beside what the `running` ones need.
  [[nodiscard]] bool room_for(PlannerSetup const& setup, PagePools const& pools, Need const& running, Sequence const& sequence,
                              Index more, Index more_ends) const {
    Need all = expect(setup, pools, sequence.last_position);
    all += running;
    double const margin = setup.options.admission_margin * std::sqrt(all.variance);
    return all.block + margin <= static_cast<double>(pools.block.free() + more) &&
           all.ends <= static_cast<double>(pools.ends.free() + more_ends);
  }

 private:
  /// Pages that a text of this length takes in the end.
  [[nodiscard]] Need expect(PlannerSetup const& setup, PagePools const& pools, Index tokens) const {
    Need sum;
    double const page = static_cast<double>(pools.page_size), n = static_cast<double>(tokens);
    for (Index l = 0; l < setup.block_lists; ++l) {
      double const share = l == 0 || setup.shape.dense_lists ? 1.0 : survival(l);
      sum.block += std::ceil(share * n / page);
      sum.variance += n * share * (1.0 - share) / (page * page);
    }
    if (pools.has_ends) sum.ends = std::ceil(n / page);
    return sum;
  }
  [[nodiscard]] double survival(Index recursion) const {
    auto const r = static_cast<std::size_t>(recursion);
    double const seen = static_cast<double>(visits_[0]), prior = 256.0;
    return (static_cast<double>(visits_[r]) + prior * expected_[r]) / (seen + prior);
  }

  std::vector<Index> visits_;     // [Nr] tokens that entered each recursion
  std::vector<double> expected_;  // [Nr] shares, worth `prior` tokens
};

}  // namespace mor::infer
