// SPDX-License-Identifier: Apache-2.0
// Which rows a rule lets take part in a tick.
#include "support/catch.hpp"

#include "mor/backend/host/serving_tables.hpp"
#include "mor/infer/scheduler.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <random>
#include <vector>

using namespace mor;

namespace {

/// Tables whose cells serve the slots of their own number, prompt cells the first slot; and lists with room for all.
struct Desk {
  ServingShape shape;
  std::vector<Row> words;
  std::array<std::vector<Row>, 11> lists;
  std::vector<Row> report;
  std::vector<SamplingRule> rules;

  Desk(Index slots, Index prompt_cells, Index recursions = 3) : shape{slots, prompt_cells, recursions, 4, 4, false} {
    words.assign(static_cast<std::size_t>(ServingTables{shape, nullptr}.size()), 0);
    for (auto& list : lists) list.assign(static_cast<std::size_t>(shape.cells()), 0);
    report.assign(static_cast<std::size_t>(ServingReport::size(shape.cells(), shape.cells())), 0);
    rules.resize(static_cast<std::size_t>(shape.cells()));
    for (Index slot = 0; slot < slots; ++slot) tables().at(tables().slot(slot)) = static_cast<Row>(slot);
  }
  [[nodiscard]] ServingTables tables() { return {shape, words.data()}; }
  void set(Index cell, CellStatus status, Index depth = 0) {
    tables().at(tables().status(cell)) = static_cast<Row>(status);
    tables().at(tables().depth(cell)) = static_cast<Row>(depth);
  }
  /// @return the cells that a recursion takes
  std::vector<Row> recursion(TickRule const& rule) {
    std::vector<Row> count(1);
    host::start_recursion(tables(), rule,
                          {lists[0], lists[1], lists[2], lists[3], lists[4], lists[5], lists[6], lists[7], {}, {}, count});
    return {lists[0].begin(), lists[0].begin() + count[0]};
  }
  /// @return the cells that the coda takes after a recursion that left so many rows
  std::vector<Row> finish(TickRule const& rule, Row ready, Row waiting) {
    report[ServingReport::ReadyRows] = ready;
    report[ServingReport::WaitingRows] = waiting;
    std::vector<Row> count(1), drawn(1);
    host::collect_finished(tables(), rule, {report, shape.cells()}, {lists[0], lists[1], lists[2], lists[3], lists[4], {}, {}, {}, {}, {}, count},
                           {lists[8], lists[9], rules, drawn});
    return {lists[0].begin(), lists[0].begin() + count[0]};
  }
};

}  // namespace

TEST_CASE("a window has as many ready slots as it may, from the one on whose turn it is, and all where they fit") {
  std::mt19937 engine(3);
  auto const draw = [&](Row least, Row most) { return std::uniform_int_distribution<Row>(least, most)(engine); };
  for (int trial = 0; trial < 20000; ++trial) {
    Row const slots = draw(1, trial % 3 == 0 ? 5 : 140), begin = draw(0, slots - 1), most = draw(1, slots + 3);
    std::vector<bool> ready(static_cast<std::size_t>(slots));
    std::vector<std::uint32_t> bits(static_cast<std::size_t>(slots / 32 + 1), 0);
    Row const of_ten = draw(0, 10);
    for (Row s = 0; s < slots; ++s) {
      if (draw(1, 10) > of_ten) continue;
      ready[static_cast<std::size_t>(s)] = true;
      bits[static_cast<std::size_t>(s / 32)] |= std::uint32_t{1} << (s % 32);
    }
    Row length = 0, taken = 0;
    for (; length < slots; ++length) {
      bool const here = ready[static_cast<std::size_t>((begin + length) % slots)];
      if (here && taken == most) break;
      taken += here ? 1 : 0;
    }
    auto const window = math::window_of_launch(bits.data(), slots, begin, most);
    CAPTURE(slots, begin, most);
    REQUIRE(window.begin == begin);
    REQUIRE(window.length == length);
    REQUIRE(window.end(slots) == (begin + length) % slots);
    for (Row s = 0; s < slots; ++s) REQUIRE(window.holds(s, slots) == ((s - begin + slots) % slots < length));
  }
}

