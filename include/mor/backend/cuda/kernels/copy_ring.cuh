// SPDX-License-Identifier: Apache-2.0
/// @file
/// A ring of stages in shared memory that asynchronous copies fill and some warps empty, each stage with a barrier that says
/// "full" and one that says "empty".
#pragma once

#include "mor/backend/cuda/kernels/tma.cuh"

#include <cstdint>

namespace mor::cuda {

/// A position in such a ring; who fills it and who empties it have one each. @tparam MostStages  room for their barriers
template <int MostStages, int StageBytes>
class CopyRing {
 public:
  __device__ __forceinline__ CopyRing(int stages, unsigned char* barriers, unsigned char* room)
      : stages_(stages), full_(reinterpret_cast<Barrier*>(barriers)), room_(shared_address(room)) {}

  /// By one thread, before `publish_barriers`. @param readers  arrivals that empty a stage
  __device__ __forceinline__ void make(int readers) const {
    for (int i = 0; i < stages_; ++i) {
      make_barrier(full_[i], 1);
      make_barrier(empty(i), readers);
    }
  }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t room() const {
    return room_ + static_cast<std::uint32_t>(stage_ * StageBytes);
  }
  [[nodiscard]] __device__ __forceinline__ Barrier& full() const { return full_[stage_]; }
  __device__ __forceinline__ void wait_until_full() const { wait(full(), parity_); }
  __device__ __forceinline__ void wait_until_empty() const { wait(empty(stage_), parity_ ^ 1U); }
  /// By one thread: so many bytes are about to be asked for.
  __device__ __forceinline__ void expect(int bytes = StageBytes) const { arrive_expecting(full(), bytes); }
  /// By each reader: this stage has been read. @param zero  0, but known only when it has: reads that are still under way when
  /// a copy is asked for can be slower than the copy
  __device__ __forceinline__ void release(std::uint32_t zero) const { arrive(empty(stage_ + static_cast<int>(zero))); }
  /// By each reader: the stage before this one has been read.
  __device__ __forceinline__ void release_last() const { arrive(empty(stage_ == 0 ? stages_ - 1 : stage_ - 1)); }
  __device__ __forceinline__ void advance() {
    if (++stage_ == stages_) {
      stage_ = 0;
      parity_ ^= 1U;
    }
  }

 private:
  [[nodiscard]] __device__ __forceinline__ Barrier& empty(int stage) const { return full_[MostStages + stage]; }

  int stages_, stage_ = 0;
  std::uint32_t parity_ = 0;
  Barrier* full_;
  std::uint32_t room_;
};

}  // namespace mor::cuda
