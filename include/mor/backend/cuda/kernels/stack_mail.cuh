// SPDX-License-Identifier: Apache-2.0
/// @file
/// Letters between the two blocks of a pair: each warp of one writes to the same warp of the other, straight to its shared
/// memory, and the letters of a warp arrive in its order.
///
/// There are as many letters each way, and before its n-th a warp has received all but one of those before. So when a warp
/// writes its n-th letter, it has the (n - 2)-th of the other, which had the (n - 4)-th of this one by then, and read it: four
/// places for letters are enough, and nobody has to say that one is free.
#pragma once

#include "mor/backend/cuda/kernels/cluster.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/kernels/tma.cuh"
#include "mor/backend/cuda/tuning/stack.hpp"
#include "mor/core/types.hpp"

#include <cstdint>

namespace mor::cuda {

class StackMail {
  using Stack = tuning::Stack;

 public:
  /// @param side  of the block in its pair
  __device__ __forceinline__ StackMail(tuning::StackPlan const& plan, unsigned char* shared, int side)
      : peer_(Stack::pair - 1 - side), barriers_(barriers(plan, shared) + warp() * Stack::mail_slots),
        room_(shared_address(shared + plan.mail_at) + static_cast<std::uint32_t>(warp() * Stack::mail_slots * Stack::mail_bytes)) {}

  /// By one warp of each block, before `publish_barriers`; then a barrier of the pair.
  static __device__ __forceinline__ void make(tuning::StackPlan const& plan, unsigned char* shared) {
    for (int i = static_cast<int>(threadIdx.x) % kWarpSize; i < Stack::warps * Stack::mail_slots; i += kWarpSize) {
      make_barrier(barriers(plan, shared)[i], 1);
    }
  }

  /// By the whole of a warp, in both blocks.
  __device__ __forceinline__ void send(float4 letter) {
    int const slot = sent_++ % Stack::mail_slots;
    std::uint32_t const barrier = shared_address(barriers_ + slot);
    if (threadIdx.x % kWarpSize == 0) expect_stores(barrier, Stack::mail_bytes);  // from the other one
    store_counted(address_of_block(place(slot), peer_), letter, address_of_block(barrier, peer_));
  }
  /// The oldest letter that has not been received.
  [[nodiscard]] __device__ __forceinline__ float4 receive() {
    int const slot = received_ % Stack::mail_slots;
    wait_for_stores(shared_address(barriers_ + slot), static_cast<std::uint32_t>(received_ / Stack::mail_slots % 2));
    ++received_;
    return read_shared_quad(place(slot));
  }

 private:
  [[nodiscard]] static __device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / kWarpSize; }
  [[nodiscard]] static __device__ __forceinline__ Barrier* barriers(tuning::StackPlan const& plan, unsigned char* shared) {
    return reinterpret_cast<Barrier*>(shared + plan.barriers_at) + 2 * Stack::most_stages;
  }
  /// This lane's part of a letter.
  [[nodiscard]] __device__ __forceinline__ std::uint32_t place(int slot) const {
    return room_ + static_cast<std::uint32_t>(slot * Stack::mail_bytes) + threadIdx.x % kWarpSize * 16U;
  }

  int const peer_;
  int sent_ = 0, received_ = 0;
  Barrier* barriers_;
  std::uint32_t room_;
};

}  // namespace mor::cuda
