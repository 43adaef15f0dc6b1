// SPDX-License-Identifier: Apache-2.0
/// @file
/// The weights of a block's half tiles on their way through a ring of shared memory: one warp asks the copy engine for them,
/// in the order in which they will be multiplied, as far ahead as there is room, whatever the other blocks do.
#pragma once

#include "mor/backend/cuda/kernels/copy_ring.cuh"
#include "mor/backend/cuda/kernels/few_rows_weights.cuh"
#include "mor/backend/cuda/kernels/overlap.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/kernels/stack_arguments.cuh"
#include "mor/backend/cuda/kernels/tma.cuh"
#include "mor/backend/cuda/tuning/architecture.hpp"
#include "mor/backend/cuda/tuning/stack.hpp"
#include "mor/core/types.hpp"

#include <cstdint>

namespace mor::cuda {

/// The two runs of 8 rows of the weights that make a tile: pairs that belong together lie in the same places of both.
struct StackTile {
  int low, high;

  __device__ __forceinline__ StackTile(StackArguments const& arguments, int product, int tile) {
    using tuning::StackPlan;
    auto const& shape = arguments.plan.shape;
    if (product == StackPlan::Project) {
      int const head = static_cast<int>(arguments.by_head_tiles(static_cast<unsigned>(tile))), half = shape.head_dim / 2;
      low = head * half + tile * 8;  // head * head_dim + (tile - head * tiles of a head) * 8
      high = low + half;
    } else if (product == StackPlan::GateUp) {
      low = tile * 8;
      high = low + shape.inner;
    } else {
      low = tile * tuning::Stack::tile;
      high = low + 8;
    }
  }
};

using StackRing = CopyRing<tuning::Stack::most_stages, tuning::Stack::stage_bytes>;
[[nodiscard]] __device__ __forceinline__ StackRing stack_ring(tuning::StackPlan const& plan, unsigned char* shared) {
  return {plan.stages, shared + plan.barriers_at, shared + plan.ring_at};
}

/// Copies `bytes` neighbouring bytes (a multiple of 16, as are the addresses) to shared memory.
__device__ __forceinline__ void copy_run(std::uint32_t to, void const* from, int bytes, Barrier& barrier, std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(&barrier)), "l"(policy)
      : "memory");
}

/// By the whole of one warp: brings all weights of block `block`. Only when the ring is full for the first time does it wait for
/// the kernels that make the rows, and look whether there are any.
/// @return whether there are; else what had been asked for has come, and no more
__device__ __forceinline__ bool bring_stack_weights(StackArguments const& arguments, StackRing ring, int block) {
  using tuning::Stack;
  auto const& plan = arguments.plan;
  int const lane = static_cast<int>(threadIdx.x) % kWarpSize;
  std::uint64_t const policy = cache_policy(true);
  StackRing const start = ring;
  int asked = 0;
  auto const rows_wait = [&] {
    wait_for_earlier_kernels<Sm90>();
    if (min(arguments.rows, arguments.count == nullptr ? arguments.rows : *arguments.count) > 0) return true;
    for (StackRing first = start; asked > 0; --asked, first.advance()) first.wait_until_full();
    return false;
  };
#pragma unroll 1
  for (int layer = 0; layer < arguments.layers; ++layer) {
#pragma unroll 1
    for (int which = 0; which < tuning::StackPlan::Products; ++which) {
      tuning::StackProduct const& product = plan.products[static_cast<std::size_t>(which)];
      tuning::StackSlab const half = product.half(block % Stack::pair);
      bfloat16 const* const weights = arguments.layer[layer].weights[which] + half.begin * Stack::chunk;
      Index const stride = arguments.weights_stride[which];
#pragma unroll 1
      for (int tile = product.first_tile(block / Stack::pair, plan.pairs); tile < product.tiles; tile += plan.pairs) {
        StackTile const rows(arguments, which, tile);
        int const row = lane < 8 ? rows.low + lane : rows.high + lane - 8;
#pragma unroll 1
        for (int i = 0; i * Stack::slab_chunks < half.count; ++i) {
          tuning::StackSlab const slab = tuning::stack_slab(half.count, i);
          int const bytes = slab.count * 2 * Stack::chunk;
          if (asked == plan.stages && !rows_wait()) return false;
          ++asked;
          ring.wait_until_empty();
          if (lane == 0) ring.expect(Stack::tile * bytes);
          __syncwarp();
          if (lane < Stack::tile) {
            copy_run(ring.room() + static_cast<std::uint32_t>(lane * Stack::pitch),
                     weights + row * stride + slab.begin * Stack::chunk, bytes, ring.full(), policy);
          }
          ring.advance();
        }
      }
    }
  }
  return asked > plan.stages || rows_wait();
}

}  // namespace mor::cuda
