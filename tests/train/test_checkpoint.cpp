// SPDX-License-Identifier: Apache-2.0
#include "mor/train/checkpoint.hpp"

#include "mor/train/checkpoint_store.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"
#include "support/temporary_folder.hpp"
#include "train/checkpoint_samples.hpp"
#include "train/file_bytes.hpp"

#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;
using mor::ErrorCode;
using mor::Index;
using mor::test::fails_with;
using mor::test::holds_samples;
using mor::test::read_bytes;
using mor::test::sample_files;
using mor::test::TemporaryFolder;
using mor::test::write_bytes;
using mor::train::Checkpoint;
using mor::train::CheckpointFile;
using mor::train::CheckpointStore;
using mor::train::find_latest;
using mor::train::SaveReport;
using mor::train::system_file_operations;

mor::train::SaveReport save(CheckpointStore& store, Index step, int variant = 0) {
  return store.save(step, sample_files(system_file_operations(), step, variant));
}

TEST_CASE("a saved checkpoint comes back verified, with its step and its files") {
  TemporaryFolder const folder;
  fs::path const root = folder / "run" / "checkpoints" / "";  // missing parents and a trailing slash
  CheckpointStore store(root, 3);
  REQUIRE(store.steps().empty());
  REQUIRE_FALSE(find_latest(root));
  SaveReport const report = save(store, 120);
  REQUIRE(report.directory == root / "step-00000120");
  REQUIRE(report.cleanup_warning.empty());
  REQUIRE(report.removed.empty());

  auto const latest = find_latest(root);
  REQUIRE(latest);
  REQUIRE(latest->step() == 120);
  REQUIRE(latest->names() == mor::test::sample_names);
  REQUIRE(latest->path("model.safetensors") == root / "step-00000120" / "model.safetensors");
  REQUIRE(holds_samples(*latest, system_file_operations()));
  REQUIRE(fails_with(ErrorCode::MalformedFile, [&] { static_cast<void>(latest->path("tokenizer.json")); },
                     "step-00000120", "config.json, model.safetensors", "tokenizer.json"));
  REQUIRE(latest->contains("state.json"));
  REQUIRE_FALSE(latest->contains("manifest.json"));
}

TEST_CASE("a run that never saved has no latest checkpoint, whether or not its folder is there") {
  TemporaryFolder const folder;
  REQUIRE_FALSE(find_latest(folder / "none"));
  REQUIRE_FALSE(find_latest(folder.path()));
}

TEST_CASE("only exact names are checkpoints") {
  using mor::train::checkpoint_name;
  using mor::train::parse_checkpoint_name;
  REQUIRE(checkpoint_name(0) == "step-00000000");
  REQUIRE(checkpoint_name(123456789) == "step-123456789");
  for (Index const step : {Index{0}, Index{7}, Index{99999999}, Index{100000000}, std::numeric_limits<Index>::max()}) {
    REQUIRE(parse_checkpoint_name(checkpoint_name(step)) == step);
  }
  for (char const* name : {"step-1", "step-000000001", "step-", "step-0000000a", "step-00000001x", "Step-00000001",
                           "step--0000001", "step-+0000001", ".step-00000001", "step-99999999999999999999", "",
                           ".tmp-1", ".trash-step-00000001"}) {
    REQUIRE_FALSE(parse_checkpoint_name(name));
  }
}

TEST_CASE("the last N checkpoints are kept, and N is at least one") {
  TemporaryFolder const folder;
  CheckpointStore store(folder.path(), 2);
  REQUIRE(save(store, 100).removed.empty());
  REQUIRE(save(store, 200).removed.empty());
  REQUIRE(save(store, 300).removed == std::vector<Index>{100});
  REQUIRE(store.steps() == std::vector<Index>{200, 300});
  REQUIRE(folder.count() == 2);  // nothing hidden stays
  CheckpointStore strict(folder.path(), 1);
  REQUIRE(save(strict, 400).removed == std::vector<Index>{200, 300});
  auto const keep_none = [&] { CheckpointStore none(folder.path(), 0); };
  REQUIRE(fails_with(ErrorCode::InvalidArgument, keep_none, "keep_last", "got 0"));
}

