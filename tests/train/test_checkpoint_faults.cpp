// SPDX-License-Identifier: Apache-2.0
/// @file
/// Every system call of a save and of a load fails once, or from then on: what is on disk is the old checkpoint or the
/// new one, the error is typed, no descriptor leaks, and the next save works.
#include "mor/train/checkpoint_store.hpp"

#include "support/catch.hpp"
#include "support/failure.hpp"
#include "support/temporary_folder.hpp"
#include "train/checkpoint_samples.hpp"
#include "train/faulty_files.hpp"
#include "train/memory_files.hpp"

#include <cerrno>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace {

using mor::ErrorCode;
using mor::Index;
using mor::test::FailingFiles;
using mor::test::Failure;
using mor::test::holds_samples;
using mor::test::MemoryFiles;
using mor::test::sample_files;
using mor::train::Checkpoint;
using mor::train::CheckpointStore;
using mor::train::FileOperations;
using mor::train::find_latest;

std::string const root = "/run/checkpoints";

void save(FileOperations& files, Index step, int variant = 0, Index keep_last = 2) {
  CheckpointStore store(root, keep_last, files);
  store.save(step, sample_files(files, step, variant));
}

std::vector<std::string> names_in_root(FileOperations& files) { return mor::train::DurableFiles(files).list(root); }

bool has_leftovers(FileOperations& files) {
  for (std::string const& name : names_in_root(files)) {
    if (name.front() == '.') return true;
  }
  return false;
}

/// A disk with steps 1 and 2, and what is saved on it while calls fail.
struct Scenario {
  char const* name;
  Index step;
  int variant;
};
std::vector<Scenario> const scenarios = {
    {"a new step, the oldest one is deleted", 3, 0}, {"the newest step again", 2, 1}, {"an older step again", 1, 1}};

MemoryFiles disk_with_two() {
  MemoryFiles disk;
  save(disk, 1);
  save(disk, 2);
  return disk;
}

/// After a failure in `scenario` there is a whole checkpoint no older than before, and every visible one is whole.
void check_disk(MemoryFiles& disk, Scenario const& scenario, bool saved) {
  std::vector<mor::error> rejected;
  std::optional<Checkpoint> const latest = find_latest(root, &rejected, disk);
  REQUIRE(rejected.empty());
  REQUIRE(latest);
  REQUIRE(latest->step() >= 2);
  if (saved) REQUIRE(latest->step() == std::max<Index>(2, scenario.step));
  for (Index const step : mor::train::list_checkpoints(root, disk)) {
    Checkpoint const checkpoint = Checkpoint::open(root + "/" + mor::train::checkpoint_name(step), disk);
    bool const is_new = holds_samples(checkpoint, disk, scenario.variant);
    REQUIRE((is_new || holds_samples(checkpoint, disk)));
    if (saved && step == scenario.step) REQUIRE(is_new);
  }
  REQUIRE(disk.open_count() == 0);
}

/// Lets call k of a save fail, for every k until the save no longer reaches it. Returns the number of calls.
int fail_every_call(Scenario const& scenario, int reason, bool sticky) {
  for (int k = 1;; ++k) {
    INFO(scenario.name << ": call " << k << " fails with errno " << reason << (sticky ? ", and all after it" : ""));
    MemoryFiles disk = disk_with_two();
    FailingFiles failing(disk, k, reason, sticky);
    std::optional<CheckpointStore> store;
    bool saved = false;
    std::optional<Failure> const failure = mor::test::failure_of([&] {
      store.emplace(root, 2, failing);
      store->save(scenario.step, sample_files(failing, scenario.step, scenario.variant));
      saved = true;
    });
    if (failure) {
      REQUIRE((failure->code == ErrorCode::IoFailure || failure->code == ErrorCode::MalformedFile));
      REQUIRE(failure->message.find(root) != std::string::npos);
    }
    if (!sticky && reason == EINTR) REQUIRE(saved);
    check_disk(disk, scenario, saved);
    bool const tripped = failing.tripped();
    failing.repair();
    // Training goes on: with the same store where there is one, else after a restart.
    if (store) {
      store->save(10, sample_files(failing, 10));
    } else {
      save(failing, 10);
    }
    REQUIRE(find_latest(root, nullptr, disk)->step() == 10);
    REQUIRE_FALSE(has_leftovers(disk));
    if (!tripped) return k - 1;
  }
}

TEST_CASE("when call k of a save fails, for every k, the old or the new checkpoint is there and training goes on") {
  for (Scenario const& scenario : scenarios) {
    for (int const reason : {EIO, ENOSPC, EACCES, EINTR}) {
      for (bool const sticky : {false, true}) REQUIRE(fail_every_call(scenario, reason, sticky) > 60);
    }
  }
}

