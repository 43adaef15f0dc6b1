// SPDX-License-Identifier: Apache-2.0
/// @file
/// Where a run stands between its beginning and its end, in steps or by the clock.
#pragma once

#include "common/train_options.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <utility>

namespace examples {

/// Decides the learning rate and the end of a run.
///
/// A run of a given number of steps depends on the step alone, so it is the same in every repetition. A run of a given
/// time knows its number of steps only afterwards: its learning rate follows the share of the time that is gone, so
/// that the decay is complete when the time is over, and the number of steps that is shown is an estimate.
class TrainingClock {
 public:
  /// @param seconds_before  seconds that earlier parts of this run took
  TrainingClock(TrainPlan const& plan, double seconds_before) : plan_(plan), seconds_before_(seconds_before) {}

  [[nodiscard]] double seconds() const {
    return seconds_before_ + std::chrono::duration<double>(Clock::now() - begin_).count();
  }
  /// Share of the run that is done when `step` steps are.
  [[nodiscard]] double progress(mor::Index step) const {
    double const share = plan_.length.steps ? static_cast<double>(step) / static_cast<double>(*plan_.length.steps)
                                            : seconds() / *plan_.length.seconds;
    return std::min(share, 1.0);
  }
  [[nodiscard]] bool finished(mor::Index step) const {
    return plan_.length.steps ? step >= *plan_.length.steps : seconds() >= *plan_.length.seconds;
  }
  /// The rate of step `step`, 0-based.
  [[nodiscard]] double learning_rate(mor::Index step) const {
    if (plan_.length.steps) return plan_.schedule.at(step);
    auto schedule = plan_.schedule;
    schedule.warmup_steps = 0;
    double const warm = plan_.schedule.warmup_steps > 0
                            ? static_cast<double>(step) / static_cast<double>(plan_.schedule.warmup_steps)
                            : 1.0;
    return schedule.at(std::llround(progress(step) * static_cast<double>(schedule.total_steps))) * std::min(warm, 1.0);
  }
  /// Steps of the whole run: known, or estimated from those done.
  [[nodiscard]] mor::Index total_steps(mor::Index step) const {
    if (plan_.length.steps) return *plan_.length.steps;
    double const share = progress(step);
    return share > 0.0 ? std::max(step, static_cast<mor::Index>(std::llround(static_cast<double>(step) / share)))
                       : step;
  }
  /// @param seconds_a_step  of late
  [[nodiscard]] double seconds_left(mor::Index step, double seconds_a_step) const {
    if (plan_.length.steps) return static_cast<double>(*plan_.length.steps - step) * seconds_a_step;
    return std::max(0.0, *plan_.length.seconds - seconds());
  }

 private:
  using Clock = std::chrono::steady_clock;
  TrainPlan const& plan_;
  double seconds_before_;
  Clock::time_point begin_ = Clock::now();
};

/// Says when something is due that happens every so many steps, or by default a number of times in a run.
class Every {
 public:
  /// @param steps  interval; 0 is never; nothing: `times` times a run
  Every(std::optional<mor::Index> steps, int times) : steps_(steps), times_(times) {}

  /// Call once a step, with the steps done and the share of the run.
  [[nodiscard]] bool due(mor::Index step, double progress) {
    if (steps_) return *steps_ > 0 && step % *steps_ == 0;
    auto const part = static_cast<int>(progress * times_);
    return part != std::exchange(part_, part);
  }
  /// Takes a run up in the middle.
  void skip_to(double progress) { part_ = static_cast<int>(progress * times_); }

 private:
  std::optional<mor::Index> steps_;
  int times_, part_ = 0;
};

}  // namespace examples
