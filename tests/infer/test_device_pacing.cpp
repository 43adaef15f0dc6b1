// SPDX-License-Identifier: Apache-2.0
// Launches of several ticks: when they stop, what they tell the host, and what the host takes from it.
#include "infer/planner_desk.hpp"
#include "served/served.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"

#include "mor/backend/host/serving_tables.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <span>
#include <vector>

using namespace mor;
using namespace mor::test;

namespace {

constexpr Index kRooms = 4, kMost = 3;
constexpr ServingShape kShape{2, 6, 3, 20, 8, false};

/// Tables, a tick's report and a log of `kMost` ticks; only what `end_tick` reads has a meaning.
struct Ticks {
  std::vector<Row> words = std::vector<Row>(static_cast<std::size_t>(ServingTables{kShape, nullptr}.size()), 0);
  ServingTables tables{kShape, words.data()};
  std::vector<Row> report_words = std::vector<Row>(static_cast<std::size_t>(ServingReport::size(kRooms, kRooms)), 0);
  ServingReport report{report_words, kRooms};
  Index report_size = static_cast<Index>(report_words.size());
  std::vector<Row> log_words = std::vector<Row>(static_cast<std::size_t>(TickLog::size(kMost, report_size)), 0);
  TickLog log{log_words, kMost, report_size};

  void put(Index word, Row value) { report_words[static_cast<std::size_t>(word)] = value; }
  /// The next tick's report: these cells went through the coda, and these slots made a token, the last one where `ends`.
  void tell(std::vector<Row> const& cells, std::vector<Row> const& slots, bool ends, Row ready) {
    std::fill(report_words.begin(), report_words.end(), ++poison_);
    for (Index i = 0; i < ServingReport::HeaderWords; ++i) put(i, 0);
    put(ServingReport::ReadyRows, ready);
    put(ServingReport::WaitingRows, static_cast<Row>(cells.size()));
    put(ServingReport::FinishedRows, static_cast<Row>(cells.size()));
    put(ServingReport::SampledRows, static_cast<Row>(slots.size()));
    for (std::size_t i = 0; i < cells.size(); ++i) put(report.finished(static_cast<Index>(i)), cells[i]);
    for (std::size_t i = 0; i < slots.size(); ++i) {
      put(report.sampled(static_cast<Index>(i)), slots[i]);
      put(report.sampled(static_cast<Index>(i)) + 3, ends && i + 1 == slots.size() ? 1 : 0);
    }
  }
  bool end(bool looped = true) { return host::end_tick(tables, report, log, looped); }
  [[nodiscard]] Row at(Index word) const { return log_words[static_cast<std::size_t>(word)]; }

 private:
  Row poison_ = -1000;
};

ServedSetup expert_setup() {
  ServedSetup setup = tiny_setup();
  setup.options.prefix_cache = false;
  setup.shipped_scheduler = true;
  return setup;
}

}  // namespace

TEST_CASE("a launch goes on until it has run its ticks, and the next one begins anew") {
  Ticks t;
  for (int launch = 0; launch < 3; ++launch) {
    for (Row tick = 0; tick < kMost; ++tick) {
      t.tell({0}, {0}, false, 100 * launch + tick + 1);
      CHECK(t.end() == (tick + 1 < kMost));
      CHECK(t.at(TickLog::Ticks) == tick + 1);
      for (Row i = 0; i <= tick; ++i) {
        CHECK(t.at(t.log.report(i) + ServingReport::ReadyRows) == 100 * launch + i + 1);
      }
    }
    CHECK(t.at(TickLog::Calls) == 0);
  }
}

TEST_CASE("a log holds the rows of each tick's report as they were") {
  Ticks t;
  std::vector<std::vector<Row>> reports;
  for (Row tick = 0; tick < kMost; ++tick) {
    std::vector<Row> cells(static_cast<std::size_t>(tick + 1), tick % 2), slots(static_cast<std::size_t>(2 - tick), 1);
    t.tell(cells, slots, false, 1);
    reports.push_back(t.report_words);
    t.end();
  }
  for (Row tick = 0; tick < kMost; ++tick) {
    auto const& told = reports[static_cast<std::size_t>(tick)];
    auto const same = [&](Index first, Index count) {
      auto const begin = told.begin() + static_cast<std::ptrdiff_t>(first);
      return std::equal(begin, begin + static_cast<std::ptrdiff_t>(count), t.log_words.begin() + t.log.report(tick) + first);
    };
    CHECK(same(0, ServingReport::HeaderWords));
    CHECK(same(t.report.finished(0), ServingReport::kFinishedWords * (tick + 1)));
    CHECK(same(t.report.sampled(0), ServingReport::kSampledWords * (2 - tick)));
  }
}

