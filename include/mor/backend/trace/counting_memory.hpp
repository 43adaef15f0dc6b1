// SPDX-License-Identifier: Apache-2.0
/// @file
/// `CountingMemory`: a memory resource that hands out addresses and keeps count, but has no memory behind them.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/memory.hpp"
#include "mor/core/types.hpp"

#include <algorithm>
#include <cstdint>

namespace mor::trace {

/// Addresses are aligned, distinct for the life of the object and never null; touching one is a fault. What was given
/// back is not given out again, so that an address always means one allocation.
class CountingMemory {
 public:
  /// `range` picks one of 15 disjoint ranges of addresses, each of 2^43 bytes: one a memory resource.
  explicit CountingMemory(std::uintptr_t range) : first_(range << range_bits), next_(first_) {
    require(range >= 1 && range <= 15, "an address range is 1 to 15", "CountingMemory");
  }
  CountingMemory(CountingMemory const&) = delete;
  CountingMemory& operator=(CountingMemory const&) = delete;

  /// The resource; it refers to this object, which must stay alive and where it is.
  [[nodiscard]] MemoryResource resource() {
    return {this, &CountingMemory::allocate, &CountingMemory::deallocate, false};
  }

  [[nodiscard]] Index live_bytes() const { return live_; }
  [[nodiscard]] Index peak_bytes() const { return peak_; }
  [[nodiscard]] Index allocations() const { return allocations_; }

  /// Address of `bytes` new bytes. Throws OutOfMemory when the range is exhausted.
  [[nodiscard]] void* take(Index bytes) {
    if (bytes < 0 || bytes > Index{1} << range_bits) refuse(bytes);
    // An address of its own even for no bytes, and a gap, so that the end of one is not the start of the next.
    Index const room = mor::detail::aligned(bytes) + kAlignment;
    if (static_cast<std::uintptr_t>(room) > first_ + (std::uintptr_t{1} << range_bits) - next_) refuse(bytes);
    auto* const pointer = reinterpret_cast<void*>(next_);
    next_ += static_cast<std::uintptr_t>(room);
    live_ += bytes;
    peak_ = std::max(peak_, live_);
    ++allocations_;
    return pointer;
  }
  void give_back(Index bytes) { live_ -= bytes; }

 private:
  static_assert(sizeof(std::uintptr_t) >= 8, "the trace backend needs 64-bit addresses");
  static constexpr unsigned range_bits = 43;

  [[noreturn]] static void refuse(Index bytes) {
    fail(ErrorCode::OutOfMemory, "the trace has no addresses left", "CountingMemory", "at most 2^43 bytes in all",
         text_of(bytes) + " more");
  }
  static void* allocate(void* context, Index bytes) { return static_cast<CountingMemory*>(context)->take(bytes); }
  static void deallocate(void* context, void*, Index bytes) { static_cast<CountingMemory*>(context)->give_back(bytes); }

  std::uintptr_t first_, next_;
  Index live_ = 0, peak_ = 0, allocations_ = 0;
};

}  // namespace mor::trace
