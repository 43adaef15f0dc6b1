// SPDX-License-Identifier: Apache-2.0
/// @file
/// Work that depends on a key alone, captured in a CUDA graph a key: after the first times, the host launches the graph
/// and does nothing else.
#pragma once

#include "mor/backend/cuda/device.cuh"
#include "mor/backend/cuda/graph.cuh"
#include "mor/backend/cuda/ops/loop.cuh"
#include "mor/backend/cuda/ops/work_log.cuh"
#include "mor/core/memory.hpp"
#include "mor/core/types.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace mor::cuda {

/// Runs work by its key. The first run of a key is an ordinary one, in which products find their algorithms and memory
/// is taken; the second is captured; those that follow launch the graph. Unlike in `Repetition`, the host's part of the
/// work is left out then, so that such work must neither upload nor wait. Since it would go on with old data, and in
/// silence, it is refused (InvalidArgument, naming the verb) in its very first run. Work that cannot be captured for
/// another reason runs as usual each time.
///
/// Work has the arena to itself: it starts on an empty one, and what it leaves there is gone. So it finds the same
/// scratch memory each time; where the arena has taken other memory meanwhile, it is captured again. The backend has to
/// stay where it is, and to outlive this.
class Replays {
 public:
  static constexpr bool captures = true;
  /// Graphs kept at most; the one that was not run for the longest time makes room.
  static constexpr std::size_t kMostGraphs = 256;

  template <class B>
  explicit Replays(B& b)
      : device_(b.context().device->ordinal), stream_(b.context().stream), log_(b.context().log), arena_(b.context().arena) {}
  Replays(Replays const&) = delete;
  Replays& operator=(Replays const&) = delete;
  ~Replays() { static_cast<void>(cudaStreamSynchronize(stream_)); }

  template <class Work>
  void run(std::uint64_t key, Work const& work) {
    replay(key, work, [&](Graph& graph) { return graph.capture(stream_, [&] { guarded(work); }); });
  }

  /// What the work of a loop is called with, for `end_tick`.
  using Loop = cuda::Loop;
  /// As `run`, of `work(loop)`, whose graph goes round again for as long as the `end_tick` in it says so. While it is not
  /// captured it runs once. A key belongs to one of the two functions.
  template <class Work>
  void run_while(std::uint64_t key, Work const& work) {
    replay(
        key, [&] { work(Loop{}); },
        [&](Graph& graph) {
          return graph.capture_while(stream_, [&](cudaGraphConditionalHandle condition) {
            guarded([&] { work(Loop{condition, true}); });
          });
        });
  }

  /// Whether the last run of the key launched a graph, and that graph is still kept.
  [[nodiscard]] bool captured(std::uint64_t key) const {
    auto const found = std::find_if(entries_.begin(), entries_.end(), [&](Entry const& e) { return e.key == key; });
    return found != entries_.end() && found->graph.captured();
  }

 private:
  struct Entry {
    std::uint64_t key = 0;
    std::uint64_t last_run = 0;
    bool warm = false, refused = false;
    Graph graph;
    Index allocations = 0;  ///< of the arena, when the graph was captured
  };

  [[nodiscard]] Entry& find(std::uint64_t key) {
    auto found = std::find_if(entries_.begin(), entries_.end(), [&](Entry const& e) { return e.key == key; });
    if (found == entries_.end()) {
      if (entries_.size() == kMostGraphs) {
        auto const oldest = std::min_element(entries_.begin(), entries_.end(),
                                             [](Entry const& a, Entry const& b) { return a.last_run < b.last_run; });
        finish(oldest->graph);
        entries_.erase(oldest);
      }
      found = entries_.insert(entries_.end(), Entry{});
      found->key = key;
    }
    found->last_run = ++runs_;
    return *found;
  }

  /// Forgets a graph once the device is done with it.
  void finish(Graph& graph) const {
    if (!graph.captured()) return;
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    graph.forget();
  }

  template <class Work, class Capture>
  void replay(std::uint64_t key, Work const& work, Capture const& capture) {
    make_current(device_);
    Entry& entry = find(key);
    arena_->reset();
    if (entry.warm && !entry.refused && (!entry.graph.captured() || entry.allocations != arena_->allocations())) {
      finish(entry.graph);
      entry.refused = !capture(entry.graph);
      entry.allocations = arena_->allocations();
      arena_->release({});
    }
    if (entry.graph.captured()) return entry.graph.launch(stream_);
    guarded(work);
    entry.warm = true;
    arena_->release({});
  }

  /// Runs the work, in which verbs that need the host are refused.
  template <class Work>
  void guarded(Work const& work) const {
    log_->begin(WorkLog::State::Replay);
    try {
      work();
    } catch (...) {
      log_->begin(WorkLog::State::Run);
      throw;
    }
    log_->begin(WorkLog::State::Run);
  }

  int device_;
  cudaStream_t stream_;
  WorkLog* log_;
  Arena* arena_;
  std::vector<Entry> entries_;
  std::uint64_t runs_ = 0;
};

}  // namespace mor::cuda
