// SPDX-License-Identifier: Apache-2.0
/// @file
/// Random scores and the gates of a router with one logit a candidate. One thread an element.
#pragma once

#include "mor/core/config.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"
#include "mor/math/activation.hpp"
#include "mor/math/random.hpp"

#include <cstdint>

namespace mor::cuda {

/// The number of this thread in a grid of one dimension.
template <int Threads>
__device__ __forceinline__ Index thread_number() {
  return Index{blockIdx.x} * Threads + static_cast<Index>(threadIdx.x);
}

template <int Threads>
__global__ void __launch_bounds__(Threads)
    random_scores_kernel(std::uint64_t key, std::uint64_t counter, Row const* positions, View<float> out) {
  Index const at = thread_number<Threads>();
  if (at >= out.size()) return;
  Index const row = at / out.cols, column = at - row * out.cols;
  out(row, column) = math::random_score<float>(key, counter, positions[row], column);
}

template <int Threads>
__global__ void __launch_bounds__(Threads) router_gate_kernel(float const* logits, Row const* slots, Index count,
                                                              RouterActivation activation, float alpha, float* gate) {
  Index const at = thread_number<Threads>();
  if (at < count) gate[at] = math::router_gate(activation, alpha, logits[slots[at]]);
}

template <int Threads>
__global__ void __launch_bounds__(Threads)
    router_gate_backward_kernel(float const* logits, Row const* slots, Index count, RouterActivation activation,
                                float alpha, float const* d_gate, float* d_logits) {
  Index const at = thread_number<Threads>();
  if (at >= count) return;
  Row const slot = slots[at];  // slots are distinct: no other thread adds to this logit
  d_logits[slot] += d_gate[at] * math::router_gate_derivative(activation, alpha, logits[slot]);
}

}  // namespace mor::cuda
