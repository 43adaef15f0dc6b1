// SPDX-License-Identifier: Apache-2.0
/// @file
/// How a launch of a stack begins: its rows and the half of the exchange that it takes, the first layer's input and keys, and
/// the other half made absent for the next launch.
#pragma once

#include "mor/backend/cuda/kernels/listed_row.cuh"
#include "mor/backend/cuda/kernels/overlap.cuh"
#include "mor/backend/cuda/kernels/stack_arguments.cuh"
#include "mor/backend/cuda/kernels/stack_exchange.cuh"
#include "mor/backend/cuda/kernels/stack_places.cuh"
#include "mor/backend/cuda/tuning/architecture.hpp"
#include "mor/backend/cuda/tuning/stack.hpp"
#include "mor/core/types.hpp"

namespace mor::cuda {

/// A thread's part of the first layer's input, as if a layer before it had made it, written by `Stack::start_warps` warps of
/// all blocks. It is asked for before it is known how many rows there are: a list has room for all that there may be.
class StackInput : StackPlaces {
 public:
  __device__ __forceinline__ explicit StackInput(StackPlaces const& places) : StackPlaces(places) {
    wait_for_earlier_kernels<Sm90>();
    request();
  }
  __device__ __forceinline__ void publish(int rows, StackExchange const& exchange) {
    ExchangedRows const input = exchange.buffer(0, plan.offsets[tuning::StackBuffers::Input], plan.shape.hidden);
    while (row_ < rows) {
      store_exchanged(input.at(row_, column_), words_);
      at_ += gridDim.x * kStartThreads;
      request();
    }
  }

 private:
  static constexpr unsigned kStartThreads = kWarpSize * tuning::Stack::start_warps;

  __device__ __forceinline__ void request() {
    constexpr unsigned pack = 8;
    auto const packs = static_cast<unsigned>(plan.shape.hidden) / pack;
    row_ = static_cast<int>(at_ / packs);
    column_ = static_cast<int>(at_ % packs * pack);
    if (row_ >= arguments.rows) return;
    words_ = *reinterpret_cast<uint4 const*>(arguments.x.row(listed_row(arguments.sources, row_)) + column_);
  }

  unsigned at_ = blockIdx.x * kStartThreads + threadIdx.x - kWarpSize * tuning::Stack::first_start_warp;
  int row_ = 0, column_ = 0;
  uint4 words_{};
};

/// How many rows there are, and the block's turn: the half that it takes, and how many rows the launch before left in the other
/// one. All blocks of all launches have the same turn; a launch of fewer blocks keeps those of the others.
class StackStart : StackPlaces {
  using Stack = tuning::Stack;

 public:
  /// By one warp of the block, for all: 130 blocks and more read the same words, and a line answers one after the other.
  static __device__ __forceinline__ void read(StackPlaces const& places) {
    auto const& arguments = places.arguments;
    wait_for_earlier_kernels<Sm90>();
    if (lane() > 1) return;
    Row const* const from = lane() == 0 ? arguments.count : arguments.turns + blockIdx.x;
    Row const word = from == nullptr ? arguments.rows : *from;
    places.start()[lane()] = lane() == 0 ? min(word, arguments.rows) : word;
  }
  /// By all warps but that of the weights. Waits for the one that reads, and for the kernels that make the rows.
  __device__ __forceinline__ explicit StackStart(StackPlaces const& places) : StackPlaces(places) {
    wait_for_earlier_kernels<Sm90>();
    __syncwarp();  // lanes come from branches of their own, and the barrier takes whole warps
    named_wait(kBeginBarrier, Stack::threads - kWarpSize);
    rows = start()[0];
    turn_ = start()[1];
  }

  int rows;

  [[nodiscard]] __device__ __forceinline__ int half() const { return turn_ & 1; }
  [[nodiscard]] __device__ __forceinline__ StackExchange own_half() const { return {plan, arguments.exchange, half()}; }

  /// By one thread.
  __device__ __forceinline__ void end_turn() const {
    for (unsigned block = blockIdx.x; block < static_cast<unsigned>(arguments.all_blocks); block += gridDim.x) {
      arguments.turns[block] = 2 * rows + 1 - half();
    }
  }
  /// By one warp of every block.
  __device__ __forceinline__ void clear_other_half() const {
    StackExchange(plan, arguments.exchange, 1 - half())
        .clear(turn_ / 2, blockIdx.x * kWarpSize + threadIdx.x % kWarpSize, gridDim.x * kWarpSize);
  }
  /// Has the keys that the block sees in the first layer brought to the second-level cache, by the warps that bring the input.
  template <int HeadDim>
  __device__ __forceinline__ void prefetch_first_keys() const {
    int const units = rows * plan.shape.kv_heads, first = (warp() - Stack::first_start_warp) * Stack::step_keys;
#pragma unroll 1
    for (int unit = first_unit(); unit < units; unit += plan.blocks) {
      int const row = static_cast<int>(arguments.by_kv_heads(static_cast<unsigned>(unit)));
      int const begin = arguments.read.begins[row], limit = arguments.read.limits[row], head = unit - row * plan.shape.kv_heads;
#pragma unroll 4
      for (int base = first; base < limit; base += Stack::start_warps * Stack::step_keys) {
        prefetch_keys<HeadDim>(arguments.vectors[0], head, base, limit, place_of(begin, base));
      }
    }
  }

 private:
  Row turn_;
};

}  // namespace mor::cuda
