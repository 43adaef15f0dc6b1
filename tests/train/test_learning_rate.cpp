// SPDX-License-Identifier: Apache-2.0
#include "mor/train/learning_rate.hpp"

#include "support/catch.hpp"
#include "support/failure.hpp"

#include <cmath>
#include <limits>
#include <numbers>
#include <utility>
#include <vector>

namespace {

using mor::ErrorCode;
using mor::Index;
using mor::train::LearningRateSchedule;
using Kind = LearningRateSchedule::Kind;
using mor::test::fails_with;

LearningRateSchedule schedule(Kind kind, Index warmup, Index total) {
  LearningRateSchedule result;
  result.kind = kind;
  result.peak = 3e-3;
  result.warmup_steps = warmup;
  result.total_steps = total;
  return result;
}

TEST_CASE("every schedule warms up linearly from zero and reaches the peak at the end of the warm-up") {
  for (Kind const kind : {Kind::Constant, Kind::Linear, Kind::Cosine, Kind::WarmupStableDecay}) {
    LearningRateSchedule const rate = schedule(kind, 57, 9438);
    rate.validate();
    REQUIRE(rate.at(0) == 0.0);
    for (Index n = 0; n < 57; ++n) REQUIRE(rate.at(n) == 3e-3 * (static_cast<double>(n) / 57.0));
    REQUIRE(rate.at(57) == 3e-3);
  }
}

TEST_CASE("without warm-up the first step has the peak rate") {
  for (Kind const kind : {Kind::Constant, Kind::Linear, Kind::Cosine, Kind::WarmupStableDecay}) {
    REQUIRE(schedule(kind, 0, 10).at(0) == 3e-3);
  }
}

TEST_CASE("the constant schedule stays at the peak, also beyond its end") {
  LearningRateSchedule const rate = schedule(Kind::Constant, 2, 10);
  for (Index n = 2; n < 30; ++n) REQUIRE(rate.at(n) == 3e-3);
}

TEST_CASE("the linear schedule falls in a straight line to its minimum") {
  LearningRateSchedule rate = schedule(Kind::Linear, 10, 110);
  for (Index n = 10; n <= 110; ++n) {
    REQUIRE(rate.at(n) == Approx(3e-3 * (1.0 - static_cast<double>(n - 10) / 100.0)).margin(1e-18));
  }
  rate.minimum_ratio = 0.25;
  REQUIRE(rate.at(60) == Approx(3e-3 * 0.625));
  REQUIRE(rate.at(110) == Approx(3e-3 * 0.25));
  REQUIRE(rate.at(100000) == rate.at(110));
}

TEST_CASE("the cosine schedule follows half a cosine to a tenth of the peak unless told otherwise") {
  LearningRateSchedule rate = schedule(Kind::Cosine, 20, 220);
  for (Index n = 20; n <= 220; ++n) {
    double const angle = std::numbers::pi * static_cast<double>(n - 20) / 200.0;
    REQUIRE(rate.at(n) == Approx(3e-3 * (0.1 + 0.9 * 0.5 * (1.0 + std::cos(angle)))).epsilon(1e-14));
  }
  REQUIRE(rate.at(120) == Approx(3e-3 * 0.55));
  REQUIRE(rate.at(220) == 3e-3 * 0.1);
  rate.minimum_ratio = 0.0;
  REQUIRE(rate.at(220) == 0.0);
}

TEST_CASE("the trapezoid is flat and then falls by (n - p) / d, to zero at the last step plus one") {
  LearningRateSchedule rate = schedule(Kind::WarmupStableDecay, 86, 14161);
  Index const decay = 2832, start = 14161 - decay;
  REQUIRE(rate.resolved_decay_steps() == decay);
  for (Index n = 86; n < start; ++n) REQUIRE(rate.at(n) == 3e-3);
  for (Index n = start; n < 14161; ++n) {
    REQUIRE(rate.at(n) == 3e-3 * (1.0 - static_cast<double>(n - start) / static_cast<double>(decay)));
  }
  REQUIRE(rate.at(14161) == 0.0);
  rate.minimum_ratio = 0.5;
  REQUIRE(rate.at(start + decay / 2) == Approx(3e-3 * 0.75));
}

TEST_CASE("a fifth of the steps rounds to the decay lengths of the published configurations") {
  std::vector<std::pair<Index, Index>> const published = {{9438, 1888},  {12619, 2524}, {14161, 2832},
                                                          {14216, 2843}, {14672, 2934}, {8883, 1777}};
  for (auto const& [total, decay] : published) {
    REQUIRE(schedule(Kind::WarmupStableDecay, 57, total).resolved_decay_steps() == decay);
  }
}

TEST_CASE("a cool-down branched off at 80 % of a shorter budget continues the long run's rate") {
  LearningRateSchedule const whole = schedule(Kind::WarmupStableDecay, 57, 9438);
  LearningRateSchedule const branch = schedule(Kind::WarmupStableDecay, 57, 2860);
  for (Index n = 0; n <= 2288; ++n) REQUIRE(branch.at(n) == whole.at(n));
  REQUIRE(branch.at(2289) < whole.at(2289));
}

TEST_CASE("decay steps given outright win over the fraction") {
  LearningRateSchedule rate = schedule(Kind::WarmupStableDecay, 0, 10);
  rate.decay_steps = 5;
  rate.validate();
  REQUIRE(rate.at(4) == 3e-3);
  REQUIRE(rate.at(5) == 3e-3);
  REQUIRE(rate.at(6) == Approx(3e-3 * 0.8));
}

TEST_CASE("schedule names read and write; wsd means trapezoid") {
  for (Kind const kind : {Kind::Constant, Kind::Linear, Kind::Cosine, Kind::WarmupStableDecay}) {
    REQUIRE(mor::train::parse_schedule_kind(to_string(kind)) == kind);
  }
  REQUIRE(mor::train::parse_schedule_kind("wsd") == Kind::WarmupStableDecay);
  REQUIRE(fails_with(
      ErrorCode::InvalidConfig, [] { static_cast<void>(mor::train::parse_schedule_kind("Cosine")); },
      "constant, linear, cosine, trapezoid", "Cosine"));
}

TEST_CASE("a schedule that cannot work is refused with the field, what was expected and what was found") {
  auto const refused = [](auto change, char const* field, char const* got) {
    LearningRateSchedule rate = schedule(Kind::WarmupStableDecay, 10, 100);
    change(rate);
    return fails_with(ErrorCode::InvalidConfig, [&] { rate.validate(); }, field, got);
  };
  using S = LearningRateSchedule;
  CHECK(refused([](S& s) { s.peak = -1.0; }, "field peak", "got -1"));
  CHECK(refused([](S& s) { s.peak = 0.0; }, "field peak", "got 0"));
  CHECK(refused([](S& s) { s.peak = std::numeric_limits<double>::quiet_NaN(); }, "field peak", "got nan"));
  CHECK(refused([](S& s) { s.total_steps = 0; }, "field total_steps", "got 0"));
  CHECK(refused([](S& s) { s.warmup_steps = 101; }, "field warmup_steps", "got 101"));
  CHECK(refused([](S& s) { s.warmup_steps = -1; }, "field warmup_steps", "got -1"));
  CHECK(refused([](S& s) { s.minimum_ratio = 1.5; }, "field minimum_ratio", "got 1.5"));
  CHECK(refused([](S& s) { s.decay_fraction = 0.0; }, "field decay_fraction", "got 0"));
  CHECK(refused([](S& s) { s.decay_steps = 91; }, "field decay_steps", "1 to total_steps - warmup_steps = 90"));
  CHECK(refused([](S& s) { s.decay_steps = 0; }, "field decay_steps", "got 0"));
  CHECK(fails_with(
      ErrorCode::InvalidArgument, [] { static_cast<void>(schedule(Kind::Constant, 0, 1).at(-1)); }, "got -1"));
}

}  // namespace
