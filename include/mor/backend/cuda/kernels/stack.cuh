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
#include "mor/backend/cuda/kernels/stack_facts.cuh"
#include "mor/backend/cuda/kernels/stack_mail.cuh"
#include "mor/backend/cuda/kernels/stack_places.cuh"
#include "mor/backend/cuda/kernels/stack_product.cuh"
#include "mor/backend/cuda/kernels/stack_start.cuh"
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

/// At most 8 `RowTiles` rows; half as many have code of their own. The weights are under way before anything else, also before
/// the kernels have ended that make the rows. Then two warps bring the input, while those that compute find out what a block can
/// by itself.
template <int HeadDim, int RowTiles>
__global__ void __launch_bounds__(tuning::Stack::threads, 1) stack_kernel(__grid_constant__ StackArguments const arguments) {
  using tuning::Stack;
  extern __shared__ __align__(128) unsigned char stack_shared[];
  StackPlaces const places(arguments, stack_shared);
  if (StackPlaces::warp() >= Stack::warps) {
    give_registers<Stack::fetch_registers>();
    if (StackPlaces::warp() == Stack::fetch_warp) {
      StackRing const ring = stack_ring(arguments.plan, stack_shared);
      if (StackPlaces::lane() == 0) {
        ring.make(Stack::warps);
        publish_barriers();
      }
      __syncwarp();
      cluster_arrive();
      if (!bring_stack_weights(arguments, ring, static_cast<int>(blockIdx.x))) return;
    } else if (StackPlaces::warp() == Stack::fence_warp) {
      cluster_arrive();
      StackStart::read(places);
      StackStart const start(places);
      if (start.rows <= 0) return;
      StackBlock::keep_fences(arguments.layers);
      start.clear_other_half();  // in the last layer, so that the next launch still finds it in the cache
    } else {
      cluster_arrive();
      StackInput input(places);
      StackStart const start(places);
      if (start.rows <= 0) return;
      input.publish(start.rows, start.own_half());
      start.prefetch_first_keys<HeadDim>();
    }
    cluster_wait();
  } else {
    take_registers<Stack::registers>();
    StackFacts const facts(places);
    if (StackPlaces::warp() == 0) {
      StackMail::make(arguments.plan, stack_shared);
      publish_barriers();
      __syncwarp();
    }
    cluster_arrive();
    facts.find_layers();
    StackStart const start(places);
    if (start.rows <= 0) return;
    if (threadIdx.x == 0) start.end_turn();
    StackBlock block(places, start.half(), start.rows);
    facts.find_rows(start.rows);
    cluster_wait();
    if (start.rows <= 4 * RowTiles) {
      run_layers<HeadDim, RowTiles / 2>(block);
    } else {
      run_layers<HeadDim, RowTiles>(block);
    }
  }
  cluster_barrier<true>();  // no letter is on its way to a block that has ended
}

}  // namespace mor::cuda
