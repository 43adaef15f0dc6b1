// SPDX-License-Identifier: Apache-2.0
// A guess at what the device will decide: it must end the waiting, and be right often enough to be of use.
#include "support/catch.hpp"

#include "mor/infer/coda_forecast.hpp"
#include "mor/infer/scheduler.hpp"

#include <algorithm>
#include <array>
#include <deque>
#include <random>
#include <vector>

using namespace mor;

namespace {

/// What a device does with the launches of rows that each go on with some probability, told to the forecast `late` ticks later.
class Play {
 public:
  Play(TickRule const& rule, Index recursions, Index slots, double going_on, Index late)
      : rule_(rule), recursions_(recursions), going_on_(going_on), late_(late), forecast_(rule, recursions), depth_(static_cast<std::size_t>(slots), 0) {}

  void run(int ticks) {
    for (int i = 0; i < ticks; ++i) tick();
  }

  int codas = 0, for_nothing = 0, withheld = 0;  ///< that found rows, that found none, that would have found some
  double rows = 0.0;                             ///< of all recursions

 private:
  static constexpr Index kWaits = -1;

  void tick() {
    bool const ends = forecast_.likely();
    forecast_.launched(ends);
    std::array<Row, ServingReport::HeaderWords> report{};
    Index const most = rule_.most_rows > 0 ? rule_.most_rows : static_cast<Index>(depth_.size());
    for (std::size_t i = 0; i < depth_.size() && report[ServingReport::RecursionRows] < most; ++i) {
      Index& depth = depth_[(first_ + i) % depth_.size()];
      if (depth == kWaits) continue;
      ++report[ServingReport::RecursionRows];
      bool const on = ++depth < recursions_ && std::uniform_real_distribution<>()(engine_) < going_on_;
      if (!on) depth = kWaits;
    }
    first_ += static_cast<std::size_t>(most);
    rows += report[ServingReport::RecursionRows];
    auto const waiting = static_cast<Row>(std::count(depth_.begin(), depth_.end(), kWaits));
    report[ServingReport::WaitingRows] = waiting;
    report[ServingReport::ReadyRows] = static_cast<Row>(depth_.size()) - waiting;
    bool const finishes = rule_.finishes(report[ServingReport::ReadyRows], waiting);
    if (ends) ++(finishes ? codas : for_nothing);
    if (!ends && finishes) ++withheld;
    if (ends && finishes) {
      Row& entered = report[ServingReport::EnteredRows];
      for (Index& depth : depth_) {
        if (depth != kWaits || entered == most) continue;
        depth = 0;
        ++entered;
      }
      report[ServingReport::FinishedRows] = report[ServingReport::SampledRows] = entered;
    }
    reports_.push_back(report);
    if (static_cast<Index>(reports_.size()) <= late_) return;
    forecast_.reported(reports_.front());
    reports_.pop_front();
  }

  TickRule rule_;
  Index recursions_;
  double going_on_;
  Index late_;
  infer::CodaForecast forecast_;
  std::vector<Index> depth_;
  std::size_t first_ = 0;
  std::deque<std::array<Row, ServingReport::HeaderWords>> reports_;
  std::mt19937 engine_{5};
};

}  // namespace

TEST_CASE("where all rows take every recursion, the coda is launched with each last one and with no other") {
  for (Index const recursions : {1, 2, 3, 6}) {
    for (Index const late : {0, 1, 2, 4}) {
      CAPTURE(recursions, late);
      Play play(infer::FullDepthScheduler{}.rule(), recursions, 32, 1.0, late);
      play.run(static_cast<int>(100 * recursions));  // from here on the share that goes on is known
      int const before = play.for_nothing + play.withheld;
      play.run(static_cast<int>(100 * recursions));
      CHECK(play.for_nothing + play.withheld == before);
      CHECK(play.codas >= 190);
    }
  }
}

TEST_CASE("where rows wait to be a full batch, few codas are launched for nothing, and few come late") {
  for (Index const late : {0, 1, 2}) {
    for (double const going_on : {0.33, 0.5, 0.6}) {
      CAPTURE(late, going_on);
      Play play(infer::FullBatchScheduler{32}.rule(), 10, 64, going_on, late);
      int const ticks = 3000;
      play.run(ticks);
      CHECK(play.for_nothing < ticks / 4);  // without a forecast up to three fifths
      CHECK(play.withheld < ticks / 12);
      CHECK(play.rows > 0.98 * 32 * ticks);
    }
  }
}

TEST_CASE("whatever rows do, a coda comes: nothing waits for ever on a guess") {
  for (TickRule const& rule : {TickRule{.in_step = true}, TickRule{.least_finished = 5}, TickRule{.least_finished = 1000},
                               TickRule{.most_rows = 3, .least_finished = 3}, TickRule{.in_step = true, .least_finished = 9}}) {
    for (Index const slots : {1, 4, 40}) {
      for (double const going_on : {0.0, 0.1, 0.9, 1.0}) {
        CAPTURE(rule.in_step, rule.least_finished, rule.most_rows, slots, going_on);
        Play play(rule, 4, slots, going_on, 2);
        play.run(2000);
        CHECK(play.codas > 100);
      }
    }
  }
}
