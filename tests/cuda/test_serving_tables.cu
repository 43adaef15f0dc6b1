// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.cuh"
#include "cuda/serving_pair.cuh"

#include "mor/backend/cuda/ops/serving_tables.cuh"
#include "mor/backend/host/serving_tables.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <set>
#include <span>
#include <vector>

using namespace mor;

namespace {

using Arch = cuda::Sm90;

/// Tables and a report in both memories, on which each verb runs on both sides.
struct Sides {
  test::Device& device;
  test::RandomTables& random;
  test::WordPair words, report;
  Index finished_room;

  Sides(test::Device& d, test::RandomTables& r, Index finished, Index sampled)
      : device(d),
        random(r),
        words(d, r.words),
        report(d, std::vector<Row>(static_cast<std::size_t>(ServingReport::size(finished, sampled)), -5)),
        finished_room(finished) {}

  [[nodiscard]] ServingTables host() { return {random.shape, words.host.data()}; }
  [[nodiscard]] ServingTables on_device() { return {random.shape, words.device.span().data()}; }
  [[nodiscard]] ServingReport host_report() { return {report.host, finished_room}; }
  [[nodiscard]] ServingReport device_report() { return {report.device.span(), finished_room}; }

  void start(TickRule const& rule, test::ListPair& rows) {
    host::start_recursion(host(), rule, rows.host.rows());
    cuda::start_recursion<Arch>(device.context(), on_device(), rule, rows.device.rows());
    REQUIRE(rows.same());
    REQUIRE(words.same());
  }
  [[nodiscard]] std::vector<float> scores_of(test::ListPair& rows) {
    std::vector<float> scores;
    for (Row const cell : rows.host.lists[0]) {
      bool const real = scores.size() < static_cast<std::size_t>(rows.host.count[0]);
      float const threshold = real ? math::word_float(host().at(host().threshold(host().at(host().slot(cell))))) : 0.0F;
      float const special[4] = {threshold, std::numeric_limits<float>::quiet_NaN(),
                                std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()};
      Row const kind = random.draw(0, 11);
      scores.push_back(kind < 4 ? special[kind] : random.draw_float());
    }
    return scores;
  }
  [[nodiscard]] test::DeviceMatrix<float> to_device(std::vector<float> const& values) {
    return {device, static_cast<Index>(values.size()), 1, std::vector<double>(values.begin(), values.end())};
  }
  /// @param scored  false: no scores
  void finish(test::ListPair& rows, bool scored) {
    auto const scores = scores_of(rows);
    auto const device_scores = to_device(scores);
    std::span<float const> const on_host(scores), there = device_scores.span();
    host::finish_recursion(host(), rows.host.rows(), scored ? on_host : on_host.first(0), host_report());
    cuda::finish_recursion<Arch>(device.context(), on_device(), rows.device.rows(), scored ? there : there.first(0),
                                 device_report());
    REQUIRE(words.same());
    REQUIRE(report.same());
  }
  void collect(TickRule const& rule, test::ListPair& rows, test::SampledPair& sampled) {
    host::collect_finished(host(), rule, host_report(), rows.host.rows(), sampled.host());
    cuda::collect_finished<Arch>(device.context(), on_device(), rule, device_report(), rows.device.rows(), sampled.device());
    REQUIRE(rows.same());
    REQUIRE(sampled.same());
    REQUIRE(words.same());
  }
  void finish_and_collect(TickRule const& rule, test::ListPair& rows, bool scored, test::ListPair& finished, test::SampledPair& sampled) {
    auto const scores = scores_of(rows);
    auto const device_scores = to_device(scores);
    std::span<float const> const on_host(scores), there = device_scores.span();
    host::finish_recursion(host(), rows.host.rows(), scored ? on_host : on_host.first(0), host_report());
    host::collect_finished(host(), rule, host_report(), finished.host.rows(), sampled.host());
    cuda::finish_and_collect<Arch>(device.context(), on_device(), rule, rows.device.rows(), scored ? there : there.first(0), device_report(),
                                   finished.device.rows(), sampled.device());
    REQUIRE(finished.same());
    REQUIRE(sampled.same());
    REQUIRE(words.same());
    REQUIRE(report.same());
  }
  [[nodiscard]] std::vector<Row> draw_tokens(std::size_t count) {
    std::vector<Row> tokens;
    for (std::size_t i = 0; i < count; ++i) tokens.push_back(random.draw(-1, 5));
    return tokens;
  }
  [[nodiscard]] std::vector<float> draw_logs(std::size_t count) {
    std::vector<float> logs;
    for (std::size_t i = 0; i < count; ++i) logs.push_back(random.draw_float());
    return logs;
  }
  void commit(test::ListPair& rows, test::SampledPair& sampled) {
    auto const tokens = draw_tokens(sampled.host_cells.size());
    auto const logs = draw_logs(tokens.size());
    test::WordPair const device_tokens(device, tokens);
    auto const device_logs = to_device(logs);
    host::commit_samples(host(), rows.host.rows(), sampled.host(), std::span<Token const>(tokens),
                         std::span<float const>(logs), host_report());
    cuda::commit_samples<Arch>(device.context(), on_device(), rows.device.rows(), sampled.device(),
                               device_tokens.device.span(), device_logs.span(), device_report());
    REQUIRE(words.same());
    REQUIRE(report.same());
  }
  /// New tokens go where those of the samples were.
  void commit_and_enter(test::ListPair& finished, test::SampledPair& sampled, test::ListPair& entering) {
    std::size_t const samples = sampled.host_cells.size(), rows = entering.host.lists[0].size();
    test::WordPair tokens(device, draw_tokens(std::max(samples, rows)));
    auto const logs = draw_logs(samples);
    auto const device_logs = to_device(logs);
    std::span<Row> const here(tokens.host), there = tokens.device.span();
    host::commit_samples(host(), finished.host.rows(), sampled.host(), std::span<Token const>(here.first(samples)), std::span<float const>(logs),
                         host_report());
    host::collect_entering(host(), entering.host.rows(), here.first(rows), host_report());
    cuda::commit_and_collect<Arch>(device.context(), on_device(), finished.device.rows(), sampled.device(), there.first(samples),
                                   device_logs.span(), device_report(), entering.device.rows(), there.first(rows));
    REQUIRE(entering.same());
    REQUIRE(tokens.same());
    REQUIRE(words.same());
    REQUIRE(report.same());
  }
  void enter(test::ListPair& rows) {
    test::WordPair tokens(device, std::vector<Row>(rows.host.lists[0].size(), -3));
    host::collect_entering(host(), rows.host.rows(), tokens.host, host_report());
    cuda::collect_entering<Arch>(device.context(), on_device(), rows.device.rows(), tokens.device.span(),
                                 device_report());
    REQUIRE(rows.same());
    REQUIRE(tokens.same());
    REQUIRE(words.same());
    REQUIRE(report.same());
  }
};

/// The first tick's takes all rows.
TickRule random_rule(test::RandomTables& random, ServingShape const& shape, int tick) {
  if (tick == 0) return {};
  TickRule rule;
  rule.one_depth = tick == 1;
  rule.in_step = random.draw(0, 3) == 0;
  if (random.draw(0, 1) == 0) rule.most_rows = random.draw(1, static_cast<Row>(shape.slots) + 2);
  rule.least_finished = random.draw(0, static_cast<Row>(shape.slots));
  return rule;
}

/// Ticks on random tables; lists of the recursion hold `room` rows, the others a part of them.
void check_ticks(test::Device& device, ServingShape const& shape, test::Cells cells, std::size_t room, unsigned seed) {
  CAPTURE(shape.slots, shape.prompt_cells, shape.recursions, shape.dense_lists, static_cast<int>(cells), room, seed);
  test::RandomTables random(shape, cells, seed);
  std::size_t const finished_room = room - room / 3, sampled_room = room / 2;
  Sides sides(device, random, static_cast<Index>(finished_room), static_cast<Index>(sampled_room));
  for (int tick = 0; tick < 3; ++tick) {
    CAPTURE(tick);
    bool const every_list = tick == 2;
    test::ListPair recursion(device, room, every_list ? test::kAllLists : test::kRecursionLists),
        finished(device, finished_room, every_list ? test::kAllLists : test::kFinishedLists),
        entering(device, room / 2, every_list ? test::kAllLists : test::kEnteringLists);
    test::SampledPair sampled(device, sampled_room);
    TickRule const rule = random_rule(random, shape, tick);
    CAPTURE(rule.one_depth, rule.in_step, rule.most_rows, rule.least_finished);
    sides.start(rule, recursion);
    if ((static_cast<unsigned>(tick) + seed) % 2 == 0) {  // in one launch
      sides.finish_and_collect(rule, recursion, tick != 1, finished, sampled);
      sides.commit_and_enter(finished, sampled, entering);
    } else {
      sides.finish(recursion, tick != 1);
      sides.collect(rule, finished, sampled);
      sides.commit(finished, sampled);
      sides.enter(entering);
    }
  }
}

[[nodiscard]] ServingShape shape_of(Index slots, Index prompt_cells, Index recursions, bool dense) {
  return {slots, prompt_cells, recursions, 20, 8, dense};
}

}  // namespace

