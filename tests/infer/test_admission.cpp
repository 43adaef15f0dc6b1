// SPDX-License-Identifier: Apache-2.0
// How much room a text is expected to need: from depths and lengths that were seen.
#include "infer/planner_desk.hpp"

#include "mor/core/philox.hpp"
#include "mor/infer/admission.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

using namespace mor;
using namespace mor::infer;

namespace {

PlannerSetup setup_of(Index slots, Index pages) {
  PlannerSetup setup;
  setup.shape = {slots, 16, 1, 1000, 4, false};
  setup.block_lists = 1;
  setup.block_pages = pages;
  setup.vocab_size = 100;
  setup.survival = {1.0};
  setup.options.slots = slots;
  setup.options.prefill_rows = setup.options.prefill_chunk = 16;
  setup.options.page_size = 4;
  setup.options.context = 1000;
  setup.options.prefix_cache = false;
  return setup;
}

Index constexpr kRoom = 500;  // pages: two texts of 1000 tokens

/// How many texts run at once on average, of 200 that end after about 8 tokens and may have `most`.
double running(Index most) {
  test::PlannerDesk desk(setup_of(16, kRoom));
  Philox const generator{3};
  double sum = 0.0;
  Index plans = 0;
  for (Index i = 0; i < 200; ++i) {
    Request request;
    request.prompt = {1};
    request.max_new_tokens = most;
    request.end_token = 61;
    desk.planner.submit(std::move(request));
  }
  std::uint64_t draws = 0;
  for (; !desk.planner.idle(); ++plans) {
    REQUIRE(plans < 10'000);
    desk.plan();
    sum += static_cast<double>(desk.planner.running());
    desk.run_all(1, [&] { return generator.block(draws++)[0] % 8 == 0; });
    static_cast<void>(desk.planner.hand_out_events());
  }
  CHECK(desk.used() == 0);
  return sum / static_cast<double>(plans);
}

}  // namespace

TEST_CASE("the tokens that a text gets yet are a waiting time for its end, cut off where it must end") {
  Admission admission(setup_of(1, 10));
  CHECK(admission.more_tokens(700).mean == 700.0);
  CHECK(admission.more_tokens(700).variance == 0.0);
  for (int i = 0; i < 100'000; ++i) {
    admission.made_token();
    if (i % 50 == 0) admission.ended_early();
  }
  Philox const generator{4};
  for (Index const most : {1, 20, 200, 5000}) {
    double sum = 0.0, squares = 0.0;
    constexpr int kTexts = 40'000;
    for (int i = 0; i < kTexts; ++i) {
      auto const dice = generator.block(static_cast<std::uint64_t>(i));
      double const wait = -50.0 * std::log((static_cast<double>(dice[0]) + 0.5) * 0x1p-32);
      double const length = std::min(wait, static_cast<double>(most));
      sum += length;
      squares += length * length;
    }
    double const mean = sum / kTexts, variance = squares / kTexts - mean * mean;
    auto const expected = admission.more_tokens(most);
    CHECK(std::abs(expected.mean / mean - 1.0) < 0.03);
    CHECK(std::abs(std::sqrt(expected.variance) - std::sqrt(variance)) < 0.03 * mean);
  }
}

TEST_CASE("what was seen long ago counts less and less") {
  Admission admission(setup_of(1, 10));
  auto const see = [&](Index texts, Index tokens) {
    for (Index t = 0; t < texts; ++t) {
      for (Index i = 0; i < tokens; ++i) admission.made_token();
      admission.ended_early();
    }
  };
  see(400'000, 10);
  CHECK(std::abs(admission.more_tokens(100'000).mean - 10.0) < 0.1);
  see(20'000, 200);
  CHECK(admission.more_tokens(100'000).mean > 140.0);
}

TEST_CASE("texts that may be long and end early do not keep each other waiting") {
  double const short_ones = running(30), long_ones = running(900);
  CHECK(short_ones > 12.0);
  CHECK(long_ones > 0.8 * short_ones);
}

TEST_CASE("texts that take what they may are expected to") {
  test::PlannerDesk desk(setup_of(16, kRoom));
  for (Index i = 0; i < 12; ++i) desk.submit(1, 600);  // 150 pages each: three fit
  desk.plan();
  CHECK(desk.planner.running() == 3);
  while (!desk.planner.idle()) {
    desk.run_all(1);
    static_cast<void>(desk.planner.hand_out_events());
    desk.plan();
    CHECK(desk.planner.running() <= 4);  // one more where others are nearly done
  }
  CHECK(desk.planner.statistics().preempted == 0);
}