TEST_CASE("a launch stops where a text ends, where rows of a prompt are through, and where no rows are left") {
  struct Case {
    std::vector<Row> cells, slots;
    bool ends;
    Row ready;
    bool goes_on, calls;
  };
  for (auto const& c : {Case{{0, 1}, {0, 1}, false, 1, true, false}, Case{{0, 1}, {0, 1}, true, 1, false, true},
                        Case{{1, 2}, {}, false, 1, false, true}, Case{{}, {}, false, 1, true, false},
                        Case{{}, {}, false, 0, false, false}, Case{{0}, {0}, false, 0, false, false}}) {
    INFO(c.cells.size() << " finished, " << c.slots.size() << " sampled, ends " << c.ends << ", ready " << c.ready);
    Ticks t;
    t.tell(c.cells, c.slots, c.ends, c.ready);
    CHECK(t.end() == c.goes_on);
    CHECK(t.at(TickLog::Calls) == (c.calls ? 1 : 0));
  }
  Ticks waits;  // a finished row found no room in the coda's list
  waits.tell({}, {}, false, 0);
  waits.put(ServingReport::WaitingRows, 1);
  CHECK(waits.end());
  Ticks enters;
  enters.tell({0}, {0}, false, 0);
  enters.put(ServingReport::EnteredRows, 1);
  CHECK(enters.end());
}

TEST_CASE("launches have one tick until the host has answered a call, also across the end of the count") {
  Ticks t;
  for (Row const begin : {0, std::numeric_limits<Row>::max()}) {
    t.log_words[TickLog::Calls] = t.tables.at(t.tables.answered()) = begin;
    t.tell({0}, {0}, true, 1);
    CHECK_FALSE(t.end());
    Row const calls = t.at(TickLog::Calls);
    CHECK(calls != begin);
    for (int launch = 0; launch < 3; ++launch) {
      t.tell({0}, {0}, false, 1);
      CHECK_FALSE(t.end());
      CHECK(t.at(TickLog::Ticks) == 1);
      CHECK(t.at(TickLog::Calls) == calls);
    }
    t.tables.at(t.tables.answered()) = calls;
    t.tell({0}, {0}, false, 1);
    CHECK(t.end());
    t.tell({0}, {0}, false, 0);
    CHECK_FALSE(t.end());
  }
}

TEST_CASE("work that cannot go round again is a launch of one tick") {
  Ticks t;
  for (int launch = 0; launch < 3; ++launch) {
    t.tell({0}, {0}, false, 1);
    CHECK_FALSE(t.end(false));
    CHECK(t.at(TickLog::Ticks) == 1);
    CHECK(t.at(TickLog::Open) == 0);
  }
}

TEST_CASE("the planner makes room for every tick of a launch, and for none beyond the text's end") {
  infer::PlannerSetup setup;
  setup.shape = {1, 8, 2, 40, 4, false};
  setup.block_lists = 2;
  setup.block_pages = setup.end_pages = 40;
  setup.has_ends = true;
  setup.vocab_size = 100;
  setup.survival = {1.0, 0.5};
  setup.options.slots = 1;
  setup.options.prefill_chunk = setup.options.prefill_rows = 8;
  setup.options.page_size = 4;
  setup.options.context = 40;
  auto const plan = [](PlannerDesk& desk, Index in_flight, Index ticks) {
    auto const demand = desk.planner.plan(++desk.tick, in_flight, ticks);
    for (auto const& edit : desk.planner.edits().sets()) desk.words[static_cast<std::size_t>(edit.word)] = edit.value;
    desk.planner.edits_made();
    return demand;
  };
  PlannerDesk desk(setup);
  desk.submit(12, 20);
  CHECK(plan(desk, 0, 9).longest == 8);  // a first chunk: nothing follows it in its launch
  CHECK(desk.used_ends() == 2);
  desk.finish_chunk(0, 1);
  CHECK(plan(desk, 0, 9).longest == 12 + 9);
  CHECK(desk.used_ends() == (12 + 8 + 3) / 4);  // the first tick only enters
  CHECK(desk.used() == (12 + 8 + 3) / 4 + (4 + 8 + 3) / 4);
  desk.finish_chunk(0, 1, {{0, 50, false}});
  CHECK(plan(desk, 3, 5).longest == 13 + 8);
  CHECK(desk.used_ends() == (13 + 8 + 3) / 4);
  CHECK(plan(desk, 90, 30).longest == 31);  // the last of 32 tokens is never read
  CHECK(desk.used_ends() == 8);
}

TEST_CASE("the planner answers each call once, with its next plan") {
  infer::PlannerSetup setup;
  setup.shape = {1, 4, 2, 40, 4, false};
  setup.block_lists = 2;
  setup.block_pages = 40;
  setup.vocab_size = 100;
  setup.survival = {1.0, 0.5};
  PlannerDesk desk(setup);
  auto const answer = [&] { return desk.tables.at(desk.tables.answered()); };
  desk.plan();
  CHECK(answer() == 0);
  desk.planner.called(3);
  desk.plan();
  CHECK(answer() == 3);
  desk.tables.at(desk.tables.answered()) = -1;
  desk.planner.called(3);
  desk.plan();
  CHECK(answer() == -1);
  desk.planner.called(4);
  desk.plan();
  CHECK(answer() == 4);
}

