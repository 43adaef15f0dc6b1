// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.cuh"
#include "cuda/device_present.hpp"
#include "cuda/serving_pair.cuh"

#include "mor/backend/cuda/backend.cuh"
#include "mor/backend/host/serving.hpp"
#include "mor/backend/host/serving_tables.hpp"

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

using namespace mor;

namespace {

using B = cuda::Backend<float>;

[[nodiscard]] std::vector<Row> download(B& backend, std::span<Row const> words) {
  std::vector<Row> result(words.size());
  backend.download(words, std::span<Row>(result));
  return result;
}

/// `rows` floats on the device that start as `values`.
[[nodiscard]] Buffer<float> stored_floats(B& backend, std::vector<float> const& values) {
  Buffer<float> result(backend.memory(), static_cast<Index>(values.size()));
  backend.store(std::span<float const>(values), result.span());
  return result;
}
[[nodiscard]] Buffer<Row> stored_rows(B& backend, std::vector<Row> const& values) {
  Buffer<Row> result(backend.memory(), static_cast<Index>(values.size()));
  backend.store(std::span<Row const>(values), result.span());
  return result;
}
[[nodiscard]] std::vector<float> download(B& backend, Buffer<float> const& values) {
  std::vector<float> result(static_cast<std::size_t>(values.size()));
  backend.download(std::span<float const>(values.span()), std::span<float>(result));
  return result;
}

}  // namespace

TEST_CASE("edits of the tables arrive in their order, also when their memory is used again", "[cuda]") {
  test::require_device();
  B backend;
  ServingShape const shape{40, 100, 3, 2000, 16, false};
  test::RandomTables random(shape, test::Cells::Mixed, 5);
  std::vector<Row> expected = random.words;
  ServingTables const host{shape, expected.data()};
  Buffer<Row> const words = stored_rows(backend, random.words);
  ServingTables const on_device{shape, words.data()};
  std::vector<TableEdit> edits;
  backend.apply_edits(edits, on_device);      // nothing
  for (Row round = 0; round < 40; ++round) {  // 20 MB in all: more than twice the page-locked memory
    edits.clear();
    auto const size = static_cast<Row>(host.size());
    Row const count = round % 4 == 3 ? 1 : 65000;
    for (Row i = 0; i < count; ++i) {
      edits.push_back({static_cast<Row>((static_cast<Index>(i) * 7919 + round) % size), i * 31 + round});
    }
    if (size % 7919 == 0) FAIL("words would come twice");
    host::apply_edits(edits, host);
    backend.apply_edits(edits, on_device);
    std::fill(edits.begin(), edits.end(), TableEdit{0, -1});  // the list is free again on return
  }
  REQUIRE(download(backend, words.span()) == expected);
}

