// SPDX-License-Identifier: Apache-2.0
/// @file
/// Power cuts after every operation of a run that saves, with whatever was not yet flushed lost, kept or torn.
#include "mor/train/checkpoint_store.hpp"

#include "support/catch.hpp"
#include "train/checkpoint_samples.hpp"
#include "train/faulty_files.hpp"
#include "train/memory_files.hpp"

#include <cstddef>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace {

using mor::Index;
using mor::test::holds_samples;
using mor::test::MemoryFiles;
using mor::test::sample_files;
using mor::test::WatchedFiles;
using mor::train::Checkpoint;
using mor::train::CheckpointStore;
using mor::train::find_latest;

std::string const root = "/run";

/// What is saved, in this order. Step 30 comes twice: its second saving replaces the first.
struct Saving {
  Index step;
  int variant;
};
std::vector<Saving> const savings = {{10, 0}, {20, 0}, {30, 0}, {30, 1}, {40, 0}};

/// The disk after one operation, and how many savings had returned by then.
struct Moment {
  MemoryFiles disk;
  std::size_t promised = 0;
};

/// Runs all savings and keeps every moment. With `forget_sync` > 0 that sync only pretends.
std::vector<Moment> record(Index keep_last, int forget_sync, int* syncs = nullptr) {
  MemoryFiles disk;
  std::vector<Moment> moments;
  std::size_t promised = 0;
  WatchedFiles files(disk, [&] { moments.push_back({disk, promised}); });
  files.forget_sync = forget_sync;
  CheckpointStore store(root, keep_last, files);
  for (Saving const& saving : savings) {
    store.save(saving.step, sample_files(files, saving.step, saving.variant));
    moments.push_back({disk, ++promised});
  }
  if (syncs != nullptr) *syncs = files.syncs();
  return moments;
}

/// Whether the checkpoint is what saving `first` or a later one wrote.
bool is_one_of(Checkpoint const& checkpoint, MemoryFiles& disk, std::size_t first) {
  for (std::size_t i = first; i < savings.size(); ++i) {
    if (checkpoint.step() == savings[i].step && holds_samples(checkpoint, disk, savings[i].variant)) return true;
  }
  return false;
}

/// Whether a disk after a power cut keeps the promises: every visible checkpoint is whole, and the newest is not older
/// than the last one whose saving returned.
bool keeps_promises(MemoryFiles& disk, std::size_t promised) {
  std::vector<mor::error> rejected;
  std::optional<Checkpoint> const latest = find_latest(root, &rejected, disk);
  if (!rejected.empty() || (promised > 0 && !latest)) return false;
  if (latest && !is_one_of(*latest, disk, promised > 0 ? promised - 1 : 0)) return false;
  for (Index const step : mor::train::list_checkpoints(root, disk)) {
    std::string const directory = root + "/" + mor::train::checkpoint_name(step);
    try {
      if (!is_one_of(Checkpoint::open(directory, disk), disk, 0)) return false;
    } catch (mor::error const&) {
      return false;
    }
  }
  return true;
}

/// The power cuts tried on one moment: everything unflushed lost, everything kept, and mixtures.
std::vector<MemoryFiles> cuts(MemoryFiles const& disk, int mixtures, std::mt19937& random) {
  std::vector<MemoryFiles> after;
  after.push_back(disk.after_power_cut(MemoryFiles::Unsynced::Lost, random));
  after.push_back(disk.after_power_cut(MemoryFiles::Unsynced::Kept, random));
  for (int i = 0; i < mixtures; ++i) after.push_back(disk.after_power_cut(MemoryFiles::Unsynced::Mixed, random));
  return after;
}

TEST_CASE("after a power cut at any moment the old or the new checkpoint is there, whole, and a restart is clean") {
  std::mt19937 random(7);
  std::size_t states = 0;
  for (Index const keep_last : {1, 2}) {
    for (Moment const& moment : record(keep_last, 0)) {
      for (MemoryFiles& disk : cuts(moment.disk, 10, random)) {
        ++states;
        REQUIRE(keeps_promises(disk, moment.promised));
        CheckpointStore store(root, keep_last, disk);
        for (std::string const& name : mor::train::DurableFiles(disk).list(root)) REQUIRE(name.front() != '.');
        store.save(50, sample_files(disk, 50));
        REQUIRE(find_latest(root, nullptr, disk)->step() == 50);
      }
    }
  }
  REQUIRE(states >= 1000);
}

TEST_CASE("the replay bites: without any one of the flushes of a save some power cut breaks a promise") {
  int syncs = 0;
  std::size_t const moments = record(1, 0, &syncs).size();
  REQUIRE(moments > 100);
  REQUIRE(syncs > 30);
  std::mt19937 random(11);
  int harmless = 0;
  for (int forgotten = 1; forgotten <= syncs; ++forgotten) {
    bool broken = false;
    for (Moment const& moment : record(1, forgotten)) {
      for (MemoryFiles& disk : cuts(moment.disk, 12, random)) broken = broken || !keeps_promises(disk, moment.promised);
      if (broken) break;
    }
    if (!broken) {
      ++harmless;
      UNSCOPED_INFO("sync " << forgotten << " of " << syncs << " can be forgotten without harm");
    }
  }
  REQUIRE(harmless == 0);
}

}  // namespace