TEST_CASE("launches of several ticks take as many ticks as single ones: each ends where the host has something to do") {
  auto setup = expert_setup();
  setup.options.few_rows = 100;  // prompts too
  auto const requests = mixed_requests(60, setup.model, 20, 11);
  for (Index const slots : {1, 5, 12}) {
    setup.options.slots = slots;
    setup.options.ticks_per_launch = 1;
    auto const single = make_served(setup);
    serve_all(*single, requests);
    CHECK(single->statistics().launches == single->statistics().ticks);
    for (Index const ticks : {2, 4, 100}) {
      INFO(slots << " slots, " << ticks << " ticks");
      setup.options.ticks_per_launch = ticks;
      auto const several = make_served(setup);
      serve_all(*several, requests);
      CHECK(several->statistics().ticks == single->statistics().ticks);
      CHECK(several->statistics().recursion_rows == single->statistics().recursion_rows);
      CHECK(several->statistics().launches < single->statistics().launches);
    }
  }
}

TEST_CASE("a text alone is made in launches of as many ticks as there may be") {
  auto setup = expert_setup();
  infer::Request request;
  request.prompt = {1, 2, 3};
  request.max_new_tokens = 40;
  request.sampling.temperature = 0.0;
  for (Index const ticks : {1, 2, 8, 1000}) {
    setup.options.ticks_per_launch = ticks;
    auto const served = make_served(setup);
    serve_all(*served, {request});
    auto const now = served->statistics();
    // Those that end with the prompt are the first ones; the text's last tick ends its launch.
    Index const decoding = now.ticks - 4;
    CHECK(now.launches >= now.ticks / ticks);
    CHECK(now.launches <= decoding / ticks + 1 + 4);
  }
}

TEST_CASE("launches of several ticks follow every scheduler's rule without the host") {
  auto setup = expert_setup();
  auto const requests = mixed_requests(60, setup.model, 20, 11);
  auto const expected = serve_each_alone(setup, requests);
  setup.options.ticks_per_launch = 4;
  setup.options.few_rows = 100;
  for (auto const scheduler : kAllSchedulers) {
    if (scheduler == Schedulers::FullDepth) continue;  // other texts
    INFO("scheduler " << static_cast<int>(scheduler));
    setup.scheduler = scheduler;
    auto const served = make_served(setup);
    CHECK(serve_all(*served, requests) == expected);
    CHECK(served->statistics().launches < served->statistics().ticks);
  }
}

TEST_CASE("ticks per launch are limited, and one where recursions run layers of their own") {
  auto setup = expert_setup();
  setup.options.ticks_per_launch = 4;
  CHECK(make_served(setup)->options().ticks_per_launch == 4);
  auto apart = setup;
  apart.model = tiny_model(RouterKind::AllTokens, CacheKind::RecursionWise, SharingKind::Sequence);
  apart.model.num_hidden_layers += apart.model.recursion.num_recursions;
  apart.scheduler = Schedulers::NoRefill;
  apart.shipped_scheduler = false;
  CHECK(make_served(apart)->options().ticks_per_launch == 1);
  for (Index const ticks : {-1, 0, 1025}) {
    setup.options.ticks_per_launch = ticks;
    CHECK(fails_with(
        ErrorCode::InvalidArgument, [&] { static_cast<void>(make_served(setup)); }, "ticks_per_launch"));
  }
}

TEST_CASE("a request that is cancelled in the middle of launches of several ticks leaves the others as they were") {
  auto setup = expert_setup();
  setup.options.ticks_in_flight = 2;
  setup.options.ticks_per_launch = 6;
  auto const requests = mixed_requests(20, setup.model, 12, 12);
  auto const expected = serve_all(*make_served(setup), requests);
  for (auto const reports : {ReportsArrive::AtOnce, ReportsArrive::Late}) {
    setup.reports = reports;
    auto const served = make_served(setup);
    Outcomes outcomes;
    std::vector<infer::RequestId> ids;
    for (auto const& request : requests) outcomes.expect(ids.emplace_back(served->submit(request)), request.prompt);
    for (std::size_t steps = 0; !served->idle(); ++steps) {
      if (steps % 2 == 1 && steps < ids.size()) served->cancel(ids[steps]);
      outcomes.take(served->step());
    }
    CHECK(outcomes.complaint().empty());
    CHECK(outcomes.finished() == 20);
    Index cancelled = 0;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      auto const& outcome = outcomes.of(ids[i]);
      if (outcome.reason == infer::FinishReason::Cancelled) {
        ++cancelled;
      } else {
        CHECK(outcome == expected[i]);
      }
    }
    CHECK(cancelled > 0);
    served->drop_prefixes();
    CHECK(served->statistics().free_pages == served->statistics().total_pages);
  }
}