TEST_CASE("going back to an earlier checkpoint neither deletes the later ones by itself nor is blocked by them") {
  TemporaryFolder const folder;
  CheckpointStore store(folder.path(), 1);
  {
    CheckpointStore generous(folder.path(), 9);
    for (Index const step : {100, 200, 300}) save(generous, step);
  }
  REQUIRE(save(store, 150).removed == std::vector<Index>{100});
  REQUIRE(store.steps() == std::vector<Index>{150, 200, 300});
  REQUIRE(store.discard_after(150) == std::vector<Index>{200, 300});
  REQUIRE(store.steps() == std::vector<Index>{150});
  REQUIRE(find_latest(folder.path())->step() == 150);
  REQUIRE(store.discard_after(150).empty());
}

TEST_CASE("saving a step again replaces its checkpoint, damaged or not") {
  TemporaryFolder const folder;
  CheckpointStore store(folder.path(), 3);
  save(store, 5);
  save(store, 5, 1);
  REQUIRE(holds_samples(*find_latest(folder.path()), system_file_operations(), 1));
  REQUIRE(folder.count() == 1);
  write_bytes(folder / "step-00000005/state.json", "rotten");
  REQUIRE_FALSE(find_latest(folder.path()));
  save(store, 5, 2);
  REQUIRE(holds_samples(*find_latest(folder.path()), system_file_operations(), 2));
}

TEST_CASE("what a crash left behind is cleared when a store is made and before a save, and nothing else") {
  TemporaryFolder const folder;
  auto const litter = [&] {
    fs::create_directories(folder / ".tmp-7/deep/er");
    write_bytes(folder / ".tmp-7/deep/er/model.safetensors", "half");
    fs::create_directories(folder / ".trash-step-00000001");
    write_bytes(folder / ".trash-step-00000001/state.json", "old");
    write_bytes(folder / ".tmp-file", "x");
    fs::create_directory_symlink(folder / "notes", folder / ".tmp-link");
  };
  fs::create_directories(folder / "notes");
  write_bytes(folder / "notes/keep.txt", "keep");
  litter();
  CheckpointStore store(folder.path(), 3);
  REQUIRE(folder.count() == 1);
  litter();
  save(store, 7);
  REQUIRE(folder.count() == 2);
  REQUIRE(read_bytes(folder / "notes/keep.txt") == "keep");  // links are not followed
}

TEST_CASE("a writer that fails leaves no trace and the next save works") {
  TemporaryFolder const folder;
  CheckpointStore store(folder.path(), 3);
  save(store, 1);
  auto files = sample_files(system_file_operations(), 2);
  files[2].write = [](fs::path const& path) {
    write_bytes(path, "half");
    throw std::runtime_error("a tensor could not be copied");
  };
  REQUIRE_THROWS_WITH(store.save(2, files), "a tensor could not be copied");
  REQUIRE(folder.count() == 1);
  files[2].write = [](fs::path const&) {};  // forgets to write
  REQUIRE(fails_with(ErrorCode::IoFailure, [&] { store.save(2, files); }, "optimizer.safetensors"));
  REQUIRE(find_latest(folder.path())->step() == 1);
  save(store, 2);
  REQUIRE(find_latest(folder.path())->step() == 2);
}

TEST_CASE("impossible saves are refused before anything is written") {
  TemporaryFolder const folder;
  CheckpointStore store(folder.path(), 3);
  auto const refused = [&](Index step, std::vector<std::string> const& names, char const* part) {
    std::vector<CheckpointFile> files;
    for (std::string const& name : names) files.push_back({name, [](fs::path const& path) { write_bytes(path, "x"); }});
    return fails_with(ErrorCode::InvalidArgument, [&] { store.save(step, files); }, part) && folder.count() == 0;
  };
  CHECK(refused(-1, {"a"}, "got -1"));
  CHECK(refused(0, {}, "at least 1"));
  for (char const* name : {"", ".", "..", "../a", "a/b", "/a", ".hidden", "manifest.json", "a b", "a\n", "\xc3\xa4"}) {
    INFO(name);
    CHECK(refused(0, {"good", name}, "unique name"));
  }
  CHECK(refused(0, {"a", "b", "a"}, "got a"));
  CHECK(fails_with(ErrorCode::InvalidArgument, [&] { store.save(0, std::vector<CheckpointFile>{{"a", nullptr}}); }));
}

