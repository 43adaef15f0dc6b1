// SPDX-License-Identifier: Apache-2.0
/// @file
/// A meeting of all blocks of a cooperative launch, at a counter in device memory that needs no one to reset it: all
/// arrivals together add 2^31, so each meeting turns the highest bit over and leaves the others as they were, however many
/// blocks the next launch has. The memory is zero at first; launches that meet at it follow one another.
#pragma once

#include <cstdint>

namespace mor::cuda {

class Meeting {
 public:
  /// By one thread of each block, once: what the block wrote before (the last barrier of the block, for other threads) is
  /// seen by who waits.
  __device__ __forceinline__ explicit Meeting(unsigned* counter) : counter_(counter) {
    unsigned const own = blockIdx.x == 0 ? kTurn - (gridDim.x - 1U) : 1U;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;"
                 : "=r"(before_)
                 : "l"(__cvta_generic_to_global(counter_)), "r"(own)
                 : "memory");
  }
  /// Until every block has arrived.
  __device__ __forceinline__ void wait() const {
    unsigned now;
    do {
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(__cvta_generic_to_global(counter_)) : "memory");
    } while (((now ^ before_) & kTurn) == 0U);
  }

 private:
  static constexpr unsigned kTurn = 1U << 31U;

  unsigned* counter_;
  unsigned before_;
};

}  // namespace mor::cuda