TEST_CASE("scalar verbs for rows of mixed depth give the host's numbers", "[cuda][quick]") {
  test::require_device();
  B backend;
  for (Index const rows : {0, 1, 33, 257, 3000}) {
    CAPTURE(rows);
    Index const columns = 5;
    auto const n = static_cast<std::size_t>(rows);
    std::vector<float> const x = test::random_vector<float>(rows * columns, 1),
                             gate = test::random_vector<float>(rows, 2);
    std::vector<float> choice(n);
    std::vector<Row> wanted(n), least(n), most(n), places(n);
    for (std::size_t i = 0; i < n; ++i) {
      choice[i] = static_cast<float>(i * 7 % 5);
      wanted[i] = static_cast<Row>(i * 3 % 6);
      least[i] = static_cast<Row>(1 + i * 5 % 7);
      most[i] = static_cast<Row>(1 + i * 11 % 6);
      places[i] = static_cast<Row>(2 * (n - 1 - i));
    }
    auto const device_x = stored_floats(backend, x), device_gate = stored_floats(backend, gate);
    auto const device_wanted = stored_rows(backend, wanted), device_least = stored_rows(backend, least),
               device_most = stored_rows(backend, most), device_places = stored_rows(backend, places);
    View<float const> const host_view(x.data(), rows, columns), device_view(device_x.data(), rows, columns);

    std::vector<float> const before(2 * n + 1, 0.5F);
    auto expected = before;
    auto const out = stored_floats(backend, before);
    host::scatter_values(std::span<float const>(gate), std::span<Row const>(places), std::span<float>(expected));
    backend.scatter_values(device_gate.span(), device_places.span(), out.span());
    REQUIRE(download(backend, out) == expected);

    for (Index const shift : {0, -1, 2}) {
      std::vector<Row> columns_wanted = wanted;
      for (Row& column : columns_wanted) column = std::max<Row>(column, shift < 0 ? 1 : 0);
      auto const device_columns = stored_rows(backend, columns_wanted);
      std::vector<float> picked(n);
      auto const device_picked = stored_floats(backend, picked);
      host::pick_columns(host_view, std::span<Row const>(columns_wanted), shift, std::span<float>(picked));
      backend.pick_columns(device_view, device_columns.span(), shift, device_picked.span());
      REQUIRE(download(backend, device_picked) == picked);
    }

    for (bool const gate_intermediate : {false, true}) {
      for (bool const additive : {false, true}) {
        std::vector<float> scale(n), keep(n), scores(n);
        auto const device_choice = stored_floats(backend, choice), device_scale = stored_floats(backend, scale),
                   device_keep = stored_floats(backend, keep), device_scores = stored_floats(backend, scores);
        host::choice_weights(std::span<float const>(choice), std::span<float const>(gate), std::span<Row const>(wanted),
                             gate_intermediate, additive, std::span<float>(scale), std::span<float>(keep),
                             std::span<float>(scores));
        backend.choice_weights(device_choice.span(), device_gate.span(), device_wanted.span(), gate_intermediate,
                               additive, device_scale.span(), device_keep.span(), device_scores.span());
        REQUIRE(download(backend, device_scale) == scale);
        REQUIRE(download(backend, device_keep) == keep);
        REQUIRE(download(backend, device_scores) == scores);
      }
    }

    auto limited = choice, limited_gate = gate;
    auto const device_limited = stored_floats(backend, choice), device_limited_gate = stored_floats(backend, gate);
    host::limit_choice(host_view, std::span<Row const>(least), std::span<Row const>(most), std::span<float>(limited),
                       std::span<float>(limited_gate));
    backend.limit_choice(device_view, device_least.span(), device_most.span(), device_limited.span(),
                         device_limited_gate.span());
    REQUIRE(download(backend, device_limited) == limited);
    REQUIRE(download(backend, device_limited_gate) == limited_gate);

    backend.fill_values(-2.5, out.span());
    REQUIRE(download(backend, out) == std::vector<float>(before.size(), -2.5F));
  }
}

TEST_CASE("reports reach the host in the order in which they were posted", "[cuda]") {
  test::require_device();
  B backend;
  Buffer<Row> const words(backend.memory(), 600);
  B::Reports reports(backend, 600, 3);
  REQUIRE(reports.pending() == 0);
  REQUIRE_FALSE(reports.arrived());
  reports.wait();  // for nothing
  REQUIRE_THROWS_AS(reports.front(), mor::error);
  REQUIRE_THROWS_AS(reports.pop(), mor::error);
  auto const length_of = [](Row number) { return static_cast<std::size_t>(number * 97 % 601); };
  Row posted = 0, read = 0;
  for (int round = 0; round < 50; ++round) {
    while (reports.pending() < 3) {
      backend.fill(words.span(), posted);  // the next one must not reach the last one's copy
      reports.post(std::span<Row const>(words.span()).first(length_of(posted)));
      ++posted;
    }
    REQUIRE_THROWS_AS(reports.post(words.span()), mor::error);
    for (int i = 0; i < 1 + round % 3; ++i) {
      reports.wait();
      REQUIRE(reports.arrived());
      auto const report = reports.front();
      REQUIRE(std::vector<Row>(report.begin(), report.end()) == std::vector<Row>(length_of(read), read));
      reports.pop();
      ++read;
    }
  }
  Buffer<Row> const longer(backend.memory(), 601);
  reports.pop();
  REQUIRE_THROWS_AS(reports.post(longer.span()), mor::error);
  backend.synchronize();
  while (reports.pending() > 0) {
    REQUIRE(reports.arrived());
    reports.pop();
  }
}

