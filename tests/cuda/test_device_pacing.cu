// SPDX-License-Identifier: Apache-2.0
// Ticks that the device goes on for by itself: loops in graphs, and what they leave in tables, reports and logs.
#include "cuda/device.cuh"
#include "cuda/device_present.hpp"
#include "cuda/serving_pair.cuh"

#include "mor/backend/cuda/backend.cuh"
#include "mor/backend/host/serving_tables.hpp"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

using namespace mor;

namespace {

using B = cuda::Backend<float>;
using Arch = B::architecture;

[[nodiscard]] std::vector<Row> download(B& backend, Buffer<Row> const& words) {
  std::vector<Row> result(static_cast<std::size_t>(words.size()));
  backend.download(std::span<Row const>(words.span()), std::span<Row>(result));
  return result;
}
template <class T>
[[nodiscard]] Buffer<T> stored(B& backend, std::vector<T> const& values) {
  Buffer<T> result(backend.memory(), static_cast<Index>(values.size()));
  backend.store(std::span<T const>(values), result.span());
  return result;
}

/// Words of tables, lists, report and log in one memory, and the scalar verbs of a tick on them.
struct TickMemory {
  ServingShape shape;
  Index room, most;
  Row* words;
  std::span<Row> lists;  ///< [15 * room]
  std::span<SamplingRule> rules;
  std::span<Row> report_words, log_words;

  [[nodiscard]] ServingTables tables() const { return {shape, words}; }
  [[nodiscard]] std::span<Row> list(Index i) const {
    return lists.subspan(static_cast<std::size_t>(i * room), static_cast<std::size_t>(room));
  }
  [[nodiscard]] ServingRows rows() const {
    return {list(0), list(1), list(2), list(3), list(4), list(5),
            list(6), list(7), list(8), list(9), list(13).first(1)};
  }
  [[nodiscard]] SampledRows sampled() const { return {list(10), list(11), rules, list(14).first(1)}; }
  [[nodiscard]] ServingReport report() const { return {report_words, room}; }
  [[nodiscard]] TickLog log() const { return {log_words, most, static_cast<Index>(report_words.size())}; }
};

/// The same tick on the device and on the host.
struct TickPair {
  TickPair(B& backend, ServingShape const& shape, Index most, unsigned seed)
      : random(shape, test::Cells::Mixed, seed),
        room(shape.cells()),
        lists(static_cast<std::size_t>(15 * room), 0),
        report(static_cast<std::size_t>(ServingReport::size(room, room)), 0),
        log(static_cast<std::size_t>(TickLog::size(most, static_cast<Index>(report.size()))), 0),
        rules(static_cast<std::size_t>(room)),
        scores(test::random_vector<float>(room, 4)),
        tokens(static_cast<std::size_t>(room)) {
    for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<Row>(i % 7) + 2;
    auto const tables = random.tables();
    tables.at(tables.answered()) = 0;
    for (Index slot = 0; slot < shape.slots; ++slot) {  // few texts end, so that launches go on
      tables.at(tables.end_token(slot)) = slot % 40 == 3 ? 4 : -1;
      tables.at(tables.last_position(slot)) = static_cast<Row>(shape.context) - 1;
    }
    // As in an engine, a slot has at most one row that makes a token.
    for (Index cell = shape.slots; cell < shape.cells(); ++cell) tables.at(tables.samples(cell)) = 0;
    device_words = stored(backend, random.words);
    device_lists = stored(backend, lists);
    device_report = stored(backend, report);
    device_log = stored(backend, log);
    device_scores = stored(backend, scores);
    device_tokens = stored(backend, tokens);
    device_rules = Buffer<SamplingRule>(backend.memory(), room);
    host = {shape, room, most, random.words.data(), lists, rules, report, log};
    device = {shape,
              room,
              most,
              device_words.data(),
              device_lists.span(),
              device_rules.span(),
              device_report.span(),
              device_log.span()};
  }
  void on_device(B& b, cuda::Loop const& loop) const {
    auto const rows = device.rows();
    b.fill(device_report.span().first(ServingReport::HeaderWords), Row{0});
    b.start_recursion(device.tables(), {}, rows);
    b.finish_recursion(device.tables(), rows, device_scores.span(), device.report());
    b.collect_finished(device.tables(), {}, device.report(), rows, device.sampled());
    b.commit_samples(device.tables(), rows, device.sampled(), device_tokens.span(), device_scores.span(),
                     device.report());
    b.collect_entering(device.tables(), rows, device.list(12), device.report());
    b.end_tick(device.tables(), device.report(), device.log(), loop);
  }
  bool on_host(bool looped) {
    auto const rows = host.rows();
    std::fill_n(report.begin(), static_cast<std::ptrdiff_t>(ServingReport::HeaderWords), 0);
    host::start_recursion(host.tables(), {}, rows);
    host::finish_recursion(host.tables(), rows, std::span<float const>(scores), host.report());
    host::collect_finished(host.tables(), {}, host.report(), rows, host.sampled());
    host::commit_samples(host.tables(), rows, host.sampled(), std::span<Token const>(tokens),
                         std::span<float const>(scores), host.report());
    host::collect_entering(host.tables(), rows, host.list(12), host.report());
    return host::end_tick(host.tables(), host.report(), host.log(), looped);
  }
  void check_same(B& b) const {
    REQUIRE(download(b, device_words) == random.words);
    REQUIRE(download(b, device_report) == report);
    REQUIRE(download(b, device_log) == log);
  }

  test::RandomTables random;
  Index room;
  std::vector<Row> lists, report, log;
  std::vector<SamplingRule> rules;
  std::vector<float> scores;
  std::vector<Token> tokens;
  Buffer<Row> device_words, device_lists, device_report, device_log;
  Buffer<SamplingRule> device_rules;
  Buffer<float> device_scores;
  Buffer<Token> device_tokens;
  TickMemory host, device;
};

}  // namespace

