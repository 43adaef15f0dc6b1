// SPDX-License-Identifier: Apache-2.0
/// @file
/// Reports of ticks on their way to the host, which learns of each when it asks, and never has to wait for one.
#pragma once

#include "mor/backend/cuda/device.cuh"
#include "mor/backend/cuda/memory.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/host_words.cuh"
#include "mor/backend/cuda/stream.cuh"
#include "mor/core/error.hpp"
#include "mor/core/memory.hpp"
#include "mor/core/types.hpp"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <span>
#include <thread>
#include <vector>

namespace mor::cuda {

/// A ring of page-locked buffers: first in, first out. Copies run in a stream of their own, beside the work that follows them, and
/// the host learns of one from its number, before that work has ended. The backend has to outlive it.
class Reports {
 public:
  /// @param words      of a report at most
  /// @param in_flight  reports between `post` and `pop` at most
  template <class B>
  Reports(B& b, Index words, Index in_flight)
      : context_(b.context()), ended_(static_cast<std::size_t>(in_flight)), sizes_(ended_.size()), next_(b.memory(), 2),
        ring_{words_of(in_flight * words), words_of(in_flight), words, in_flight, next_.data()} {
    b.fill(next_.span(), Row{0});
    std::fill_n(ring_.numbers, in_flight, Row{0});
  }
  Reports(Reports const&) = delete;
  Reports& operator=(Reports const&) = delete;
  ~Reports() {  // copies may be under way
    static_cast<void>(cudaStreamSynchronize(context_.stream));
    static_cast<void>(cudaStreamSynchronize(side_.get()));
  }

  /// Enqueues a copy of device memory. Part of work that may be captured: the copy runs beside what follows, up to `settle`,
  /// and takes the next place each time that the work runs. Throws InvalidArgument where it has no room.
  void send(std::span<Row const> words) {
    require(static_cast<Index>(words.size()) <= ring_.room, "a report is longer than its room", "Reports::send");
    make_current(context_.device->ordinal);
    written_.record(context_.stream);
    written_.hold(side_.get());
    Context side = context_;
    side.stream = side_.get();
    send_words(side, words, ring_);
    sent_.record(side_.get());
  }
  /// What follows waits for what has been sent. In the same work.
  void settle() { sent_.hold(context_.stream); }
  /// Says that `size` words have been sent by the work enqueued last. Throws InvalidArgument where too many are pending.
  void expect(Index size) {
    require(pending_ < sizes_.size(), "more reports than there is room for", "Reports::expect");
    std::size_t const place = (first_ + pending_) % sizes_.size();
    sizes_[place] = static_cast<std::size_t>(size);
    ended_[place].record(context_.stream);
    ++pending_;
  }
  /// All three.
  void post(std::span<Row const> words) {
    context_.log->needs_host("Reports::post");
    require(pending_ < sizes_.size(), "more reports than there is room for", "Reports::post");
    send(words);
    settle();
    expect(static_cast<Index>(words.size()));
  }
  [[nodiscard]] Index pending() const { return static_cast<Index>(pending_); }
  /// Whether the oldest report is here; false where none is pending. Errors of kernels show here.
  [[nodiscard]] bool arrived() const { return pending_ > 0 && (here() || ended_[first_].done()); }
  /// Waits for the oldest report, if there is one.
  void wait() {
    context_.log->wait("Reports::wait");
    constexpr int looks = 1000;  // between two questions whether the work has failed, which take about a microsecond each
    while (pending_ > 0 && !arrived()) {
      for (int i = 0; i < looks && !here(); ++i) std::this_thread::yield();
    }
  }
  /// The oldest report, once it has arrived.
  [[nodiscard]] std::span<Row const> front() const {
    require(pending_ > 0, "no report is pending", "Reports::front");
    return {ring_.words + static_cast<Index>(first_) * ring_.room, sizes_[first_]};
  }
  void pop() {
    require(pending_ > 0, "no report is pending", "Reports::pop");
    first_ = (first_ + 1) % sizes_.size();
    --pending_;
    popped_ = HostRing::after(popped_);
  }

 private:
  [[nodiscard]] Row* words_of(Index count) { return reinterpret_cast<Row*>(memory_.take(count * static_cast<Index>(sizeof(Row)))); }
  /// Whether the oldest report's words are all there, whatever its work still does.
  [[nodiscard]] bool here() const {
    return std::atomic_ref<Row>(ring_.numbers[first_]).load(std::memory_order_acquire) == HostRing::after(popped_);
  }

  Context context_;
  PinnedSlots memory_;
  Stream side_;
  Event written_, sent_;
  std::vector<Event> ended_;  ///< the work that sent a report, and what followed in it
  std::vector<std::size_t> sizes_;
  Buffer<Row> next_;
  HostRing ring_;
  std::size_t first_ = 0, pending_ = 0;
  Row popped_ = 0;  ///< number of the last report that was taken
};

}  // namespace mor::cuda
