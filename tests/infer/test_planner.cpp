// SPDX-License-Identifier: Apache-2.0
// The host's half of an engine alone, without backend and model: reports are written by hand.
#include "infer/planner_desk.hpp"

#include "mor/infer/launch_sizes.hpp"

#include <algorithm>
#include <map>

using namespace mor;
using namespace mor::infer;

namespace {

PlannerSetup small_setup() {
  PlannerSetup setup;
  setup.shape = {3, 12, 3, 40, 4, false};
  setup.block_lists = 3;
  setup.block_pages = 90;
  setup.end_pages = 30;
  setup.has_ends = true;
  setup.vocab_size = 100;
  setup.survival = {1.0, 0.5, 0.25};
  setup.options.slots = 3;
  setup.options.prefill_rows = 12;
  setup.options.prefill_chunk = 8;
  setup.options.page_size = 4;
  setup.options.context = 40;
  return setup;
}

using Desk = test::PlannerDesk;

std::vector<Event> events_of(Planner& planner) {
  auto const events = planner.hand_out_events();
  return {events.begin(), events.end()};
}

}  // namespace

TEST_CASE("a prompt takes pages chunk by chunk, as if each of its tokens went all the way") {
  Desk desk(small_setup());
  desk.submit(13);
  auto demand = desk.plan();
  CHECK(demand.prompt_rows == 8);
  CHECK(demand.entering_prompt == 8);
  CHECK(demand.ending_prompts == 0);
  CHECK(demand.decoding == 0);
  CHECK(demand.longest == 8);
  CHECK(desk.used() == 3 * 2);
  CHECK(desk.used_ends() == 2);
  CHECK(desk.tables.at(desk.tables.pending(0)) == 8);
  CHECK(desk.plan().entering_prompt == 0);  // still on its way
  CHECK(desk.used() == 3 * 2);

  desk.finish_chunk(0, 1);
  demand = desk.plan();
  CHECK(demand.entering_prompt == 5);
  CHECK(demand.ending_prompts == 1);
  CHECK(demand.rows() == 5);  // its own cell may be at work as soon as the chunk's last row is through: in that one's place
  // List 0 holds 13 keys; the others none of the first chunk and at most 5 of this one.
  CHECK(desk.used() == 4 + 2 + 2);
  CHECK(desk.used_ends() == 4);
  CHECK(demand.longest == 14);  // a bound: with the token that the last chunk makes

  // The last row is through, and made a token: it decodes beside the four that are still on their way.
  Row const last = static_cast<Row>(desk.tables.shape.slots) + 4;
  desk.words[static_cast<std::size_t>(desk.tables.status(last))] = static_cast<Row>(CellStatus::Idle);
  desk.report(desk.tick, {{last, 1}}, {{0, 50, false}});
  demand = desk.plan();
  CHECK(demand.decoding == 1);
  CHECK(demand.prompt_rows == 4);
  CHECK(demand.rows_of_text == 5);
}

TEST_CASE("a prompt of one token never has two rows at work") {
  Desk desk(small_setup());
  desk.submit(1);
  desk.submit(3);
  CHECK(desk.plan().rows_of_text == 3);
  desk.finish_chunk(1, 1, {{1, 50, false}});
  auto const demand = desk.plan();  // the first text's row, or its own cell's; the second decodes
  CHECK(demand.rows() == 2);
  CHECK(demand.rows_of_text == 1);
}

TEST_CASE("all but one of a prompt's rows may have left before it is known, and none of a text that decodes") {
  Desk desk(small_setup());
  desk.submit(1);
  desk.submit(3);
  auto demand = desk.plan();
  CHECK(demand.prompt_rows == 4);
  CHECK(demand.loose_rows == 2);
  desk.finish_chunk(1, 1, {{1, 50, false}});
  demand = desk.plan();
  CHECK(demand.rows() == 2);
  CHECK(demand.loose_rows == 0);
}