TEST_CASE("when call k of a load fails, a whole checkpoint comes back, or a typed error") {
  for (int const reason : {EIO, EACCES, EMFILE, EINTR}) {
    for (bool const sticky : {false, true}) {
      for (int k = 1;; ++k) {
        INFO("call " << k << " fails with errno " << reason << (sticky ? ", and all after it" : ""));
        MemoryFiles disk = disk_with_two();
        FailingFiles failing(disk, k, reason, sticky);
        std::vector<mor::error> rejected;
        std::optional<Checkpoint> found;
        auto const failure = mor::test::failure_of([&] { found = find_latest(root, &rejected, failing); });
        if (failure) {
          REQUIRE(failure->code == ErrorCode::IoFailure);
          REQUIRE_FALSE((reason == EINTR && !sticky));
        } else if (found) {
          REQUIRE(holds_samples(*found, disk));
          REQUIRE(found->step() == (rejected.empty() ? 2 : 1));
          REQUIRE((rejected.empty() || reason == EIO));  // only a bad disk makes it pass one over
        } else {
          REQUIRE((sticky && reason == EIO && rejected.size() == 2));
        }
        REQUIRE(disk.open_count() == 0);
        if (!failing.tripped()) break;
      }
    }
  }
}

TEST_CASE("short writes make the same checkpoint") {
  MemoryFiles disk;
  mor::test::ShortWritingFiles slow(disk);
  save(slow, 4);
  REQUIRE(holds_samples(*find_latest(root, nullptr, disk), disk));
}

TEST_CASE("a disk that fills up anywhere in a save costs that save only") {
  MemoryFiles const before = disk_with_two();
  MemoryFiles roomy = before;
  save(roomy, 3, 0, 3);
  std::uint64_t const needed = roomy.used() - before.used();
  for (std::uint64_t percent = 1; percent <= 99; ++percent) {
    MemoryFiles disk = before;
    CheckpointStore store(root, 3, disk);
    disk.capacity = before.used() + needed * percent / 100;
    auto const fill = [&] { store.save(3, sample_files(disk, 3)); };
    REQUIRE(mor::test::fails_with(ErrorCode::IoFailure, fill, "No space left"));
    check_disk(disk, scenarios[0], false);
    REQUIRE_FALSE(has_leftovers(disk));
    REQUIRE(disk.used() == before.used());  // the failed save gives its space back
    disk.capacity = before.used() + needed;
    store.save(4, sample_files(disk, 4));
    REQUIRE(find_latest(root, nullptr, disk)->step() == 4);
  }
}

TEST_CASE("where names cannot be swapped, a step is not saved twice, and the error says what to do") {
  MemoryFiles disk = disk_with_two();
  disk.can_exchange = false;
  REQUIRE(mor::test::fails_with(ErrorCode::IoFailure, [&] { save(disk, 2, 1); }, "cannot swap names"));
  check_disk(disk, scenarios[1], false);
  REQUIRE_FALSE(has_leftovers(disk));
  CheckpointStore store(root, 2, disk);
  REQUIRE(store.discard_after(1) == std::vector<Index>{2});
  store.save(2, sample_files(disk, 2, 1));
  REQUIRE(holds_samples(*find_latest(root, nullptr, disk), disk, 1));
}

TEST_CASE("an older checkpoint that cannot be deleted is a warning, not a failed save") {
  MemoryFiles disk = disk_with_two();
  class NoRemoval final : public mor::test::InterceptedFiles {
   public:
    using InterceptedFiles::InterceptedFiles;
    bool removes = true;

   protected:
    int before(Call call) override { return call == Call::Remove && !removes ? EACCES : 0; }
  } files(disk);
  CheckpointStore store(root, 2, files);
  files.removes = false;
  mor::train::SaveReport const report = store.save(3, sample_files(files, 3));
  REQUIRE(report.cleanup_warning.find("cannot remove") != std::string::npos);
  REQUIRE(find_latest(root, nullptr, disk)->step() == 3);
  files.removes = true;
  REQUIRE(store.save(4, sample_files(files, 4)).cleanup_warning.empty());
  REQUIRE(store.steps() == std::vector<Index>{3, 4});
  REQUIRE_FALSE(has_leftovers(disk));
}

TEST_CASE("on a real disk too, every failing call leaves a checkpoint and closes its files") {
  auto const open_descriptors = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), std::filesystem::directory_iterator());
  };
  if (!std::filesystem::exists("/proc/self/fd")) SKIP("no /proc/self/fd to count open files in");
  auto& system = mor::train::system_file_operations();
  auto const before = open_descriptors();
  for (int k = 1;; k += 3) {
    mor::test::TemporaryFolder const folder;
    CheckpointStore store(folder.path(), 1);
    store.save(1, sample_files(system, 1));
    FailingFiles failing(system, k, ENOSPC, k % 2 == 0);
    auto const failure = mor::test::failure_of([&] {
      CheckpointStore failing_store(folder.path(), 1, failing);
      failing_store.save(2, sample_files(failing, 2));
    });
    auto const latest = find_latest(folder.path());
    REQUIRE(latest);
    REQUIRE(latest->step() >= (failure ? 1 : 2));
    REQUIRE(open_descriptors() == before);
    if (!failing.tripped()) break;
  }
}

}  // namespace
