// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a warp of a stack's block knows all along: where it is, the block's shared memory, and the facts of the rows.
#pragma once

#include "mor/backend/cuda/kernels/key_place.cuh"
#include "mor/backend/cuda/kernels/listed_row.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/kernels/rope.cuh"
#include "mor/backend/cuda/kernels/stack_arguments.cuh"
#include "mor/backend/cuda/kernels/stack_exchange.cuh"
#include "mor/backend/cuda/kernels/stack_mail.cuh"
#include "mor/backend/cuda/kernels/stack_weights.cuh"
#include "mor/backend/cuda/kernels/tma.cuh"
#include "mor/backend/cuda/tuning/stack.hpp"
#include "mor/core/types.hpp"

#include <cstdint>

namespace mor::cuda {

class StackBlock {
 public:
  static constexpr int kThreads = kWarpSize * tuning::Stack::warps;  ///< that compute

  __device__ __forceinline__ StackBlock(StackArguments const& args, unsigned char* shared_memory, int half, int all_rows)
      : rows(all_rows), arguments(args), plan(args.plan), exchange(args.plan, args.exchange, half), ring(stack_ring(args.plan, shared_memory)),
        mail(args.plan, shared_memory, side()), shared(shared_memory), next_slot(args.plan.slot_elements),
        last_slot(2 * args.plan.slot_elements) {}

  int const rows;
  StackArguments const& arguments;
  tuning::StackPlan const& plan;
  StackExchange const exchange;
  StackRing ring;
  StackMail mail;
  unsigned char* const shared;
  int layer = 0;
  int slot = 0, next_slot, last_slot;  ///< where those of this layer, the next one, and the one before begin

  __device__ __forceinline__ void next_layer() {
    ++layer;
    int const freed = last_slot;
    last_slot = slot;
    slot = next_slot;
    next_slot = freed;
  }

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

  /// Where warps leave what is to be added up: one of two rooms. Who has left something in one, met the others and met them
  /// again after the next one knows that everybody has read it.
  [[nodiscard]] __device__ __forceinline__ unsigned char* sums_room() const {
    return shared + plan.sums_at + (turn_ ? plan.sums_bytes : 0);
  }
  __device__ __forceinline__ void next_room() { turn_ = !turn_; }

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

  /// The storage row of a key of a row's list.
  [[nodiscard]] __device__ __forceinline__ int place_of(int begin, int key) const {
    int const page = static_cast<int>(arguments.by_page(static_cast<unsigned>(key)));
    return (arguments.table.pages[begin + page] - page) * arguments.table.page_size + key;
  }

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

  /// The first layer's input, as if a layer before it had made it. By all threads that compute, of all blocks.
  __device__ __forceinline__ void bring_input() const {
    constexpr unsigned pack = 8, threads = kThreads;
    auto const packs = static_cast<unsigned>(plan.shape.hidden) / pack, all = static_cast<unsigned>(rows) * packs;
    ExchangedRows const input = exchange.buffer(0, plan.offsets[tuning::StackBuffers::Input], plan.shape.hidden);
#pragma unroll 1
    for (unsigned i = blockIdx.x * threads + threadIdx.x; i < all; i += gridDim.x * threads) {
      auto const row = static_cast<int>(i / packs), column = static_cast<int>(i % packs * pack);
      bfloat16 const* const from = arguments.x.row(listed_row(arguments.sources, row)) + column;
      store_exchanged(input.at(row, column), *reinterpret_cast<uint4 const*>(from));
    }
  }

  /// Facts that are the same in every layer, and those of the layers that are needed again and again: the cache for constants
  /// holds less than the arguments. Warps do different parts, which take long one after the other.
  __device__ __forceinline__ void find_facts() const {
    using tuning::Stack;
    auto const thread = static_cast<int>(threadIdx.x);
    constexpr int row_warps = Stack::most_rows / kWarpSize, first_row_warp = 2, first_turn_warp = first_row_warp + row_warps;
    static_assert(first_turn_warp < Stack::warps && Stack::kept_units * Stack::warps <= kWarpSize);
    if (warp() == 0) {
      find_layers(thread);
    } else if (warp() == 1) {
      find_first_keys(lane());
    } else if (warp() < first_turn_warp) {
      find_row(thread - first_row_warp * kWarpSize);
    } else {
      find_turns(thread - first_turn_warp * kWarpSize, kThreads - first_turn_warp * kWarpSize);
    }
    meet();
  }

 private:
  static constexpr int kMeetBarrier = 1, kAskedBarrier = 2, kFencedBarrier = 3;

  __device__ __forceinline__ void find_layers(int thread) const {
    using Buffers = tuning::StackBuffers;
    for (int layer_at = thread; layer_at < arguments.layers; layer_at += kWarpSize) vectors()[layer_at] = arguments.vectors[layer_at];
    if (thread >= tuning::StackPlan::Products) return;
    auto const& of = plan.products[static_cast<std::size_t>(thread)];
    auto const nibble = [&](unsigned buffers) { return static_cast<std::size_t>(buffers >> (4 * thread) & 15U); };
    // In the order of the products.
    auto const source = nibble(Buffers::Input | Buffers::Attended << 4 | Buffers::Middle << 8 | Buffers::Activated << 12);
    auto const result = nibble(Buffers::Projected | Buffers::Middle << 4 | Buffers::Activated << 8 | Buffers::Input << 12);
    tuning::StackSlab const half = of.half(side());
    recipes()[thread] = {of.first_tile(pair(), plan.pairs), of.tiles, half.begin, half.count,
                         plan.offsets[source], plan.widths[source], plan.offsets[result], plan.widths[result]};
  }
  __device__ __forceinline__ void find_row(int row) const {
    if (row >= rows) return;
    int const limit = arguments.write.limits[row];
    limits()[row] = arguments.read.limits[row];
    begins()[row] = arguments.read.begins[row];
    targets()[row] = static_cast<int>(listed_row(arguments.targets, row));
    places()[row] = limit > 0 ? place_of(arguments.write.begins[row], limit - 1) : -1;
  }
  __device__ __forceinline__ void find_turns(int thread, int threads) const {
    using tuning::Stack;
    auto const& product = plan.products[tuning::StackPlan::Project];
    for (int tile = product.first_tile(pair(), plan.pairs), i = 0; tile < product.tiles; tile += plan.pairs, ++i) {
      StackTile const at(arguments, tuning::StackPlan::Project, tile);
      if (at.low >= plan.shape.queries + plan.shape.keys) continue;
      int const angle_pair = at.low % plan.shape.head_dim;
      for (int item = thread; item < Stack::finished_rows * 8; item += threads) {
        int const row = item / 8 * Stack::pair + side();
        if (row >= rows) break;
        double const angle = arguments.positions[row] * arguments.angles.of_pair(angle_pair + item % 8);
        TurnedUnit const unit = turn_unit(angle);
        turns()[i * Stack::finished_rows * 8 + item] = make_float2(unit.cosine, unit.sine);
      }
    }
  }
  __device__ __forceinline__ void find_first_keys(int thread) const {
    using tuning::Stack;
    int const unit = first_unit() + thread / Stack::warps * plan.blocks;
    if (thread >= Stack::kept_units * Stack::warps || unit >= rows * plan.shape.kv_heads) return;
    int const row = unit / plan.shape.kv_heads, key = thread % Stack::warps * Stack::step_keys;
    firsts()[thread] = key < arguments.read.limits[row] ? place_of(arguments.read.begins[row], key) : 0;
  }

  bool turn_ = false;
};

}  // namespace mor::cuda
