// SPDX-License-Identifier: Apache-2.0
/// @file
/// Losses of a router, in two stages: every block sums a fixed span of rows in double precision, then one block adds
/// those sums in a fixed order.
#pragma once

#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"
#include "mor/math/activation.hpp"
#include "mor/math/cross_entropy.hpp"
#include "mor/math/softmax.hpp"

#include <limits>

namespace mor::cuda {

/// The sum of `count` numbers, by one block; in every thread.
template <int Threads>
__device__ __forceinline__ double partial_total(double const* partial, Index count, double* shared) {
  double sum = 0.0;
  for (Index i = static_cast<Index>(threadIdx.x); i < count; i += Threads) sum += partial[i];
  return block_sum<Threads>(sum, shared);
}

/// Block q: statistics[q] += the sum of partial[q * parts ...], divided by `divisor` where q is 0.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    add_statistics_kernel(double const* partial, Index parts, double divisor, float* statistics) {
  __shared__ double shared[Threads / kWarpSize];
  unsigned const quantity = blockIdx.x;
  double const total = partial_total<Threads>(partial + quantity * parts, parts, shared);
  if (threadIdx.x == 0) statistics[quantity] += static_cast<float>(quantity == 0 ? total / divisor : total);
}

/// The first place in an ascending list whose value is not below `wanted`. All lanes of a warp call together; each step
/// cuts the range by 32.
__device__ __forceinline__ Index warp_lower_bound(Row const* values, Index count, Index wanted) {
  Index const lane = static_cast<Index>(threadIdx.x) % kWarpSize;
  Index low = 0, high = count;  // the answer is in [low, high]
  while (low < high) {
    Index const step = (high - low + kWarpSize - 1) / kWarpSize;
    Index const probe = low + lane * step;
    bool const below = probe < high && values[probe] < wanted;
    Index const passed = __popc(__ballot_sync(kAllLanes, below));  // the probes below `wanted` are the first ones
    if (passed == 0) return low;
    Index const next = low + passed * step;
    low = next - step + 1;
    if (next < high) high = next;
  }
  return low;
}

/// Binary cross-entropy of `Threads * Items` candidates a block. partial[block] is its sum, partial[gridDim.x + block]
/// the number of candidates on the right side of zero. `slots` ascend, so a block's own are a piece of the list.
template <int Threads, int Items>
__global__ void __launch_bounds__(Threads)
    router_bce_kernel(float const* logits, Index count, Row const* slots, Index num_slots, float factor,
                      double* partial, float* d_logits) {
  constexpr int span = Threads * Items;
  __shared__ bool target[span];
  __shared__ double shared[Threads / kWarpSize];
  int const thread = static_cast<int>(threadIdx.x);
  Index const first = Index{blockIdx.x} * span;
  for (int i = thread; i < span; i += Threads) target[i] = false;
  Index const begin = warp_lower_bound(slots, num_slots, first);
  __syncthreads();
  for (Index i = begin + thread; i < num_slots; i += Threads) {
    Index const offset = slots[i] - first;
    if (offset >= span) break;
    target[offset] = true;
  }
  __syncthreads();
  double loss = 0.0, right = 0.0;
#pragma unroll
  for (int j = 0; j < Items; ++j) {
    int const offset = thread + j * Threads;
    Index const at = first + offset;
    if (at >= count) break;
    float const logit = logits[at];
    bool const chosen = target[offset];
    loss += static_cast<double>(math::bce_with_logits(logit, chosen ? 1.0F : 0.0F));
    right += (logit >= 0.0F) == chosen ? 1.0 : 0.0;
    // sigmoid(z) - 1 is written -sigmoid(-z), which keeps its digits where the loss is small.
    if (d_logits != nullptr) d_logits[at] += factor * (chosen ? -math::sigmoid(-logit) : math::sigmoid(logit));
  }
  loss = block_sum<Threads>(loss, shared);
  right = block_sum<Threads>(right, shared);
  if (thread == 0) {
    partial[blockIdx.x] = loss;
    partial[gridDim.x + blockIdx.x] = right;
  }
}

/// log sum exp of one row of logits; -infinity for a row of nothing else.
__device__ __forceinline__ float row_log_sum_exp(float const* row, int columns) {
  float largest = -std::numeric_limits<float>::infinity();
  for (int j = 0; j < columns; ++j) largest = largest < row[j] ? row[j] : largest;
  float sum = 0.0F;
  for (int j = 0; j < columns; ++j) sum += math::softmax_rescale(row[j], largest);
  return math::log_sum_exp(math::SoftmaxState<float>{largest, sum});
}

/// partial[block] = sum of logsumexp(row)^2 over one row a thread; d_logits += factor * logsumexp * softmax.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    z_loss_kernel(View<float const> logits, float factor, double* partial, View<float> d_logits) {
  __shared__ double shared[Threads / kWarpSize];
  Index const row = Index{blockIdx.x} * Threads + static_cast<Index>(threadIdx.x);
  int const columns = static_cast<int>(logits.cols);
  double square = 0.0;
  if (row < logits.rows) {
    float const lse = row_log_sum_exp(logits.row(row), columns);
    square = static_cast<double>(lse) * static_cast<double>(lse);
    if (d_logits.data != nullptr) {
      for (int j = 0; j < columns; ++j) d_logits(row, j) += factor * lse * expf(logits(row, j) - lse);
    }
  }
  square = block_sum<Threads>(square, shared);
  if (threadIdx.x == 0) partial[blockIdx.x] = square;
}

}  // namespace mor::cuda