TEST_CASE("the newest checkpoint that is whole is found, and the newer ones passed over are named") {
  TemporaryFolder const folder;
  CheckpointStore store(folder.path(), 9);
  for (Index const step : {1, 2, 3, 4, 5}) save(store, step);
  fs::remove(folder / "step-00000005/manifest.json");
  fs::remove(folder / "step-00000004/state.json");
  fs::rename(folder / "step-00000001", folder / "step-00000009");
  fs::create_directories(folder / "step-00000008");
  write_bytes(folder / "step-00000007", "a file");
  std::vector<mor::error> rejected;
  auto const latest = find_latest(folder.path(), &rejected);
  REQUIRE(latest);
  REQUIRE(latest->step() == 3);
  REQUIRE(rejected.size() == 5);
  CHECK(std::string(rejected[0].what()).find("step-00000009/manifest.json: field step") != std::string::npos);
  CHECK(std::string(rejected[1].what()).find("no manifest") != std::string::npos);
  CHECK(std::string(rejected[2].what()).find("step-00000007") != std::string::npos);
  CHECK(std::string(rejected[3].what()).find("step-00000005/manifest.json") != std::string::npos);
  CHECK(std::string(rejected[4].what()).find("step-00000004/state.json") != std::string::npos);
}

TEST_CASE("a checkpoint may be copied to another name and opened there") {
  TemporaryFolder const folder;
  CheckpointStore store(folder / "run", 1);
  save(store, 12);
  fs::copy(folder / "run/step-00000012", folder / "best", fs::copy_options::recursive);
  Checkpoint const best = Checkpoint::open(folder / "best");
  REQUIRE(best.step() == 12);
  REQUIRE(holds_samples(best, system_file_operations()));
}

TEST_CASE("500 random bit flips in any file of a checkpoint are all found before the files are used") {
  TemporaryFolder const folder;
  CheckpointStore store(folder.path(), 1);
  store.save(77, sample_files(system_file_operations(), 77, 0, 700));
  fs::path const directory = folder / "step-00000077";
  std::vector<fs::path> paths;
  for (auto const& entry : fs::directory_iterator(directory)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  REQUIRE(paths.size() == 5);
  std::mt19937 random(20);
  for (int flip = 0; flip < 500; ++flip) {
    fs::path const& path = paths[random() % paths.size()];
    std::string const good = read_bytes(path);
    std::string bad = good;
    std::size_t const at = random() % bad.size();
    bad[at] = static_cast<char>(bad[at] ^ (1 << random() % 8));
    write_bytes(path, bad);
    INFO(path << " byte " << at);
    REQUIRE(fails_with(ErrorCode::MalformedFile, [&] { static_cast<void>(Checkpoint::open(directory)); }));
    REQUIRE_FALSE(find_latest(folder.path()));
    write_bytes(path, good);
  }
  REQUIRE(holds_samples(*find_latest(folder.path()), system_file_operations(), 0, 700));
}

TEST_CASE("every single bit of a manifest matters") {
  TemporaryFolder const folder;
  CheckpointStore store(folder.path(), 1);
  save(store, 77);
  std::string const good = read_bytes(folder / "step-00000077/manifest.json");
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ (1 << bit));
      REQUIRE(fails_with(ErrorCode::MalformedFile,
                         [&] { static_cast<void>(mor::train::parse_manifest(bad, "manifest.json")); }));
    }
  }
}

TEST_CASE("truncated, grown and missing files are named") {
  TemporaryFolder const folder;
  CheckpointStore store(folder.path(), 1);
  save(store, 1);
  fs::path const directory = folder / "step-00000001", path = directory / "model.safetensors";
  std::string const good = read_bytes(path);
  auto const open = [&] { static_cast<void>(Checkpoint::open(directory)); };
  write_bytes(path, good.substr(1));
  CHECK(fails_with(ErrorCode::MalformedFile, open, path.string(), "expected 90 bytes, got 89 bytes"));
  write_bytes(path, good + "x");
  CHECK(fails_with(ErrorCode::MalformedFile, open, path.string(), "got 91 bytes"));
  fs::remove(path);
  CHECK(fails_with(ErrorCode::MalformedFile, open, path.string(), "missing"));
  fs::create_directory(path);
  CHECK(fails_with(ErrorCode::MalformedFile, open, path.string(), "not a regular file"));
  auto const open_none = [&] { static_cast<void>(Checkpoint::open(folder / "none")); };
  CHECK(fails_with(ErrorCode::MalformedFile, open_none, "no manifest"));
}

}  // namespace
