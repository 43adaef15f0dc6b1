// SPDX-License-Identifier: Apache-2.0
/// @file
/// Work that repeats with the same shapes, captured in a CUDA graph once it has settled.
#pragma once

#include "mor/backend/cuda/graph.cuh"
#include "mor/backend/cuda/memory.cuh"
#include "mor/backend/cuda/ops/error.cuh"
#include "mor/backend/cuda/ops/work_log.cuh"

#include <cstdint>

namespace mor::cuda {

/// Runs a piece of work again and again. When two runs in a row asked the same of the device and did not wait for it, the
/// next is captured; from then on the host's part of the work only refills the uploads, and one launch does the rest. Work
/// that changes (capacities that still fall, another batch size) runs as usual until it has settled again. Where work turns
/// out to wait, or to be other work, only while it is compared or captured, the host's part runs twice.
class Repetition {
 public:
  Repetition() = default;
  Repetition(Repetition const&) = delete;
  Repetition& operator=(Repetition const&) = delete;
  ~Repetition() {
    if (done_ != nullptr) static_cast<void>(cudaEventSynchronize(done_));  // the graph may still read the slots
    graph_.forget();  // before what its uploads read
    if (done_ != nullptr) static_cast<void>(cudaEventDestroy(done_));
  }

  /// @param slots  where the backend takes memory for uploads from while it is not null
  template <class Work>
  void run(cudaStream_t stream, WorkLog& log, PinnedSlots*& slots, Work const& work) {
    if (graph_.captured() && matches(log, slots, work)) {
      launch(stream);
      return;
    }
    if (settled_) {
      capture(stream, log, slots, work);
      if (graph_.captured()) return;
    }
    log.begin(WorkLog::State::Run);
    work();
    settled_ = !refused_ && log.waits() == 0 && log.fingerprint() == fingerprint_;
    fingerprint_ = log.fingerprint();
  }

  /// Whether the last run was a graph's.
  [[nodiscard]] bool captured() const { return graph_.captured(); }

 private:
  /// Directs uploads to the slots, and back however the scope is left.
  class SlotScope {
   public:
    SlotScope(PinnedSlots*& where, PinnedSlots& slots) : where_(where) {
      slots.rewind();
      where_ = &slots;
    }
    SlotScope(SlotScope const&) = delete;
    SlotScope& operator=(SlotScope const&) = delete;
    ~SlotScope() { where_ = nullptr; }

   private:
    PinnedSlots*& where_;
  };

  /// Runs the host's part, which refills the slots, and says whether the graph does the device's part.
  template <class Work>
  bool matches(WorkLog& log, PinnedSlots*& slots, Work const& work) {
    check(cudaEventSynchronize(done_), "cudaEventSynchronize");  // the graph still reads the slots
    bool same = true;
    {
      SlotScope const scope(slots, slots_);
      log.begin(WorkLog::State::Compare);
      try {
        work();
      } catch (WorkDiverged const&) {
        same = false;
      } catch (...) {
        log.begin(WorkLog::State::Run);
        throw;
      }
    }
    same = same && log.fingerprint() == fingerprint_;
    log.begin(WorkLog::State::Run);
    if (!same) forget();
    return same;
  }

  template <class Work>
  void capture(cudaStream_t stream, WorkLog& log, PinnedSlots*& slots, Work const& work) {
    if (done_ == nullptr) check(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "cudaEventCreate");
    settled_ = false;  // until the work has run again, however this ends
    bool whole = false;
    try {
      whole = graph_.capture(stream, [&] {
        SlotScope const scope(slots, slots_);
        log.begin(WorkLog::State::Capture);
        work();
      });
    } catch (WorkDiverged const&) {  // it is other work than the last two times: it runs as usual, and may settle again
      return;
    } catch (...) {
      log.begin(WorkLog::State::Run);
      throw;
    }
    fingerprint_ = log.fingerprint();
    log.begin(WorkLog::State::Run);
    if (!whole) {  // something in the work cannot be captured: it runs as usual, this time and from now on
      refused_ = true;
      return;
    }
    launch(stream);
  }

  void launch(cudaStream_t stream) {
    graph_.launch(stream);
    check(cudaEventRecord(done_, stream), "cudaEventRecord");
  }
  void forget() {
    graph_.forget();
    settled_ = false;
  }

  PinnedSlots slots_;
  Graph graph_;
  cudaEvent_t done_ = nullptr;  ///< after the last launch
  std::uint64_t fingerprint_ = 0;
  bool settled_ = false, refused_ = false;
};

}  // namespace mor::cuda