TEST_CASE("serving tables on the device are the host's, word for word", "[cuda][quick]") {
  test::Device device;
  unsigned seed = 1;
  for (auto const& [slots, prompt_cells] : {std::array<Index, 2>{1, 0},
                                            {1, 7},
                                            {5, 0},
                                            {31, 1},
                                            {32, 0},
                                            {33, 64},
                                            {64, 200},
                                            {256, 700},
                                            {600, 424},
                                            {600, 425},
                                            {600, 2000}}) {
    for (Index const recursions : {1, 3, 4}) {
      bool const dense = (slots + recursions) % 2 == 0;
      auto const cells = static_cast<std::size_t>(slots + prompt_cells);
      check_ticks(device, shape_of(slots, prompt_cells, recursions, dense), test::Cells::Mixed, cells + 3, seed++);
    }
  }
}

TEST_CASE("lists on the device that are shorter than what qualifies end where the host's do", "[cuda][quick]") {
  test::Device device;
  unsigned seed = 100;
  for (std::size_t const room : {0, 1, 2, 31, 60, 300, 1025}) {
    check_ticks(device, shape_of(60, 50, 3, false), test::Cells::Mixed, room, seed++);
    check_ticks(device, shape_of(400, 1800, 3, true), test::Cells::Mixed, room, seed++);
    check_ticks(device, shape_of(400, 1800, 2, false), test::Cells::AllFinished, room, seed++);
    check_ticks(device, shape_of(600, 10, 2, false), test::Cells::AllEntering, room, seed++);
  }
}

