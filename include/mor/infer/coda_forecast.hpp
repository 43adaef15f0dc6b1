// SPDX-License-Identifier: Apache-2.0
/// @file
/// `CodaForecast`: whether a tick's coda is likely to run, where a rule has finished rows wait (`TickRule::waits_to_finish`). The device
/// decides; but the host launches before it knows, and launches without a coda that would find no rows are shorter.
#pragma once

#include "mor/core/serving_tables.hpp"
#include "mor/core/types.hpp"

#include <algorithm>
#include <cmath>
#include <deque>
#include <span>

namespace mor::infer {

class CodaForecast {
 public:
  /// @param recursions  that a token takes at most
  CodaForecast(TickRule const& rule, Index recursions)
      : rule_(rule), recursions_(recursions), slack_(0.5 * std::sqrt(static_cast<double>(rule.least_finished))) {}

  /// A tick was launched. @param ends  with coda and prelude
  void launched(bool ends) { in_flight_.push_back(ends); }

  /// The header of the oldest tick's report (`ServingReport`).
  void reported(std::span<Row const> words) {
    auto const at = [&](ServingReport::Header word) { return static_cast<double>(words[static_cast<std::size_t>(word)]); };
    double const taken = at(ServingReport::RecursionRows);
    if (taken > 0.0) {
      double const left_behind = std::max(0.0, now_.ready - taken), went_on = at(ServingReport::ReadyRows) - left_behind;
      going_on_ += (std::clamp(went_on / taken, 0.0, 1.0) - going_on_) / 8.0;
    }
    now_.ready = at(ServingReport::ReadyRows) + at(ServingReport::EnteredRows);
    now_.waiting = std::max(0.0, at(ServingReport::WaitingRows) - at(ServingReport::FinishedRows));
    now_.taken = at(ServingReport::EnteredRows) > 0.0 ? 0 : now_.taken + 1;
    if (!in_flight_.empty()) in_flight_.pop_front();
  }

  /// Whether the next tick's coda may well find rows. A coda that comes too late costs more than one that comes for nothing: recursions
  /// meanwhile have fewer rows. So in doubt it comes, and those under way have not come.
  [[nodiscard]] bool likely() const {
    State state = now_;
    for (bool const ends : in_flight_) {
      recur(state);
      if (ends && finishes(state, -slack_)) state = after_coda(state);
    }
    recur(state);
    return finishes(state, slack_);
  }

 private:
  /// Rows that are ready for a recursion and that wait for the coda, and recursions since rows have entered.
  struct State {
    double ready = 0.0, waiting = 0.0;
    Index taken = 0;
  };
  /// As many as `rows`, or as the rule lets through.
  [[nodiscard]] double limited(double rows) const { return rule_.most_rows > 0 ? std::min(rows, static_cast<double>(rule_.most_rows)) : rows; }
  void recur(State& state) const {
    ++state.taken;
    bool const last = rule_.in_step && state.taken >= recursions_;  // nothing is ready after it
    double const leave = last ? state.ready : limited(state.ready) * (1.0 - going_on_);
    state.ready -= leave;
    state.waiting += leave;
  }
  [[nodiscard]] bool finishes(State const& state, double more) const {
    return state.ready < 0.5 || (!rule_.in_step && state.waiting + more >= static_cast<double>(rule_.least_finished));
  }
  [[nodiscard]] State after_coda(State const& state) const {
    double const through = limited(state.waiting);
    return {state.ready + through, state.waiting - through, 0};
  }

  TickRule rule_;
  Index recursions_;
  double slack_;  ///< a standard deviation of so many rows that each finish or go on
  double going_on_ = 0.5;  ///< share of a recursion's rows that take another
  State now_;              ///< after the tick that was reported last
  std::deque<bool> in_flight_;
};

}  // namespace mor::infer
