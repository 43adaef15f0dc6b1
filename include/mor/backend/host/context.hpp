// SPDX-License-Identifier: Apache-2.0
/// @file
/// What the host's operations need of their backend: scratch memory and a number of threads.
#pragma once

#include "mor/core/memory.hpp"
#include "mor/core/types.hpp"

namespace mor::host {

/// Passed by value to every operation.
struct Context {
  Arena& arena;
  int threads = 1;
};

/// Scratch memory that goes back to the arena at the end of a scope.
class Scratch {
 public:
  explicit Scratch(Context context) : arena_(context.arena), mark_(context.arena.mark()) {}
  Scratch(Scratch const&) = delete;
  Scratch& operator=(Scratch const&) = delete;
  ~Scratch() { arena_.release(mark_); }

  /// Uninitialised room for `count` elements.
  template <class T>
  [[nodiscard]] T* take(Index count) {
    return arena_.template allocate<T>(count).data();
  }

 private:
  Arena& arena_;
  Arena::Mark mark_;
};

[[nodiscard]] constexpr Index divide_up(Index value, Index unit) { return (value + unit - 1) / unit; }
[[nodiscard]] constexpr Index round_up(Index value, Index unit) { return divide_up(value, unit) * unit; }

}  // namespace mor::host