TEST_CASE("a recursion of at most so many decoding rows takes them in turns, and every row of a prompt beside them") {
  Desk desk(70, 4);
  for (Index slot = 0; slot < 70; ++slot) desk.set(slot, slot % 7 == 0 ? CellStatus::Idle : CellStatus::Ready);
  desk.set(72, CellStatus::Ready);
  desk.set(73, CellStatus::Ready);
  std::vector<int> launches(70, 0);
  for (int tick = 0; tick < 60; ++tick) {
    auto const cells = desk.recursion({.most_rows = 18});
    REQUIRE(cells.size() == 18);
    REQUIRE(std::is_sorted(cells.begin(), cells.end()));
    REQUIRE(cells[16] == 72);
    for (std::size_t i = 0; i < 16; ++i) ++launches[static_cast<std::size_t>(cells[i])];
  }
  for (Index slot = 0; slot < 70; ++slot) {  // 60 ticks of 16 rows for 60 slots
    REQUIRE(launches[static_cast<std::size_t>(slot)] == (slot % 7 == 0 ? 0 : 16));
  }
  CHECK(desk.recursion({.most_rows = 62}).size() == 62);
  CHECK(desk.recursion({.most_rows = 1000}).size() == 62);
  CHECK(desk.recursion({}).size() == 62);
  CHECK(desk.recursion({.most_rows = 4}).size() == 4);
  CHECK(desk.recursion({.most_rows = 3}).size() == 4);  // half of it, rounded up, decodes
  CHECK(desk.recursion({.most_rows = 1}).size() == 3);
}

TEST_CASE("a recursion of one depth and at most so many rows has rows of that depth alone") {
  Desk desk(20, 0);
  for (Index slot = 0; slot < 20; ++slot) desk.set(slot, CellStatus::Ready, slot % 3);
  for (int tick = 0; tick < 3; ++tick) {  // depths 0 and 1 have seven rows, and the deeper one comes first
    auto const cells = desk.recursion({.one_depth = true, .most_rows = 4});
    REQUIRE(cells.size() == 4);
    for (Row const cell : cells) REQUIRE(cell % 3 == 1);
  }
}

TEST_CASE("the coda takes all rows or, where its rule has others wait for more of them, none") {
  struct Case {
    TickRule rule;
    Row ready, waiting;
    bool runs;
  };
  for (auto const& [rule, ready, waiting, runs] :
       {Case{{}, 5, 2, true}, Case{{.least_finished = 3}, 5, 2, false}, Case{{.least_finished = 2}, 5, 2, true},
        Case{{.least_finished = 3}, 0, 2, true}, Case{{.in_step = true}, 1, 2, false}, Case{{.in_step = true}, 0, 2, true},
        Case{{.in_step = true, .least_finished = 1}, 4, 2, false}, Case{{.one_depth = true}, 5, 2, true}, Case{{.most_rows = 1}, 5, 2, true}}) {
    Desk desk(8, 0);
    desk.set(3, CellStatus::Finished);
    desk.set(6, CellStatus::Finished);
    CAPTURE(rule.in_step, rule.least_finished, ready);
    CHECK(desk.finish(rule, ready, waiting) == (runs ? std::vector<Row>{3, 6} : std::vector<Row>{}));
    CHECK(desk.tables().at(3) == static_cast<Row>(runs ? CellStatus::Idle : CellStatus::Finished));
    CHECK(rule.finishes(ready, waiting) == runs);
  }
}

TEST_CASE("every shipped scheduler but the plain tick has rows wait for others") {
  CHECK_FALSE(infer::TickScheduler{}.rule().holds_back());
  CHECK_FALSE(infer::LazyTickScheduler{1}.rule().holds_back());
  CHECK(infer::LazyTickScheduler{2}.rule().holds_back());
  CHECK(infer::FullBatchScheduler{}.rule().holds_back());
  CHECK(infer::FullDepthScheduler{}.rule().holds_back());
  CHECK(infer::NoRefillScheduler{}.rule().holds_back());
  CHECK(infer::HomogeneousScheduler{}.rule().holds_back());
}