TEST_CASE("launch sizes have room for all rows and at most half as many more, a quarter where they are many") {
  Index before = 0;
  for (Index rows = 1; rows < 5000; ++rows) {
    Index const size = launch_size(rows);
    REQUIRE(size >= std::max(rows, before));
    REQUIRE(launch_size(size) == size);
    if (rows > 8) REQUIRE(2 * size <= 3 * rows);
    if (rows > 512) REQUIRE(4 * size <= 5 * rows);
    before = size;
  }
  LaunchSizes const sizes{true, 64};
  CHECK(sizes.coda(48, 0) == 48);
  CHECK(sizes.coda(2048, 0) == 64);
  CHECK(sizes.coda(2048, 1000) == 1280);
  CHECK(sizes.coda(96, 1000) == 96);
  CHECK_FALSE(sizes.too_loose(64, 0, 64));  // few
  CHECK_FALSE(sizes.too_loose(65, 40, 10));
  CHECK(sizes.too_loose(65, 40, 11));
}

TEST_CASE("a decoding slot has room for the tokens that may be on their way, and no more than its text can hold") {
  Desk desk(small_setup());
  desk.submit(4, 6);
  desk.plan();
  desk.finish_chunk(0, 3, {{0, 50, false}});
  CHECK(desk.used() == 3);
  auto demand = desk.plan();
  CHECK(demand.decoding == 1);
  CHECK(demand.prompt_rows == 0);
  CHECK(demand.longest == 6);  // 5 tokens, and the one that this tick may make
  CHECK(desk.used() == 3 * 2);
  demand = desk.plan(3);
  CHECK(demand.longest == 9);
  CHECK(desk.used() == 3 * 3);
  demand = desk.plan(30);
  CHECK(demand.longest == 9);  // the last of 10 tokens is never read
  CHECK(desk.used() == 3 * 3);
  CHECK(desk.used_ends() == 3);
}

TEST_CASE("tokens that leave early take no pages deeper down") {
  Desk desk(small_setup());
  desk.submit(8, 30);
  desk.plan();
  desk.finish_chunk(0, 1, {{0, 50, false}});
  for (Index i = 0; i < 20; ++i) {
    desk.plan();
    desk.report(desk.tick, {{0, 1}}, {{0, 51, false}});
  }
  // 28 keys and the next one in list 0; in the others the one that might go deeper.
  desk.plan();
  CHECK(desk.used() == 8 + 2 + 2);
}

TEST_CASE("dense lists hold every token whatever its depth") {
  auto setup = small_setup();
  setup.shape.dense_lists = true;
  Desk desk(setup);
  desk.submit(8, 30);
  desk.plan();
  desk.finish_chunk(0, 1, {{0, 50, false}});
  desk.plan();
  CHECK(desk.used() == 3 * 3);
}

TEST_CASE("events carry tokens in order and end with what became of the request") {
  Desk desk(small_setup());
  auto const id = desk.submit(2, 2);
  CHECK(desk.planner.hand_out_events().empty());
  desk.plan();
  desk.finish_chunk(0, 2, {{0, 50, false}});
  auto events = events_of(desk.planner);
  REQUIRE(events.size() == 1);
  CHECK(events[0].request == id);
  CHECK(events[0].kind == EventKind::Token);
  CHECK(events[0].token == 50);
  CHECK(events[0].position == 2);
  CHECK(events[0].depth == 2);
  CHECK(events[0].log_probability == -1.5);
  desk.plan();
  desk.report(desk.tick, {{0, 3}}, {{0, 51, true}});
  events = events_of(desk.planner);
  REQUIRE(events.size() == 2);
  CHECK(events[0].token == 51);
  CHECK(events[1].kind == EventKind::Finished);
  CHECK(events[1].reason == FinishReason::Length);
  CHECK(events[1].position == 4);
  CHECK(events[1].prompt_tokens == 2);
  CHECK(events[1].cost == 2 + 2 + 3);
  CHECK(std::vector<Row>(events[1].depths.begin(), events[1].depths.end()) == std::vector<Row>{2, 2, 3});
  CHECK(desk.planner.idle());
}

