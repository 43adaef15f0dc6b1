// SPDX-License-Identifier: Apache-2.0
/// @file
/// All layers of a stack for few rows in one launch: decoding. Weights are read once, in one stream that never stops
/// (stack_weights.cuh); results go from block to block without barriers (stack_exchange.cuh). A block takes part in each of
/// a layer's five steps with the tiles (stack_product.cuh) and units (stack_attention.cuh) that it has there, if any.
///
/// All blocks must run at the same time, one on every multiprocessor, in clusters of two: a cooperative launch.
#pragma once

#include "mor/backend/cuda/kernels/cluster.cuh"
#include "mor/backend/cuda/kernels/stack_attention.cuh"
#include "mor/backend/cuda/kernels/stack_block.cuh"
#include "mor/backend/cuda/kernels/stack_mail.cuh"
#include "mor/backend/cuda/kernels/stack_product.cuh"
#include "mor/backend/cuda/kernels/wgmma.cuh"

#include <type_traits>

namespace mor::cuda {

/// Of at most 8 `RowTiles` rows.
template <int HeadDim, int RowTiles>
__device__ __forceinline__ void run_stack(StackBlock& block) {
  using tuning::StackPlan;
  block.find_facts();
  int const idle = block.idle_product();
#pragma unroll 1
  for (; block.layer < block.arguments.layers; block.next_layer()) {
    // A fence of every thread in every layer (see stack_exchange.cuh), where the block would only wait.
    if (idle < 0) fence_device();
    auto const run = [&](auto which) {
      if (which == idle) {
        fence_device();
      } else {
        StackMultiplication<decltype(which)::value, RowTiles>(block).run();
      }
    };
    run(std::integral_constant<int, StackPlan::Project>{});
    StackAttention<HeadDim>(block).run();
    run(std::integral_constant<int, StackPlan::Output>{});
    run(std::integral_constant<int, StackPlan::GateUp>{});
    run(std::integral_constant<int, StackPlan::Down>{});
  }
}

template <int HeadDim>
__global__ void __launch_bounds__(tuning::Stack::threads, 1) stack_kernel(__grid_constant__ StackArguments const arguments) {
  extern __shared__ __align__(128) unsigned char stack_shared[];
  int const rows = arguments.count == nullptr ? arguments.rows : min(arguments.rows, *arguments.count);
  if (rows <= 0) return;
  auto const& plan = arguments.plan;
  StackRing const ring(plan, stack_shared);
  if (threadIdx.x == 0) {
    ring.make();
    StackMail::make(plan, stack_shared);
    publish_barriers();
  }
  cluster_barrier<true>();
  int const self = static_cast<int>(blockIdx.x);
  if (static_cast<int>(threadIdx.x) >= StackBlock::kThreads) {
    give_registers<tuning::Stack::fetch_registers>();
    if (StackBlock::warp() == tuning::Stack::warps) bring_stack_weights(arguments, ring, self);
  } else {
    take_registers<tuning::Stack::registers>();
    Row const turn = arguments.turns[self];
    int const half = turn & 1;
    StackExchange(plan, arguments.exchange, 1 - half)
        .clear(turn / 2, blockIdx.x * StackBlock::kThreads + threadIdx.x, gridDim.x * StackBlock::kThreads);
    StackBlock::meet();
    if (threadIdx.x == 0) arguments.turns[self] = 2 * rows + 1 - half;
    StackBlock block(arguments, stack_shared, half, rows);
    if (rows <= 8) {
      run_stack<HeadDim, 1>(block);
    } else if (rows <= 16) {
      run_stack<HeadDim, 2>(block);
    } else if (rows <= 32) {
      run_stack<HeadDim, 4>(block);
    } else {
      run_stack<HeadDim, tuning::Stack::row_tiles>(block);
    }
  }
  cluster_barrier<true>();  // no letter is on its way to a block that has ended
}

}  // namespace mor::cuda
