// SPDX-License-Identifier: Apache-2.0
/// @file
/// Token-choice routing: one thread a row of a few logits.
#pragma once

#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/kernels/router_loss.cuh"
#include "mor/backend/cuda/kernels/routing.cuh"
#include "mor/core/config.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"
#include "mor/math/activation.hpp"

namespace mor::cuda {

/// How logits become probabilities and a choice. `bias` may be null.
struct ChoiceRule {
  float const* bias;
  RouterActivation activation;
  float alpha;
  bool full_depth;

  void note_to(auto& log) const { log.note(bias, activation, alpha, full_depth); }
};

template <int Threads>
__global__ void __launch_bounds__(Threads) token_choice_kernel(View<float const> logits, ChoiceRule rule,
                                                               View<float> probabilities, float* choice, float* gate) {
  Index const row = thread_number<Threads>();
  if (row >= logits.rows) return;
  int const columns = static_cast<int>(logits.cols);
  bool const softmax = rule.activation == RouterActivation::Softmax;
  float const lse = softmax ? row_log_sum_exp(logits.row(row), columns) : 0.0F;
  int best = 0;
  float best_p = 0.0F, best_biased = 0.0F;
  for (int j = 0; j < columns; ++j) {
    float const logit = logits(row, j);
    float const p = softmax ? rule.alpha * expf(logit - lse) : math::router_gate(rule.activation, rule.alpha, logit);
    probabilities(row, j) = p;
    float const biased = rule.bias == nullptr ? p : p + rule.bias[j];
    if (j == 0 || rule.full_depth || biased > best_biased) {
      best = j;
      best_p = p;
      best_biased = biased;
    }
  }
  choice[row] = static_cast<float>(best);
  gate[row] = best_p;
}

/// The derivative of alpha * act by its logit, from the value p. Where alpha is 0, so is the derivative.
__device__ __forceinline__ float gate_derivative_of_value(RouterActivation activation, float alpha, float p) {
  if (activation == RouterActivation::None) return 1.0F;
  if (alpha == 0.0F) return 0.0F;
  return activation == RouterActivation::Tanh ? alpha - p * p / alpha : p * (1.0F - p / alpha);
}

/// Gradients that reach the probabilities; either may be missing (null).
struct ChoiceGradients {
  float const* choice;
  float const* gate;
  View<float const> probabilities;

  void note_to(auto& log) const { log.note(choice, gate, probabilities); }

  [[nodiscard]] __device__ __forceinline__ float at(Index row, int column) const {
    float const outer = probabilities.data == nullptr ? 0.0F : probabilities(row, column);
    return gate != nullptr && static_cast<int>(choice[row]) == column ? outer + gate[row] : outer;
  }
};

template <int Threads>
__global__ void __launch_bounds__(Threads)
    token_choice_backward_kernel(View<float const> probabilities, RouterActivation activation, float alpha,
                                 ChoiceGradients gradients, View<float> d_logits) {
  Index const row = thread_number<Threads>();
  if (row >= probabilities.rows) return;
  int const columns = static_cast<int>(probabilities.cols);
  bool const softmax = activation == RouterActivation::Softmax;
  float mean = 0.0F;
  if (softmax && alpha != 0.0F) {
    for (int j = 0; j < columns; ++j) mean += gradients.at(row, j) * probabilities(row, j);
    mean /= alpha;
  }
  for (int j = 0; j < columns; ++j) {
    float const p = probabilities(row, j), gradient = gradients.at(row, j);
    d_logits(row, j) += softmax ? p * (gradient - mean) : gradient * gate_derivative_of_value(activation, alpha, p);
  }
}

/// One active row a thread.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    token_choice_weights_kernel(float const* choice, float const* gate, Row const* rows, Index count, int step,
                                bool gate_intermediate, bool additive, float* scale, float* keep) {
  Index const at = thread_number<Threads>();
  if (at >= count) return;
  Row const row = rows[at];
  bool const finishes = static_cast<int>(choice[row]) == step;
  keep[at] = finishes ? 1.0F : 0.0F;
  scale[at] = !additive && (finishes || gate_intermediate) ? gate[row] : 1.0F;
}

template <int Threads>
__global__ void __launch_bounds__(Threads)
    token_choice_weights_backward_kernel(float const* choice, Row const* rows, Index count, int step,
                                         bool gate_intermediate, float const* d_scale, float* d_gate) {
  Index const at = thread_number<Threads>();
  if (at >= count) return;
  Row const row = rows[at];  // rows are distinct
  if (gate_intermediate || static_cast<int>(choice[row]) == step) d_gate[row] += d_scale[at];
}

/// Sums over `Threads * Items` rows a block: partial[j * gridDim.x + block] of the probabilities of column j, and
/// partial[(cols + j) * gridDim.x + block] the number of rows that chose it.
template <int Threads, int Items>
__global__ void __launch_bounds__(Threads)
    balance_sums_kernel(View<float const> probabilities, float const* choice, double* partial) {
  __shared__ double shared[Threads / kWarpSize];
  Index const first = Index{blockIdx.x} * (Threads * Items) + static_cast<Index>(threadIdx.x);
  int const columns = static_cast<int>(probabilities.cols);
  int chosen[Items];
#pragma unroll
  for (int k = 0; k < Items; ++k) {
    Index const row = first + k * Threads;
    chosen[k] = row < probabilities.rows ? static_cast<int>(choice[row]) : -1;
  }
  for (int j = 0; j < columns; ++j) {
    double sum = 0.0, count = 0.0;
#pragma unroll
    for (int k = 0; k < Items; ++k) {
      Index const row = first + k * Threads;
      if (row < probabilities.rows) sum += static_cast<double>(probabilities(row, j));
      count += chosen[k] == j ? 1.0 : 0.0;
    }
    sum = block_sum<Threads>(sum, shared);
    count = block_sum<Threads>(count, shared);
    if (threadIdx.x == 0) {
      partial[Index{j} * gridDim.x + blockIdx.x] = sum;
      partial[Index{columns + j} * gridDim.x + blockIdx.x] = count;
    }
  }
}

/// One block: the statistics, and gradient[j] = weight * Nr * load_j / rows, the same for every row.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    balance_statistics_kernel(double const* partial, Index parts, Index rows, int columns, double weight,
                              float* statistics, float* gradient) {
  __shared__ double shared[Threads / kWarpSize];
  double const choices = columns, all = static_cast<double>(rows);
  for (int j = 0; j < columns; ++j) {
    double const total = partial_total<Threads>(partial + j * parts, parts, shared);
    double const chosen = partial_total<Threads>(partial + (columns + j) * parts, parts, shared);
    if (threadIdx.x != 0) continue;
    double const load = chosen / all;
    statistics[0] += static_cast<float>(choices * load * total / all);
    statistics[1 + j] += static_cast<float>(load);
    gradient[j] = static_cast<float>(weight * choices * load / all);
  }
}

template <int Threads>
__global__ void __launch_bounds__(Threads) spread_gradient_kernel(float const* gradient, View<float> d_probabilities) {
  Index const at = thread_number<Threads>();
  if (at >= d_probabilities.size()) return;
  Index const row = at / d_probabilities.cols, column = at - row * d_probabilities.cols;
  d_probabilities(row, column) = gradient[column];
}

}  // namespace mor::cuda