TEST_CASE("reports of ticks before a request came speak of the slot's earlier guest and are ignored") {
  Desk desk(small_setup());
  auto const gone = desk.submit(2, 20);
  desk.plan();
  desk.finish_chunk(0, 1, {{0, 50, false}});
  desk.plan();  // ticks 2 and 3 are on their way
  desk.plan(1);
  REQUIRE(desk.planner.cancel(gone));
  auto const next = desk.submit(2, 20, 30);
  desk.plan(2);
  CHECK(desk.tables.at(desk.tables.status(0)) == static_cast<Row>(CellStatus::Idle));
  static_cast<void>(events_of(desk.planner));
  desk.report(2, {{0, 3}}, {{0, 51, false}});
  desk.report(3, {{0, 3}}, {{0, 52, true}});
  CHECK(events_of(desk.planner).empty());
  desk.finish_chunk(0, 1, {{0, 53, false}});
  auto const events = events_of(desk.planner);
  REQUIRE(events.size() == 1);
  CHECK(events[0].request == next);
  CHECK(events[0].token == 53);
  CHECK(desk.planner.statistics().depths == std::vector<Index>{0, 4, 0, 0});
}

TEST_CASE("where pages run out the youngest request gives its own back, and is the first to return") {
  auto setup = small_setup();
  setup.block_pages = 30;  // 3 lists of 5 pages for each request that goes all the way: 45
  setup.options.admission_margin = 0.0;
  setup.options.prefix_cache = false;
  Desk desk(setup);
  std::vector<RequestId> ids;
  for (Token const first : {1, 20, 40}) ids.push_back(desk.submit(4, 16, first));
  desk.plan();
  REQUIRE(desk.planner.statistics().running == 3);
  auto const waiting = desk.submit(1, 1);
  while (desk.planner.statistics().preempted == 0) {
    desk.run_all(3);
    desk.plan();
  }
  CHECK(desk.planner.statistics().preempted == 1);
  CHECK(desk.tables.at(desk.tables.status(2)) == static_cast<Row>(CellStatus::Idle));
  std::vector<RequestId> finished;
  std::map<RequestId, Index> made;
  int returned = 0, answered = 0;  // when the pre-empted one made its next token, and when the one behind it did
  for (int i = 1; i < 500 && finished.size() < 4; ++i) {
    desk.run_all(3);
    for (auto const& event : desk.planner.hand_out_events()) {
      if (event.kind == EventKind::Finished) {
        finished.push_back(event.request);
        CHECK(event.reason == FinishReason::Length);
      } else {
        if (event.request == ids[2] && returned == 0) returned = i;
        if (event.request == waiting) answered = i;
        CHECK(event.position == (event.request == waiting ? 1 : 4) + made[event.request]++);
      }
    }
    desk.plan();
  }
  CHECK(finished.size() == 4);
  CHECK(finished.front() == ids[0]);
  CHECK(returned < answered);
  for (auto const id : ids) CHECK(made[id] == 16);
  CHECK(desk.used() == 0);
  CHECK(desk.used_ends() == 0);
}