TEST_CASE("launches of several ticks leave the tables, reports and logs of the host's loop, word for word", "[cuda]") {
  test::require_device();
  B backend;
  unsigned seed = 1;
  for (auto const& [slots, prompt_cells] : {std::pair<Index, Index>{1, 0}, {5, 8}, {64, 0}, {64, 40}, {300, 900}}) {
    for (Index const most : {1, 2, 7}) {
      CAPTURE(slots, prompt_cells, most);
      ServingShape const shape{slots, prompt_cells, 3, 200, 8, slots % 2 == 0};
      TickPair pair(backend, shape, most, seed++);
      B::Replays replays(backend);
      Row longest = 0;
      for (int launch = 0; launch < 20; ++launch) {
        CAPTURE(launch);
        auto const tables = pair.host.tables();
        std::vector<TableEdit> edits;
        auto const set = [&](Index word, Row value) { edits.push_back({static_cast<Row>(word), value}); };
        for (Index cell = launch % 3; launch % 4 != 3 && cell < shape.cells(); cell += 3) {
          set(tables.status(cell), static_cast<Row>(CellStatus::Ready));
          set(tables.depth(cell), launch % 2);
          set(tables.position(cell), launch % 9);
        }
        if (launch % 3 != 2) set(tables.answered(), pair.log[TickLog::Calls]);
        host::apply_edits(edits, tables);
        backend.apply_edits(edits, pair.device.tables());
        bool const looped = launch > 0;  // the first run of a key is an ordinary one
        while (pair.on_host(looped)) {
        }
        replays.run_while(1, [&](cuda::Loop const& loop) { pair.on_device(backend, loop); });
        REQUIRE(replays.captured(1) == looped);
        longest = std::max(longest, pair.log[TickLog::Ticks]);
        if (launch % 2 == 1) pair.check_same(backend);  // two launches without a wait between
      }
      if (prompt_cells == 0) REQUIRE(longest == most);
      pair.check_same(backend);
    }
  }
}

TEST_CASE("the end of a tick on the device is the host's for reports of any length", "[cuda][quick]") {
  test::Device device;
  unsigned seed = 5;
  for (auto const& [finished_room, sampled_room] :
       {std::pair<Index, Index>{0, 0}, {1, 1}, {3, 0}, {130, 64}, {900, 700}}) {
    for (Row const slots : {1, 40, 1000}) {
      CAPTURE(finished_room, sampled_room, slots);
      test::RandomTables random({slots, 4, 2, 10, 8, true}, test::Cells::Mixed, seed++);
      Index const size = ServingReport::size(finished_room, sampled_room);
      test::WordPair words(device, random.words);
      test::WordPair log(device, std::vector<Row>(static_cast<std::size_t>(TickLog::size(4, size)), 0));
      for (int launch = 0; launch < 6; ++launch) {
        std::vector<Row> values(static_cast<std::size_t>(size));
        for (Row& value : values) value = launch % 2 == 0 ? 0 : random.draw(0, 60);
        auto const count = [&](Index room) { return random.draw(0, static_cast<Row>(room)); };
        values[ServingReport::FinishedRows] = count(finished_room);
        values[ServingReport::SampledRows] = count(sampled_room);
        test::WordPair report(device, values);
        host::end_tick({random.shape, words.host.data()}, {report.host, finished_room}, {log.host, 4, size}, false);
        cuda::end_tick<Arch>(device.context(), {random.shape, words.device.span().data()},
                             {report.device.span(), finished_room}, {log.device.span(), 4, size}, cuda::Loop{});
        REQUIRE(log.same());
        REQUIRE(report.same());
        REQUIRE(words.same());
      }
    }
  }
}

TEST_CASE("an error in a loop's work leaves its key usable", "[cuda]") {
  test::require_device();
  B backend;
  TickPair pair(backend, {5, 0, 3, 200, 8, true}, 3, 77);
  B::Replays replays(backend);
  for (int run = 0; run < 8; ++run) {
    CAPTURE(run);
    bool const fails = run == 0 || run == 2;  // in an ordinary run, and while it is captured
    auto const work = [&](cuda::Loop const& loop) {
      if (fails) fail(ErrorCode::InvalidArgument, "on purpose", "test");
      pair.on_device(backend, loop);
    };
    if (fails) {
      REQUIRE_THROWS_AS(replays.run_while(1, work), mor::error);
      continue;
    }
    bool const looped = run >= 3;
    while (pair.on_host(looped)) {
    }
    replays.run_while(1, work);
    REQUIRE(replays.captured(1) == looped);
    pair.check_same(backend);
  }
}

TEST_CASE("loops and single pieces of work run side by side, each by its key", "[cuda]") {
  test::require_device();
  B backend;
  TickPair pair(backend, {9, 20, 3, 200, 8, false}, 5, 78);
  B::Replays replays(backend);
  Buffer<Row> const count(backend.memory(), 3);
  for (Row run = 0; run < 12; ++run) {
    replays.run_while(1, [&](cuda::Loop const& loop) { pair.on_device(backend, loop); });
    while (pair.on_host(run > 0)) {
    }
    replays.run(2, [&] { backend.fill(count.span(), 7); });
    REQUIRE(download(backend, count) == std::vector<Row>(3, 7));
    backend.fill(count.span(), run);
    if (run == 6) {  // the arena moves: both are captured again
      static_cast<void>(backend.arena().allocate<float>(Index{1} << 20));
      backend.arena().reset();
    }
  }
  pair.check_same(backend);
  REQUIRE(replays.captured(1));
  REQUIRE(replays.captured(2));
}
