// SPDX-License-Identifier: Apache-2.0
/// @file
/// Reports of ticks on their way to the host, which learns of each when it asks, and never has to wait for one.
#pragma once

#include "mor/backend/cuda/memory.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/host_words.cuh"
#include "mor/backend/cuda/stream.cuh"
#include "mor/core/error.hpp"
#include "mor/core/types.hpp"

#include <cstddef>
#include <span>
#include <vector>

namespace mor::cuda {

/// A ring of page-locked buffers with an event each: first in, first out. The backend has to outlive it.
class Reports {
 public:
  /// @param words      of a report at most
  /// @param in_flight  reports between `post` and `pop` at most
  template <class B>
  Reports(B& b, Index words, Index in_flight)
      : context_(b.context()), words_(words), ring_(static_cast<std::size_t>(in_flight)) {
    for (Report& report : ring_) {
      report.words = reinterpret_cast<Row*>(memory_.take(words * static_cast<Index>(sizeof(Row))));
    }
  }
  Reports(Reports const&) = delete;
  Reports& operator=(Reports const&) = delete;
  ~Reports() { static_cast<void>(cudaStreamSynchronize(context_.stream)); }  // copies may be under way

  /// Enqueues a copy of device memory. Throws InvalidArgument where it has no room.
  void post(std::span<Row const> words) {
    require(pending_ < ring_.size(), "more reports than there is room for", "Reports::post");
    require(static_cast<Index>(words.size()) <= words_, "a report is longer than its room", "Reports::post");
    context_.log->needs_host("Reports::post");
    Report& report = ring_[(first_ + pending_) % ring_.size()];
    report.size = words.size();
    send_words(context_, words, report.words);
    report.arrived.record(context_.stream);
    ++pending_;
  }
  [[nodiscard]] Index pending() const { return static_cast<Index>(pending_); }
  /// Whether the oldest report is here; false where none is pending. Errors of kernels show here.
  [[nodiscard]] bool arrived() const { return pending_ > 0 && ring_[first_].arrived.done(); }
  /// Waits for the oldest report, if there is one.
  void wait() {
    context_.log->wait("Reports::wait");
    if (pending_ > 0) ring_[first_].arrived.wait();
  }
  /// The oldest report, once it has arrived.
  [[nodiscard]] std::span<Row const> front() const {
    require(pending_ > 0, "no report is pending", "Reports::front");
    return {ring_[first_].words, ring_[first_].size};
  }
  void pop() {
    require(pending_ > 0, "no report is pending", "Reports::pop");
    first_ = (first_ + 1) % ring_.size();
    --pending_;
  }

 private:
  struct Report {
    Row* words = nullptr;
    std::size_t size = 0;
    Event arrived;
  };

  Context context_;
  Index words_;
  PinnedSlots memory_;
  std::vector<Report> ring_;
  std::size_t first_ = 0, pending_ = 0;
};

}  // namespace mor::cuda
