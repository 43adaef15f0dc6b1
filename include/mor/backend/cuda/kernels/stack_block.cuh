// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a warp of a stack's block that computes takes with it from layer to layer.
#pragma once

#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/kernels/stack_exchange.cuh"
#include "mor/backend/cuda/kernels/stack_mail.cuh"
#include "mor/backend/cuda/kernels/stack_places.cuh"
#include "mor/backend/cuda/kernels/stack_weights.cuh"
#include "mor/backend/cuda/kernels/tma.cuh"

namespace mor::cuda {

class StackBlock : public StackPlaces {
 public:
  __device__ __forceinline__ StackBlock(StackPlaces const& places, int half, int all_rows)
      : StackPlaces(places), rows(all_rows), exchange(arguments.plan, arguments.exchange, half), ring(stack_ring(arguments.plan, shared)),
        mail(arguments.plan, shared, side()), next_slot(arguments.plan.slot_elements), last_slot(2 * arguments.plan.slot_elements) {}

  int const rows;
  StackExchange const exchange;
  StackRing ring;
  StackMail mail;
  int layer = 0;
  int slot = 0, next_slot, last_slot;  ///< where those of this layer, the next one, and the one before begin

  __device__ __forceinline__ void next_layer() {
    ++layer;
    int const freed = last_slot;
    last_slot = slot;
    slot = next_slot;
    next_slot = freed;
  }

  /// Where warps leave what is to be added up: one of two rooms. Who has left something in one, met the others and met them
  /// again after the next one knows that everybody has read it.
  [[nodiscard]] __device__ __forceinline__ unsigned char* sums_room() const {
    return shared + plan.sums_at + (turn_ ? plan.sums_bytes : 0);
  }
  __device__ __forceinline__ void next_room() { turn_ = !turn_; }

  /// A fence for all threads in every layer (see stack_exchange.cuh), by a warp of its own: these ask for it at the layer's
  /// begin, and wait for it before they write the layer's first results. It takes as long as their wait for its rows.
  __device__ __forceinline__ void ask_for_fence() const { named_arrive(kAskedBarrier, kThreads + kWarpSize); }
  __device__ __forceinline__ void wait_for_fence() const { named_wait(kFencedBarrier, kThreads + kWarpSize); }
  static __device__ __forceinline__ void keep_fences(int layers) {
#pragma unroll 1
    for (int i = 0; i < layers; ++i) {
      named_wait(kAskedBarrier, kThreads + kWarpSize);
      fence_device();
      named_arrive(kFencedBarrier, kThreads + kWarpSize);
    }
  }

 private:
  bool turn_ = false;
};

}  // namespace mor::cuda
