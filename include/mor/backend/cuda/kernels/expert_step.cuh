// SPDX-License-Identifier: Apache-2.0
/// @file
/// One step of expert choice on rows of mixed depth: the gated update of the residual stream, and the next recursion's
/// logit and gate by the router of the row's own depth. One block a row, so that all loads of a row are on their way together; a row
/// has the same bits in any batch.
#pragma once

#include "mor/backend/cuda/kernels/overlap.cuh"
#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"
#include "mor/math/activation.hpp"

namespace mor::cuda {

/// Vectors of the routers, of the next recursion of depth 0, 1, ...
template <class T>
struct RouterTable {
  static constexpr int kMost = 16;
  T const* routers[kMost];
  T const* deciders[kMost];  ///< null: the router decides
  T const* entry;            ///< of recursion 0; null: gates of all rows are there
  int count;
  float scale, alpha;
  RouterActivation activation;
  bool weighted;

  void note_to(auto& log) const { log.note(routers, deciders, entry, count, scale, alpha, activation, weighted); }
};

template <class Arch, class T, int Width, int Threads>
__global__ void __launch_bounds__(Threads)
    expert_step_kernel(RouterTable<T> const table, View<T const> const y, Row const* const cells, Row const* const depths,
                       View<T> const hidden, float* const gate, float* const scores) {
  let_next_kernel_start<Arch>();
  wait_for_earlier_kernels<Arch>();
  __shared__ float shared[Threads / kWarpSize];
  Index const i = blockIdx.x;
  Index const cell = cells[i];
  int const depth = depths[i], which = min(depth, table.count - 1);
  float factor = 1.0F;
  if (table.weighted && table.entry != nullptr && depth == 0) {
    float entry = 0.0F;
    for (Index col = Index{threadIdx.x} * Width; col < y.cols; col += Index{Threads} * Width) {
      auto const x = load_lanes<Width>(hidden.row(cell) + col), weights = load_lanes<Width>(table.entry + col);
#pragma unroll
      for (int e = 0; e < Width; ++e) entry = fmaf(x.value[e], weights.value[e], entry);
    }
    factor = math::router_gate(table.activation, table.alpha, table.scale * block_sum<Threads>(entry, shared));
  } else if (table.weighted) {
    factor = gate[cell];
  }
  T const* const router = table.count > 0 ? table.routers[which] : nullptr;
  T const* const decider = table.count > 0 ? table.deciders[which] : nullptr;
  float sum = 0.0F, decision = 0.0F;
  for (Index col = Index{threadIdx.x} * Width; col < y.cols; col += Index{Threads} * Width) {
    auto x = load_lanes<Width>(y.row(i) + col);
    auto const before = load_lanes<Width>(hidden.row(cell) + col);
#pragma unroll
    for (int e = 0; e < Width; ++e) {  // rounded before the router reads it, as the stream is
      x.value[e] = static_cast<float>(narrow<T>(fmaf(factor, x.value[e], before.value[e])));
    }
    store_lanes(hidden.row(cell) + col, x.value);
    if (router == nullptr) continue;
    auto const weights = load_lanes<Width>(router + col);
#pragma unroll
    for (int e = 0; e < Width; ++e) sum = fmaf(x.value[e], weights.value[e], sum);
    if (decider == nullptr) continue;
    auto const others = load_lanes<Width>(decider + col);
#pragma unroll
    for (int e = 0; e < Width; ++e) decision = fmaf(x.value[e], others.value[e], decision);
  }
  float const logit = table.scale * block_sum<Threads>(sum, shared);
  float const decided = decider != nullptr ? table.scale * block_sum<Threads>(decision, shared) : logit;
  if (threadIdx.x != 0) return;
  if (table.weighted && router != nullptr) gate[cell] = math::router_gate(table.activation, table.alpha, logit);
  scores[i] = decided;
}

}  // namespace mor::cuda
