// SPDX-License-Identifier: Apache-2.0
/// @file
/// All layers of a stack for few rows in one launch: decoding. Weights are read once, in one stream that never stops
/// (stack_weights.cuh); results go from block to block without barriers (stack_exchange.cuh). A block takes part in each of
/// a layer's five steps with the tiles (stack_product.cuh) and units (stack_attention.cuh) that it has there, if any.
///
/// All blocks must run at the same time, one on every multiprocessor: a cooperative launch.
#pragma once

#include "mor/backend/cuda/kernels/overlap.cuh"
#include "mor/backend/cuda/kernels/stack_attention.cuh"
#include "mor/backend/cuda/kernels/stack_block.cuh"
#include "mor/backend/cuda/kernels/stack_product.cuh"
#include "mor/backend/cuda/tuning/architecture.hpp"

namespace mor::cuda {

template <int HeadDim, int RowTiles>
__global__ void __launch_bounds__(tuning::Stack::threads, 1) stack_kernel(__grid_constant__ StackArguments const arguments) {
  using tuning::StackPlan;
  extern __shared__ __align__(128) unsigned char stack_shared[];
  auto const& plan = arguments.plan;
  StackRing const ring(plan, stack_shared);
  if (threadIdx.x == 0) {
    ring.make();
    publish_barriers();
  }
  // What no copy has brought yet is multiplied with zeros.
  auto* const ring_words = reinterpret_cast<uint4*>(stack_shared + plan.sums_at + 2 * plan.sums_bytes);
  for (int i = static_cast<int>(threadIdx.x); i < plan.stages * tuning::Stack::stage_bytes / 16; i += tuning::Stack::threads) {
    ring_words[i] = make_uint4(0U, 0U, 0U, 0U);
  }
  fence_async();
  __syncthreads();
  int const self = static_cast<int>(blockIdx.x);
  if (static_cast<int>(threadIdx.x) >= StackBlock::kThreads) {
    bring_stack_weights(arguments, ring, self);
    return;
  }
  wait_for_earlier_kernels<Sm90>();
  Row const turn = arguments.turns[self];
  int const half = turn & 1;
  StackExchange(plan, arguments.exchange, 1 - half)
      .clear(turn / 2, blockIdx.x * StackBlock::kThreads + threadIdx.x, gridDim.x * StackBlock::kThreads);
  StackBlock block(arguments, stack_shared, half);
  block.find_facts();
  if (threadIdx.x == 0) arguments.turns[self] = 2 * arguments.rows + 1 - half;  // everybody in the block has read it
  int const idle = block.idle_product();
#pragma unroll 1
  for (; block.layer < arguments.layers; block.next_layer()) {
    // A fence of every thread in every layer (see stack_exchange.cuh), where the block would only wait.
    if (idle < 0) fence_device();
    auto const run = [&](auto multiplication, int which) {
      if (which == idle) {
        fence_device();
      } else {
        multiplication.run();
      }
    };
    run(StackMultiplication<StackPlan::Project, RowTiles>(block), StackPlan::Project);
    StackAttention<HeadDim>(block).run();
    run(StackMultiplication<StackPlan::Output, RowTiles>(block), StackPlan::Output);
    run(StackMultiplication<StackPlan::GateUp, RowTiles>(block), StackPlan::GateUp);
    run(StackMultiplication<StackPlan::Down, RowTiles>(block), StackPlan::Down);
  }
}

}  // namespace mor::cuda
