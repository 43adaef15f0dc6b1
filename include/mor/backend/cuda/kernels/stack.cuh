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

namespace mor::cuda {

/// All layers, by the warps of a block that compute.
template <int HeadDim, int RowTiles>
__device__ __forceinline__ void run_layers(StackBlock& block) {
  using tuning::StackPlan;
#pragma unroll 1
  for (; block.layer < block.arguments.layers; block.next_layer()) {
    block.ask_for_fence();
    StackMultiplication<StackPlan::Project, RowTiles>(block).run();
    StackAttention<HeadDim>(block).run();
    StackMultiplication<StackPlan::Output, RowTiles>(block).run();
    StackMultiplication<StackPlan::GateUp, RowTiles>(block).run();
    StackMultiplication<StackPlan::Down, RowTiles>(block).run();
  }
}

/// At most 8 `RowTiles` rows; half as many have code of their own. The weights are under way before anything else; what a
/// block finds out by itself, it does before it waits for the other one of its pair to begin.
template <int HeadDim, int RowTiles>
__global__ void __launch_bounds__(tuning::Stack::threads, 1) stack_kernel(__grid_constant__ StackArguments const arguments) {
  extern __shared__ __align__(128) unsigned char stack_shared[];
  int const rows = arguments.count == nullptr ? arguments.rows : min(arguments.rows, *arguments.count);
  if (rows <= 0) return;
  auto const& plan = arguments.plan;
  if (static_cast<int>(threadIdx.x) >= StackBlock::kThreads) {
    give_registers<tuning::Stack::fetch_registers>();
    bool const fetches = StackBlock::warp() == tuning::Stack::warps;
    StackRing const ring = stack_ring(plan, stack_shared);
    if (fetches) {
      if (StackBlock::lane() == 0) {
        ring.make(tuning::Stack::warps);
        publish_barriers();
      }
      __syncwarp();
    }
    cluster_arrive();
    if (fetches) bring_stack_weights(arguments, ring, static_cast<int>(blockIdx.x));
    if (StackBlock::warp() == tuning::Stack::warps + 1) StackBlock::keep_fences(arguments.layers);
    cluster_wait();
  } else {
    take_registers<tuning::Stack::registers>();
    if (StackBlock::warp() == 0) {
      StackMail::make(plan, stack_shared);
      publish_barriers();
      __syncwarp();
    }
    cluster_arrive();
    Row& own_turn = arguments.turns[blockIdx.x];
    Row const turn = own_turn;
    int const half = turn & 1;
    StackBlock block(arguments, stack_shared, half, rows);
    block.bring_input();
    block.find_facts();
    if (threadIdx.x == 0) own_turn = 2 * rows + 1 - half;  // everybody in the block has read it
    StackAttention<HeadDim>(block).prefetch();
    StackExchange(plan, arguments.exchange, 1 - half)
        .clear(turn / 2, blockIdx.x * StackBlock::kThreads + threadIdx.x, gridDim.x * StackBlock::kThreads);
    cluster_wait();
    if (rows <= 4 * RowTiles) {
      run_layers<HeadDim, RowTiles / 2>(block);
    } else {
      run_layers<HeadDim, RowTiles>(block);
    }
  }
  cluster_barrier<true>();  // no letter is on its way to a block that has ended
}

}  // namespace mor::cuda
