// SPDX-License-Identifier: Apache-2.0
/// @file
/// Scalar verbs for rows of mixed depth. One row a thread.
#pragma once

#include "mor/backend/cuda/kernels/routing.cuh"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <limits>

namespace mor::cuda {

/// out[i] = x[i, min(columns[i] + shift, cols - 1)].
template <int Threads>
__global__ void __launch_bounds__(Threads)
    pick_columns_kernel(View<float const> x, Row const* columns, Index shift, Index count, float* out) {
  Index const row = thread_number<Threads>();
  if (row >= count) return;
  Index const wanted = columns[row] + shift;
  out[row] = x(row, wanted < x.cols ? wanted : x.cols - 1);
}

/// The chosen depth, brought between the fewest and the most recursions of the row, and its probability.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    limit_choice_kernel(View<float const> probabilities, Row const* least, Row const* most, Index count, float* choice,
                        float* gate) {
  Index const row = thread_number<Threads>();
  if (row >= count) return;
  int const highest = min(most[row], static_cast<int>(probabilities.cols)) - 1;
  int const lowest = min(least[row] - 1, highest);
  int const chosen = min(max(static_cast<int>(choice[row]), lowest), highest);
  choice[row] = static_cast<float>(chosen);
  gate[row] = probabilities(row, chosen);
}

/// `token_choice_weights` of rows that are each at a step of their own, and who goes on.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    choice_weights_kernel(float const* choice, float const* gate, Row const* depths, Index count,
                          bool gate_intermediate, bool additive, float* scale, float* keep, float* scores) {
  Index const row = thread_number<Threads>();
  if (row >= count) return;
  bool const last = static_cast<Row>(choice[row]) <= depths[row];
  scale[row] = !additive && (last || gate_intermediate) ? gate[row] : 1.0F;
  keep[row] = last ? 1.0F : 0.0F;
  scores[row] = last ? -std::numeric_limits<float>::infinity() : std::numeric_limits<float>::infinity();
}

}  // namespace mor::cuda
