// SPDX-License-Identifier: Apache-2.0
/// @file
/// AdamW over flat buffers, long sums in double, and decisions on updates that never leave the device.
#pragma once

#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/tuning/pointwise.hpp"
#include "mor/core/dtype.hpp"
#include "mor/core/types.hpp"
#include "mor/core/update.hpp"
#include "mor/math/update.hpp"

#include <cstdint>

namespace mor::cuda {

/// Flat buffers of `count` floats: `head` elements before the first 16-byte boundary, then packs of 16 bytes, then
/// fewer than four elements.
struct FlatPacks {
  Index head, packs, count;

  void note_to(auto& log) const { log.note(head, packs, count); }
};

/// The buffers of one update; the last may be null.
struct AdamwBuffers {
  float const* gradients;
  float* weights;
  float* first;
  float* second;
  bfloat16* narrow_weights;  ///< a copy of the new weights

  void note_to(auto& log) const { log.note(gradients, weights, first, second, narrow_weights); }
};

/// What stays the same from update to update, rounded on the host from double.
struct AdamwConstants {
  float keep_first, add_first, keep_second, add_second, epsilon, decay;

  void note_to(auto& log) const { log.note(keep_first, add_first, keep_second, add_second, epsilon, decay); }
};

/// One update of a group: its constants, and the numbers of this step from the record.
struct AdamwUpdate {
  AdamwConstants constant;
  float scale, rate, correct_first, correct_second;
  bool applied;

  __device__ __forceinline__ AdamwUpdate(AdamwConstants const& constants, UpdateRecord<float> const& record,
                                         ParameterGroup group)
      : constant(constants),
        scale(record.group(group).gradient_scale),
        rate(record.group(group).learning_rate),
        correct_first(record.first_correction),
        correct_second(record.second_correction),
        applied(record.applied != 0) {}

  __device__ __forceinline__ void apply(float gradient, float& weight, float& first, float& second) const {
    float const g = scale * gradient;
    first = fmaf(constant.keep_first, first, constant.add_first * g);
    second = fmaf(constant.keep_second, second, constant.add_second * (g * g));
    float const direction = first * correct_first / (sqrtf(second * correct_second) + constant.epsilon);
    weight = fmaf(-rate, fmaf(constant.decay, weight, direction), weight);
  }
};

template <int Width>
__device__ __forceinline__ void adamw_pack(AdamwBuffers const& at, AdamwUpdate const& update, Index i) {
  auto const gradient = load_lanes<Width>(at.gradients + i);
  auto weight = load_lanes<Width>(static_cast<float const*>(at.weights) + i);
  auto first = load_lanes<Width>(static_cast<float const*>(at.first) + i);
  auto second = load_lanes<Width>(static_cast<float const*>(at.second) + i);
#pragma unroll
  for (int e = 0; e < Width; ++e) {
    update.apply(gradient.value[e], weight.value[e], first.value[e], second.value[e]);
  }
  if (!update.applied) return;  // asked only here, so that nothing waits for the record before it loads
  store_lanes(at.weights + i, weight.value);
  store_lanes(at.first + i, first.value);
  store_lanes(at.second + i, second.value);
  if (at.narrow_weights == nullptr) return;
  if constexpr (Width == 4) {  // as one number: the compiler would make two stores of a pair
    std::uint64_t const high = pack_bfloat16(weight.value[2], weight.value[3]);
    *reinterpret_cast<std::uint64_t*>(at.narrow_weights + i) =
        pack_bfloat16(weight.value[0], weight.value[1]) | high << 32;
  } else {
    store_lanes(at.narrow_weights + i, weight.value);
  }
}

/// A pack a thread. With `Width` 1 a pack is an element, and `flat.head` is 0.
template <int Width>
__global__ void __launch_bounds__(tuning::kAdamwThreads)
    adamw_kernel(AdamwBuffers buffers, AdamwConstants constants, UpdateRecord<float> const* record, ParameterGroup group,
                 FlatPacks flat) {
  AdamwUpdate const update(constants, *record, group);
  Index const i = Index{blockIdx.x} * tuning::kAdamwThreads + threadIdx.x;
  if (i < flat.packs) adamw_pack<Width>(buffers, update, flat.head + i * Width);
  if (blockIdx.x != 0) return;
  Index const thread = threadIdx.x, behind = flat.head + flat.packs * Width;
  if (thread < flat.head) adamw_pack<1>(buffers, update, thread);
  if (thread < flat.count - behind) adamw_pack<1>(buffers, update, behind + thread);
}

/// Where a sum goes: value = sum, or value += weight * sum.
struct SumTarget {
  double* value;
  double weight;
  bool accumulates;

  void note_to(auto& log) const { log.note(value, weight, accumulates); }

  __device__ __forceinline__ void take(double sum) const {
    *value = accumulates ? *value + weight * sum : sum;
  }
};

/// partial[blockIdx.x] = the sum of the block's share of the numbers, or of their squares; one block alone gives it to
/// the target. Which thread adds which numbers depends on `flat` and the number of blocks alone.
template <bool Squares>
__global__ void __launch_bounds__(tuning::kSumThreads)
    sum_kernel(float const* values, FlatPacks flat, double* partial, SumTarget target) {
  constexpr int threads = tuning::kSumThreads, loads = tuning::kSumLoads;
  __shared__ double shared[threads / kWarpSize];
  auto const term = [](float value) {
    auto const wide = static_cast<double>(value);
    return Squares ? wide * wide : wide;
  };
  float4 const* const packs = reinterpret_cast<float4 const*>(values + flat.head);
  Index const step = Index{gridDim.x} * threads, thread = Index{blockIdx.x} * threads + threadIdx.x;
  double sums[loads] = {};
  Index i = thread;
  for (; i + (loads - 1) * step < flat.packs; i += loads * step) {
    float4 pack[loads];
#pragma unroll
    for (int n = 0; n < loads; ++n) pack[n] = packs[i + n * step];
#pragma unroll
    for (int n = 0; n < loads; ++n)
      sums[n] += (term(pack[n].x) + term(pack[n].y)) + (term(pack[n].z) + term(pack[n].w));
  }
  for (; i < flat.packs; i += step) {
    float4 const pack = packs[i];
    sums[0] += (term(pack.x) + term(pack.y)) + (term(pack.z) + term(pack.w));
  }
  Index const behind = flat.head + flat.packs * 4;
  if (thread < flat.head) sums[1] += term(values[thread]);
  if (thread < flat.count - behind) sums[2] += term(values[behind + thread]);
  double const total = block_sum<threads>((sums[0] + sums[1]) + (sums[2] + sums[3]), shared);
  if (threadIdx.x != 0) return;
  if (gridDim.x == 1) {
    target.take(total);
  } else {
    partial[blockIdx.x] = total;
  }
}

/// Gives the target the sum of `count` partial sums, by one block.
template <int Threads>
__global__ void __launch_bounds__(Threads) sum_partials_kernel(double const* partial, Index count, SumTarget target) {
  __shared__ double shared[Threads / kWarpSize];
  double sum = 0.0;
  for (Index i = threadIdx.x; i < count; i += Threads) sum += partial[i];
  sum = block_sum<Threads>(sum, shared);
  if (threadIdx.x == 0) target.take(sum);
}

/// The decision on an update, by one thread.
template <class Real>
__global__ void decide_update_kernel(AdamwSettings settings, Real const* learning_rate, UpdateRecord<Real>* record) {
  math::decide_update(settings, *learning_rate, *record);
}

}  // namespace mor::cuda