TEST_CASE("a text that begins as a kept one starts with its pages: whole ones shared, the last one of a list copied") {
  Desk desk(small_setup());
  desk.submit(7, 1);
  desk.plan();
  desk.report(desk.tick, {{3, 1}, {4, 3}, {5, 3}, {6, 1}, {7, 1}, {8, 2}, {9, 2}}, {{0, 60, true}});
  auto const first_list = desk.list(0, 0, 2), second_list = desk.list(1, 0, 1), third_list = desk.list(2, 0, 1);
  CHECK(desk.planner.statistics().cached_pages == 2 + 1 + 1);
  CHECK(desk.used() == 4);
  for (Index i = 0; i < 7; ++i) desk.words[static_cast<std::size_t>(desk.tables.status(3 + i))] = 0;

  Request request;
  request.prompt = {1, 2, 3, 4, 5, 6, 7, 70, 71};
  desk.planner.submit(request);
  auto const demand = desk.plan();
  CHECK(demand.prompt_rows == 2);
  auto const now = desk.planner.statistics();
  CHECK(now.prefix_hits == 1);
  CHECK(now.prefix_tokens == 7);
  // List 0: a whole page of 4 keys and 3 more; list 1: 4 keys, a whole page; list 2: 2 keys.
  CHECK(desk.list(0, 0, 1)[0] == first_list[0]);
  CHECK(desk.list(0, 0, 2)[1] != first_list[1]);
  CHECK(desk.list(1, 0, 1)[0] == second_list[0]);
  CHECK(desk.list(2, 0, 1)[0] != third_list[0]);
  REQUIRE(desk.copies.size() == 3);
  auto const copied = [&](bool ends, Row from, Row to, Index keys) {
    return std::any_of(desk.copies.begin(), desk.copies.end(), [&](PageCopy const& c) {
      return c.ends == ends && c.from == from && c.to == to && c.keys == keys;
    });
  };
  CHECK(copied(false, first_list[1], desk.list(0, 0, 2)[1], 3));
  CHECK(copied(false, third_list[0], desk.list(2, 0, 1)[0], 2));
  CHECK(std::count_if(desk.copies.begin(), desk.copies.end(),
                      [](PageCopy const& c) { return c.ends && c.keys == 3; }) == 1);
  for (Index r = 0; r < 3; ++r)
    CHECK(desk.tables.at(desk.tables.length(r, 0)) == std::vector<Index>{7, 4, 2}[static_cast<std::size_t>(r)]);
  // 9 keys in list 0, at most 6 and 4 in the others; the kept prefix holds a copied page of two lists for itself.
  CHECK(desk.used() == 3 + 2 + 1 + 2);
  CHECK(now.cached_pages == 2);
  desk.planner.drop_prefixes();
  CHECK(desk.used() == 3 + 2 + 1);
}

TEST_CASE("a waiting request does not flush kept prefixes that could not make room for it") {
  auto setup = small_setup();
  setup.block_pages = 30;
  Desk desk(setup);
  desk.submit(8, 1);  // leaves a prefix
  desk.plan();
  desk.finish_chunk(0, 1, {{0, 60, true}});
  REQUIRE(desk.planner.statistics().cached_pages == 2);
  desk.submit(4, 30, 40, {0.0, 3, 3});  // will need all but a few pages
  desk.plan();
  desk.submit(4, 35, 60, {0.0, 3, 3});
  for (int i = 0; i < 5; ++i) desk.plan();
  CHECK(desk.planner.statistics().queued == 1);
  CHECK(desk.planner.statistics().cached_pages == 2);
}

TEST_CASE("while an old request waits for pages no younger one is admitted in its way") {
  auto setup = small_setup();
  setup.block_pages = 17;
  setup.survival = {1.0, 0.0, 0.0};  // hardly anybody is expected to go deep
  setup.options.admission_margin = 0.0;
  setup.options.prefix_cache = false;
  Desk desk(setup);
  desk.submit(4, 5, 1);
  auto const prompt = desk.submit(16, 1, 20);
  desk.plan();
  desk.run_all(3);
  desk.plan();
  desk.run_all(3);
  CHECK(desk.plan().prompt_rows == 0);  // its last chunk wants 6 pages and there are 5
  CHECK(desk.planner.statistics().free_pages == 5);
  auto const small = desk.submit(1, 1, 90);  // expects to need 3
  std::vector<RequestId> finished;
  for (int i = 0; i < 50 && !desk.planner.idle(); ++i) {
    desk.run_all(3);
    for (auto const& event : desk.planner.hand_out_events()) {
      if (event.kind == EventKind::Finished) finished.push_back(event.request);
    }
    desk.plan();
    if (finished.empty()) CHECK(desk.planner.statistics().queued == 1);
  }
  CHECK(finished.size() == 3);
  CHECK(std::count(finished.begin(), finished.end(), prompt) == 1);
  CHECK(std::count(finished.begin(), finished.end(), small) == 1);
  CHECK(desk.planner.statistics().preempted == 0);
}

TEST_CASE("prompts that wait for each other's pages: the youngest gives way in the same tick") {
  auto setup = small_setup();
  setup.block_pages = 14;
  setup.survival = {1.0, 0.0, 0.0};
  setup.options.admission_margin = 0.0;
  setup.options.prefix_cache = false;
  setup.options.prefill_chunk = 4;
  Desk desk(setup);
  desk.submit(12, 1, 1);
  desk.submit(12, 1, 20);
  for (int i = 0; i < 50 && !desk.planner.idle(); ++i) {
    CHECK(desk.plan().rows() > 0);
    desk.run_all(3);
  }
  CHECK(desk.planner.idle());
  CHECK(desk.planner.statistics().preempted == 1);
  CHECK(desk.used() == 0);
}