TEST_CASE("replayed work goes on with what is in the tables now", "[cuda]") {
  test::require_device();
  B backend;
  ServingShape const shape{50, 30, 3, 20, 8, false};
  test::RandomTables random(shape, test::Cells::Mixed, 3);
  std::vector<Row> expected = random.words;
  ServingTables const host{shape, expected.data()};
  Buffer<Row> const words = stored_rows(backend, random.words);
  ServingTables const on_device{shape, words.data()};
  // Two sizes of the lists, so two keys.
  std::vector<Row> host_memory(9 * 128 + 128), host_report(200);
  Buffer<Row> const memory = stored_rows(backend, host_memory), report_words = stored_rows(backend, host_report);
  std::vector<float> const scores = test::random_vector<float>(128, 4);
  Buffer<float> const device_scores = stored_floats(backend, scores);
  auto const lists = [](std::span<Row> all, std::size_t room) {
    auto const list = [&](std::size_t i) { return all.subspan(i * 128, room); };
    return ServingRows{
        list(0), list(1), list(2), list(3), list(4), list(5), list(6), list(7), {}, {}, all.subspan(9 * 128, 1)};
  };
  B::Replays replays(backend);
  for (int run = 0; run < 20; ++run) {
    CAPTURE(run);
    std::size_t const room = run % 3 == 0 ? 128 : 80;
    std::vector<TableEdit> edits;
    for (Row cell = run % 5; cell < 80; cell += 2) {
      edits.push_back({static_cast<Row>(host.status(cell)), static_cast<Row>(CellStatus::Ready)});
      edits.push_back({static_cast<Row>(host.depth(cell)), (run + cell) % 3});
    }
    host::apply_edits(edits, host);
    backend.apply_edits(edits, on_device);
    auto const host_rows = lists(host_memory, room), device_rows = lists(memory.span(), room);
    host::start_recursion(host, {}, host_rows);
    host::finish_recursion(host, host_rows, std::span<float const>(scores), {host_report, 10});
    auto const key = static_cast<std::uint64_t>(room);
    replays.run(key, [&] {
      backend.start_recursion(on_device, {}, device_rows);
      // Scratch memory, so that the work depends on where the arena stands.
      auto const copy = backend.arena().allocate<float>(128);
      View<float> const target(copy.data(), 1, 128);
      backend.copy(View<float const>(device_scores.data(), 1, 128), target);
      backend.finish_recursion(on_device, device_rows, copy, {report_words.span(), 10});
    });
    if (run >= 4) REQUIRE(replays.captured(key));
    if (run == 10) {  // the arena moves: what was captured is not right any more
      static_cast<void>(backend.arena().allocate<float>(Index{1} << 20));
      backend.arena().reset();
    }
    if (run % 2 == 0) continue;  // two runs without a wait between
    REQUIRE(download(backend, words.span()) == expected);
    REQUIRE(download(backend, memory.span()) == host_memory);
    REQUIRE(download(backend, report_words.span()) == host_report);
  }
}

TEST_CASE("a report that captured work sends takes a place of its own each time, and later work waits for it", "[cuda]") {
  test::require_device();
  B backend;
  Index const size = 5000;
  Buffer<Row> const words(backend.memory(), size), other(backend.memory(), size);
  B::Reports reports(backend, size, 3);
  B::Replays replays(backend);
  Row sent = 0, read = 0;
  auto const check_oldest = [&] {
    reports.wait();
    auto const report = reports.front();
    REQUIRE(std::vector<Row>(report.begin(), report.end()) == std::vector<Row>(static_cast<std::size_t>(size), read));
    reports.pop();
    ++read;
  };
  for (int run = 0; run < 20; ++run) {
    backend.fill(words.span(), sent++);  // not before the last copy has read them
    replays.run(1, [&] {
      reports.send(words.span());
      backend.fill(other.span(), 1);  // beside it
      reports.settle();
    });
    reports.expect(size);
    if (run % 3 == 0) {  // in turn with those that are posted
      while (reports.pending() == 3) check_oldest();
      backend.fill(words.span(), sent++);
      reports.post(words.span());
    }
    while (reports.pending() > 3 - 1 - run % 2) check_oldest();
  }
  REQUIRE(replays.captured(1));
  while (reports.pending() > 0) check_oldest();
  REQUIRE(read == sent);
  for (int i = 0; i < 3; ++i) reports.post(words.span());
  REQUIRE_THROWS_AS(reports.expect(size), mor::error);
  REQUIRE_THROWS_AS(reports.send(Buffer<Row>(backend.memory(), size + 1).span()), mor::error);
}

