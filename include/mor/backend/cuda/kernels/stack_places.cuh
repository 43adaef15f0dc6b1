// SPDX-License-Identifier: Apache-2.0
/// @file
/// Where a warp of a stack's block is, and what lies where in the block's shared memory.
#pragma once

#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/kernels/stack_arguments.cuh"
#include "mor/backend/cuda/kernels/tma.cuh"
#include "mor/backend/cuda/tuning/stack.hpp"
#include "mor/core/dtype.hpp"
#include "mor/core/types.hpp"

namespace mor::cuda {

class StackPlaces {
 public:
  static constexpr int kThreads = kWarpSize * tuning::Stack::warps;  ///< that compute

  __device__ __forceinline__ StackPlaces(StackArguments const& args, unsigned char* shared_memory)
      : arguments(args), plan(args.plan), shared(shared_memory) {}

  StackArguments const& arguments;
  tuning::StackPlan const& plan;
  unsigned char* const shared;

  [[nodiscard]] static __device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / kWarpSize; }
  [[nodiscard]] static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % kWarpSize; }
  /// Which half of the columns the block has, of the two of its pair.
  [[nodiscard]] static __device__ __forceinline__ int side() { return static_cast<int>(blockIdx.x) % tuning::Stack::pair; }
  [[nodiscard]] static __device__ __forceinline__ int pair() { return static_cast<int>(blockIdx.x) / tuning::Stack::pair; }
  /// The block's first unit of attention.
  [[nodiscard]] __device__ __forceinline__ int first_unit() const {
    int const unit = static_cast<int>(blockIdx.x) - plan.first_unit_block;
    return unit < 0 ? unit + plan.blocks : unit;
  }

  /// Waits for all warps that compute.
  static __device__ __forceinline__ void meet() { named_wait(kMeetBarrier, kThreads); }

  /// [warps, rows]
  [[nodiscard]] __device__ __forceinline__ float* squares() const { return reinterpret_cast<float*>(shared + plan.squares_at); }
  /// [own tiles of the projection, half of the rows, 8]: cosine and sine of each pair's angle, for rows that the block finishes.
  [[nodiscard]] __device__ __forceinline__ float2* turns() const { return reinterpret_cast<float2*>(shared + plan.turns_at); }
  /// The storage row that a row's new key goes to; -1: none.
  [[nodiscard]] __device__ __forceinline__ int* places() const { return reinterpret_cast<int*>(shared + plan.rows_at); }
  [[nodiscard]] __device__ __forceinline__ int* limits() const { return places() + tuning::Stack::most_rows; }
  [[nodiscard]] __device__ __forceinline__ int* begins() const { return limits() + tuning::Stack::most_rows; }
  /// The rows of `kept` that rows go to.
  [[nodiscard]] __device__ __forceinline__ int* targets() const { return begins() + tuning::Stack::most_rows; }
  /// [kept units, warps]: the storage row of the first key that a warp looks at.
  [[nodiscard]] __device__ __forceinline__ int* firsts() const { return reinterpret_cast<int*>(shared + plan.firsts_at); }

  [[nodiscard]] __device__ __forceinline__ tuning::StackRecipe* recipes() const {
    return reinterpret_cast<tuning::StackRecipe*>(shared + plan.recipes_at);
  }
  /// Of all layers.
  [[nodiscard]] __device__ __forceinline__ StackLayerVectors* vectors() const {
    return reinterpret_cast<StackLayerVectors*>(shared + plan.layers_at);
  }

  /// What `StackStart` has read.
  [[nodiscard]] __device__ __forceinline__ int* start() const { return reinterpret_cast<int*>(shared + plan.start_at); }

  /// The storage row of a key of a row's list.
  [[nodiscard]] __device__ __forceinline__ int place_of(int begin, int key) const {
    int const page = static_cast<int>(arguments.by_page(static_cast<unsigned>(key)));
    return (arguments.table.pages[begin + page] - page) * arguments.table.page_size + key;
  }
  /// Has a step's keys and values from key `base` on brought to the second-level cache: lane l has key l % 16, and of that the
  /// key or the value. `place`: that key's storage row; `limit`: keys of the list.
  template <int HeadDim>
  __device__ __forceinline__ void prefetch_keys(StackLayerVectors const& layer, int head, int base, int limit, int place) const {
    constexpr int keys = tuning::Stack::step_keys, line = 64;
    int const key = lane() % keys;
    if (base + key >= limit) return;
    bfloat16 const* const from = layer.planes[lane() / keys] + Index{place + key} * arguments.plane_stride + head * HeadDim;
#pragma unroll
    for (int at = 0; at < HeadDim; at += line) asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(from + at)));
  }

 protected:
  static constexpr int kMeetBarrier = 1, kAskedBarrier = 2, kFencedBarrier = 3, kBeginBarrier = 4;
};

}  // namespace mor::cuda
