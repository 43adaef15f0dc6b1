// SPDX-License-Identifier: Apache-2.0
/// @file
/// A process that saves all the time is killed with SIGKILL at random moments, again and again.
#include "mor/train/checkpoint_store.hpp"

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"
#include "train/checkpoint_samples.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace {

using mor::Index;
using mor::train::Checkpoint;
using mor::train::CheckpointStore;
using mor::train::find_latest;
using mor::train::system_file_operations;

constexpr std::size_t file_size = 3000;

/// The child's life: resume from the newest checkpoint and save step after step, telling the parent of each.
[[noreturn]] void save_for_ever(std::filesystem::path const& root, int told) {
  try {
    CheckpointStore store(root, 2);
    std::optional<Checkpoint> const latest = find_latest(root);
    for (Index step = latest ? latest->step() + 1 : 0;; ++step) {
      store.save(step, mor::test::sample_files(system_file_operations(), step, 0, file_size));
      if (::write(told, "s", 1) != 1) ::_exit(2);
    }
  } catch (...) {
    ::_exit(3);
  }
}

bool has_leftovers(std::filesystem::path const& root) {
  for (auto const& entry : std::filesystem::directory_iterator(root)) {
    if (entry.path().filename().string().front() == '.') return true;
  }
  return false;
}

/// Starts a child, waits for `saves` saves and then `delay`, and kills it. False when it had ended by itself.
bool run_and_kill(std::filesystem::path const& root, int saves, std::chrono::microseconds delay) {
  std::array<int, 2> pipe_ends{};
  REQUIRE(::pipe(pipe_ends.data()) == 0);
  pid_t const child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::close(pipe_ends[0]);
    save_for_ever(root, pipe_ends[1]);
  }
  ::close(pipe_ends[1]);
  for (int i = 0; i < saves; ++i) {
    pollfd wait{.fd = pipe_ends[0], .events = POLLIN, .revents = 0};
    char byte = 0;
    if (::poll(&wait, 1, 5000) != 1 || ::read(pipe_ends[0], &byte, 1) != 1) break;
  }
  ::usleep(static_cast<useconds_t>(delay.count()));
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  ::close(pipe_ends[0]);
  return WIFSIGNALED(status);
}

TEST_CASE("a process killed at random moments leaves whole checkpoints, never goes back and restarts clean") {
  mor::test::TemporaryFolder const folder;
  std::filesystem::path const root = folder / "checkpoints";
  std::mt19937 random(static_cast<unsigned>(std::chrono::steady_clock::now().time_since_epoch().count()));
  auto const end = std::chrono::steady_clock::now() + std::chrono::seconds(15);
  Index newest = -1;
  int cycles = 0, killed_while_saving = 0;
  for (; cycles < 100 && std::chrono::steady_clock::now() < end; ++cycles) {
    INFO("cycle " << cycles << ", newest step " << newest);
    REQUIRE(run_and_kill(root, cycles % 4 == 0 ? 1 : 0, std::chrono::microseconds(random() % 40000)));
    if (!std::filesystem::exists(root)) continue;  // killed before it began
    std::vector<mor::error> rejected;
    std::optional<Checkpoint> const latest = find_latest(root, &rejected);
    REQUIRE(rejected.empty());
    REQUIRE((latest ? latest->step() : -1) >= newest);
    if (latest) REQUIRE(mor::test::holds_samples(*latest, system_file_operations(), 0, file_size));
    if (latest) newest = latest->step();
    killed_while_saving += has_leftovers(root) ? 1 : 0;
    CheckpointStore const restarted(root, 2);
    REQUIRE_FALSE(has_leftovers(root));
  }
  INFO(cycles << " cycles, " << killed_while_saving << " kills in the middle of a save, newest step " << newest);
  CHECK(newest > 0);
  CHECK(killed_while_saving > 0);
}

}  // namespace