TEST_CASE("empty and full serving tables on the device are the host's", "[cuda][quick]") {
  test::Device device;
  unsigned seed = 200;
  for (auto const cells :
       {test::Cells::AllIdle, test::Cells::AllEntering, test::Cells::AllReady, test::Cells::AllFinished}) {
    for (auto const& [slots, prompt_cells] : {std::array<Index, 2>{3, 0}, {64, 64}, {512, 2000}}) {
      auto const room = static_cast<std::size_t>(slots + prompt_cells);
      check_ticks(device, shape_of(slots, prompt_cells, 3, false), cells, room, seed++);
    }
  }
}

TEST_CASE("serving tables with more cells and more lists than a block holds at once are the host's", "[cuda]") {
  test::Device device;
  check_ticks(device, shape_of(512, 9000, 3, false), test::Cells::Mixed, 9512, 300);
  check_ticks(device, shape_of(512, 9000, 3, false), test::Cells::AllReady, 9000, 301);
  check_ticks(device, shape_of(600, 300, 40, false), test::Cells::Mixed, 900, 302);  // 24000 lists
  check_ticks(device, shape_of(2000, 3000, 9, true), test::Cells::AllReady, 5000, 303);
}

TEST_CASE("a run of one slot's rows is counted across warps, steps and rounds", "[cuda][quick]") {
  test::Device device;
  for (Index const prompt_cells : {100, 1500, 6000}) {
    ServingShape const shape = shape_of(2, prompt_cells, 2, false);
    for (Row const every : {1, 3, 40, 5000}) {  // a Ready cell in so many
      test::RandomTables random(shape, test::Cells::AllReady, 7);
      auto const t = random.tables();
      for (Index cell = 0; cell < shape.cells(); ++cell) {
        t.at(t.slot(cell)) = cell < 2 ? static_cast<Row>(cell) : 1;
        t.at(t.depth(cell)) = 1;
        if (cell > 1 && (cell - 2) % every != 0) t.at(t.status(cell)) = static_cast<Row>(CellStatus::Idle);
      }
      CAPTURE(prompt_cells, every);
      Sides sides(device, random, 1, 1);
      test::ListPair rows(device, static_cast<std::size_t>(shape.cells()), test::kRecursionLists);
      sides.start({}, rows);
      Row const last = rows.host.count[0] - 1;  // the rank of the last row: all rows but the first are slot 1's
      REQUIRE(rows.device.lists[4].values()[static_cast<std::size_t>(last)] == t.at(t.length(1, 1)) + last);
      sides.finish(rows, true);
    }
  }
}

TEST_CASE("launches of one depth take the host's depths, the crowded ones and those passed over long", "[cuda][quick]") {
  test::Device device;
  for (auto const& [prompt_cells, recursions] : {std::array<Index, 2>{20, 3}, {300, 40}, {3000, 5}}) {
    CAPTURE(prompt_cells, recursions);
    ServingShape const shape = shape_of(10, prompt_cells, recursions, false);
    test::RandomTables random(shape, test::Cells::AllReady, 11);
    auto const t = random.tables();
    for (Index cell = 0; cell < shape.cells(); ++cell) t.at(t.depth(cell)) = static_cast<Row>(cell < recursions ? cell : 1);
    for (Index depth = 0; depth < recursions; ++depth) t.at(t.passed_over(depth)) = 0;
    Sides sides(device, random, 1, 1);
    std::set<Row> taken;
    for (Row launch = 0; launch < 2 * (math::kPatience + static_cast<Row>(recursions)); ++launch) {
      test::ListPair rows(device, static_cast<std::size_t>(shape.cells()), test::kRecursionLists);
      sides.start({.one_depth = true}, rows);
      taken.insert(rows.host.lists[2].front());
    }
    REQUIRE(static_cast<Index>(taken.size()) == recursions);
  }
}