TEST_CASE("a report is there while what follows it in the same work still runs", "[cuda]") {
  test::require_device();
  B backend;
  Buffer<Row> const words(backend.memory(), 64);
  Buffer<float> const values(backend.memory(), Index{1} << 26);
  B::Reports reports(backend, 64, 2);
  B::Replays replays(backend);
  for (Row run = 0; run < 6; ++run) {
    backend.fill(words.span(), run);
    replays.run(1, [&] {
      reports.send(words.span());
      for (int i = 0; i < 300; ++i) backend.fill_values(1.0, values.span());  // 256 MiB, at least 50 us each
      reports.settle();
    });
    reports.expect(64);
    reports.wait();
    bool const others_run = cudaStreamQuery(backend.context().stream) == cudaErrorNotReady;
    auto const report = reports.front();
    REQUIRE(std::vector<Row>(report.begin(), report.end()) == std::vector<Row>(64, run));
    REQUIRE(others_run);
    reports.pop();
  }
  REQUIRE(replays.captured(1));
}

TEST_CASE("work that needs the host is refused as replayed work, by the verb's name, and the backend goes on",
          "[cuda]") {
  test::require_device();
  B backend;
  B::Replays replays(backend);
  B::Reports reports(backend, 4, 2);
  Buffer<Row> const words(backend.memory(), 4);
  backend.fill(words.span(), 7);
  std::vector<Row> host(4);
  std::vector<TableEdit> const edits{{0, 1}};
  ServingTables const tables{{}, words.data()};
  auto const names = [&](std::uint64_t key, char const* verb, auto const& work) {
    for (int run = 0; run < 2; ++run) {
      std::string where;
      try {
        replays.run(key, work);
      } catch (mor::error const& failure) {
        where = failure.where();
      }
      REQUIRE(where == verb);
    }
  };
  names(1, "upload", [&] { static_cast<void>(backend.upload(std::span<Row const>(host))); });
  names(2, "upload", [&] { backend.apply_edits(edits, tables); });
  names(3, "download", [&] { backend.download(std::span<Row const>(words.span()), std::span<Row>(host)); });
  names(4, "synchronize", [&] { backend.synchronize(); });
  names(5, "Reports::post", [&] { reports.post(words.span()); });
  REQUIRE(download(backend, words.span()) == std::vector<Row>(4, 7));
}

TEST_CASE("an error in replayed work leaves its key usable", "[cuda]") {
  test::require_device();
  B backend;
  B::Replays replays(backend);
  Buffer<Row> const words(backend.memory(), 4);
  for (int run = 0; run < 8; ++run) {
    auto const work = [&] {
      backend.fill(words.span(), 5);
      if (run == 0 || run == 2) fail(ErrorCode::InvalidArgument, "on purpose", "test");
    };
    backend.fill(words.span(), -1);
    if (run == 0 || run == 2) {
      REQUIRE_THROWS_AS(replays.run(1, work), mor::error);
    } else {
      replays.run(1, work);
      REQUIRE(download(backend, words.span()) == std::vector<Row>(4, 5));
      REQUIRE(replays.captured(1) == (run >= 3));
    }
  }
}

TEST_CASE("of many keys the ones that ran last stay captured", "[cuda]") {
  test::require_device();
  B backend;
  B::Replays replays(backend);
  auto const keys = static_cast<Row>(B::Replays::kMostGraphs) + 10;
  Buffer<Row> const words(backend.memory(), keys);
  for (int round = 0; round < 4; ++round) {
    backend.fill(words.span(), -1);
    std::vector<Row> expected(static_cast<std::size_t>(keys));
    std::iota(expected.begin(), expected.end(), 0);
    for (Row key = 0; key < keys; ++key) {
      for (int again = 0; again < 2; ++again) {
        replays.run(static_cast<std::uint64_t>(key),
                    [&] { backend.fill(words.span().subspan(static_cast<std::size_t>(key), 1), key); });
      }
    }
    REQUIRE(download(backend, words.span()) == expected);
    REQUIRE(replays.captured(static_cast<std::uint64_t>(keys) - 1));
    REQUIRE_FALSE(replays.captured(0));
  }
}
