// SPDX-License-Identifier: Apache-2.0
#include "mor/train/metrics_log.hpp"

#include "support/catch.hpp"
#include "support/failure.hpp"
#include "support/temporary_folder.hpp"
#include "train/faulty_files.hpp"
#include "train/file_bytes.hpp"
#include "train/memory_files.hpp"

#include <array>
#include <cerrno>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

namespace {

using mor::ErrorCode;
using mor::Index;
using mor::test::fails_with;
using mor::test::read_bytes;
using mor::test::TemporaryFolder;
using mor::test::write_bytes;
using mor::train::MetricsLog;
using mor::train::TrainingRow;
using mor::train::ValidationRow;

std::array<double, 3> const shares = {0.5, 0.25, 0.25};

TrainingRow row(Index step) {
  return {.step = step,
          .loss = 3.4121,
          .gradient_norm = 0.5,
          .learning_rate = 3e-3,
          .milliseconds = 812.25,
          .tokens_per_second = 5043.0,
          .tokens = (step + 1) * 4096,
          .mean_depth = 1.75,
          .depth_share = shares};
}

std::vector<Index> steps_in(std::filesystem::path const& path) {
  std::vector<Index> steps;
  std::string const text = read_bytes(path);
  for (std::size_t at = 0; at < text.size();) {
    std::size_t const end = text.find('\n', at);
    REQUIRE(end != std::string::npos);
    REQUIRE(text.compare(at, 9, "{\"step\": ") == 0);
    REQUIRE(text[end - 1] == '}');
    steps.push_back(std::stoll(text.substr(at + 9)));
    at = end + 1;
  }
  return steps;
}

TEST_CASE("rows have the documented fields in the documented order") {
  REQUIRE(to_json(row(7)) ==
          "{\"step\": 7, \"loss\": 3.4121, \"grad_norm\": 0.5, \"learning_rate\": 0.003, \"ms\": 812.25, "
          "\"tokens_per_second\": 5043, \"tokens\": 32768, \"mean_depth\": 1.75, \"depth_share\": [0.5, 0.25, 0.25]}");
  TrainingRow full = row(7);
  full.aux_loss = 0.125;
  full.balance_loss = 1e-7;
  full.depth_share = {};
  REQUIRE(to_json(full).ends_with("\"depth_share\": [], \"aux_loss\": 0.125, \"balance_loss\": 1e-07}"));
  REQUIRE(to_json(ValidationRow{.step = 9, .validation_loss = 2.5, .routing = "aux_router"}) ==
          "{\"step\": 9, \"validation_loss\": 2.5, \"routing\": \"aux_router\"}");
  REQUIRE(fails_with(ErrorCode::InvalidArgument, [] { static_cast<void>(to_json(ValidationRow{.routing = "a\"b"})); },
                     "routing"));
}

TEST_CASE("values that are not finite are shown as they are, in valid JSON") {
  TrainingRow bad = row(1);
  bad.loss = std::numeric_limits<double>::quiet_NaN();
  bad.gradient_norm = std::numeric_limits<double>::infinity();
  bad.aux_loss = -std::numeric_limits<double>::infinity();
  std::string const text = to_json(bad);
  CHECK(text.find("\"loss\": \"nan\", \"grad_norm\": \"inf\"") != std::string::npos);
  CHECK(text.find("\"aux_loss\": \"-inf\"") != std::string::npos);
  CHECK(to_json(ValidationRow{.validation_loss = -bad.loss, .routing = "topk"}).find("\"validation_loss\": \"nan\"") !=
        std::string::npos);
}

TEST_CASE("each row is in the file when append returns, and opening again goes on after the last") {
  TemporaryFolder const folder;
  auto const path = folder / "metrics.jsonl";
  {
    MetricsLog log(path);
    REQUIRE(log.offset() == 0);
    for (Index step = 0; step < 3; ++step) {
      log.append(row(step));
      REQUIRE(read_bytes(path).size() == static_cast<std::size_t>(log.offset()));
      REQUIRE(steps_in(path).back() == step);
    }
    log.sync();
  }
  MetricsLog log(path);
  log.append(row(3));
  REQUIRE(steps_in(path) == std::vector<Index>{0, 1, 2, 3});
}

TEST_CASE("a resume cuts the rows after the recorded offset, so that no step is logged twice") {
  TemporaryFolder const folder;
  auto const path = folder / "metrics.jsonl";
  std::vector<Index> offsets;
  {
    MetricsLog log(path);
    for (Index step = 0; step < 10; ++step) {
      offsets.push_back(log.offset());
      log.append(row(step));
    }
    offsets.push_back(log.offset());
  }
  std::string const whole = read_bytes(path);
  for (std::size_t done = 0; done < offsets.size(); ++done) {
    for (std::string const& torn : {std::string(), std::string("{\"step\": 99, \"los")}) {
      write_bytes(path, whole + torn);
      MetricsLog log(path, offsets[done]);
      REQUIRE(log.offset() == offsets[done]);
      for (Index step = static_cast<Index>(done); step < 10; ++step) log.append(row(step));
      REQUIRE(read_bytes(path) == whole);
    }
  }
}

TEST_CASE("a torn last line goes, a log that lost its end continues, a foreign log is refused") {
  TemporaryFolder const folder;
  auto const path = folder / "metrics.jsonl";
  std::string const line = to_json(row(0)) + "\n";
  for (std::size_t cut = 0; cut <= line.size(); ++cut) {
    write_bytes(path, line + line.substr(0, cut));
    std::size_t const kept = cut == line.size() ? 2 * line.size() : line.size();
    REQUIRE(MetricsLog(path).offset() == static_cast<Index>(kept));
    REQUIRE(read_bytes(path).size() == kept);
  }
  write_bytes(path, line + "{\"st");
  REQUIRE(MetricsLog(path, 5 * static_cast<Index>(line.size())).offset() == static_cast<Index>(line.size()));
  write_bytes(path, line + line);
  auto const foreign = [&] { MetricsLog log(path, static_cast<Index>(line.size()) + 3); };
  REQUIRE(fails_with(ErrorCode::MalformedFile, foreign, path.string(), "byte " + std::to_string(line.size() + 3)));
  REQUIRE(read_bytes(path) == line + line);
  REQUIRE(fails_with(ErrorCode::InvalidArgument, [&] { MetricsLog log(path, -1); }, "got -1"));
}

TEST_CASE("a full disk costs rows but never leaves half a one") {
  mor::test::MemoryFiles disk;
  std::filesystem::path const path = "/metrics.jsonl";
  MetricsLog log(path, std::nullopt, disk);
  log.append(row(0));
  Index const before = log.offset();
  for (std::uint64_t room = 0; room < 30; room += 7) {
    disk.capacity = static_cast<std::uint64_t>(before) + room;
    REQUIRE(fails_with(ErrorCode::IoFailure, [&] { log.append(row(1)); }, "metrics.jsonl", "No space left"));
    REQUIRE(log.offset() == before);
    REQUIRE(disk.used() == static_cast<std::uint64_t>(before));
  }
  disk.capacity = 1 << 20;
  log.append(row(1));
  mor::train::DurableFiles const files(disk);
  REQUIRE(files.read_file(path, 10000) == to_json(row(0)) + "\n" + to_json(row(1)) + "\n");
}

TEST_CASE("short writes and signals do not tear a row") {
  mor::test::MemoryFiles disk;
  mor::test::ShortWritingFiles slow(disk);
  mor::test::FailingFiles interrupted(slow, 2, EINTR, false);
  MetricsLog log("/metrics.jsonl", std::nullopt, interrupted);
  log.append(row(0));
  REQUIRE(mor::train::DurableFiles(disk).read_file("/metrics.jsonl", 10000) == to_json(row(0)) + "\n");
}

}  // namespace