TEST_CASE("two long prompts do not hold up a short one, nor short ones the oldest") {
  auto setup = small_setup();
  setup.shape.slots = setup.options.slots = 5;
  setup.shape.context = setup.options.context = 300;
  setup.block_pages = setup.end_pages = 2000;
  setup.vocab_size = 1000;
  Desk desk(setup);
  auto const first = desk.submit(200, 1), second = desk.submit(200, 1, 1, {0.5, 1, 3});
  desk.plan();
  desk.run_all(3);
  auto const last = desk.submit(3, 1, 90);
  std::map<RequestId, Index> ended;
  for (Index tick = 1; !desk.planner.idle() && tick < 500; ++tick) {
    desk.plan();
    desk.run_all(3);
    if (tick % 4 == 0 && tick < 80) desk.submit(4, 1, static_cast<Token>(1 + tick));  // short ones keep coming
    for (auto const& event : events_of(desk.planner)) {
      if (event.kind == EventKind::Finished) ended[event.request] = tick;
    }
  }
  CHECK(ended[last] == 2);  // it comes to a slot, and has cells with the next tick
  CHECK(ended[first] <= 200 / 8);  // a chunk of 8 in every tick
  CHECK(ended[first] < ended[second]);
  CHECK(static_cast<Index>(ended.size()) == desk.planner.statistics().submitted);
}

TEST_CASE("a request that is cancelled after pre-emption says how far it had come") {
  auto setup = small_setup();
  setup.block_pages = 30;
  setup.options.admission_margin = 0.0;
  setup.options.prefix_cache = false;
  for (Index const ticks_later : {0, 1}) {  // it waits; it is being read again
    Desk desk(setup);
    std::vector<RequestId> ids;
    for (Token const first : {1, 20, 40}) ids.push_back(desk.submit(4, 16, first));
    desk.plan();
    Index made = 0;
    while (desk.planner.statistics().preempted == 0) {
      desk.run_all(3);
      for (auto const& event : events_of(desk.planner)) made += event.request == ids[2] ? 1 : 0;
      desk.plan();
    }
    CHECK(made > 1);
    if (ticks_later > 0) {
      desk.planner.cancel(ids[0]);
      desk.planner.cancel(ids[1]);
      desk.plan();
      REQUIRE(desk.planner.running() == 1);
    }
    desk.planner.cancel(ids[2]);
    for (auto const& event : events_of(desk.planner)) {
      if (event.kind != EventKind::Finished || event.request != ids[2]) continue;
      CHECK(event.reason == FinishReason::Cancelled);
      CHECK(event.depths.size() == static_cast<std::size_t>(4 + made - 1));
      CHECK(event.cost == 3 * (4 + made - 1));
    }
  }
}

TEST_CASE("any of many waiting requests can be cancelled, those that were pre-empted too") {
  auto setup = small_setup();
  setup.block_pages = 30;
  setup.options.admission_margin = 0.0;
  setup.options.prefix_cache = false;
  Desk desk(setup);
  for (Token const first : {1, 20, 40}) desk.submit(4, 16, first);
  desk.plan();
  std::vector<RequestId> waiting;
  for (int i = 0; i < 20; ++i) waiting.push_back(desk.submit(2, 3));
  while (desk.planner.statistics().preempted == 0) {
    desk.run_all(3);
    desk.plan();
  }
  for (std::size_t const i : {5U, 19U, 0U, 6U}) {
    CHECK(desk.planner.cancel(waiting[i]));
    CHECK(!desk.planner.cancel(waiting[i]));
  }
  CHECK(desk.planner.cancel(3));  // pre-empted
  CHECK(!desk.planner.cancel(3));
  CHECK(!desk.planner.cancel(0));
  CHECK(!desk.planner.cancel(1000));
  CHECK(desk.planner.statistics().queued == 16);
  CHECK(desk.planner.statistics().cancelled == 5);
}
