// SPDX-License-Identifier: Apache-2.0
/// @file
/// AdamW over flat buffers, long sums in double, and gradient clipping that never leaves the device.
#pragma once

#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/tuning/pointwise.hpp"
#include "mor/core/dtype.hpp"
#include "mor/core/types.hpp"

#include <cstdint>

namespace mor::cuda {

/// Flat buffers of `count` floats: `head` elements before the first 16-byte boundary, then packs of 16 bytes, then
/// fewer than four elements.
struct FlatPacks {
  Index head, packs, count;
};

/// The buffers of one update; the last three may be null.
struct AdamwBuffers {
  float const* gradients;
  float* weights;
  float* first;
  float* second;
  bfloat16* narrow_weights;     ///< a copy of the new weights
  float const* gradient_scale;  ///< a further factor on the gradient
  std::int32_t const* skip;     ///< nothing is written where this is not zero
};

/// Constants of one update, computed on the host in double.
struct AdamwConstants {
  float scale, keep_first, add_first, keep_second, add_second, correct_first, correct_second, epsilon, rate, decay;

  __device__ __forceinline__ void update(float gradient, float& weight, float& first, float& second) const {
    float const g = scale * gradient;
    first = fmaf(keep_first, first, add_first * g);
    second = fmaf(keep_second, second, add_second * (g * g));
    float const direction = first * correct_first / (sqrtf(second * correct_second) + epsilon);
    weight = fmaf(-rate, fmaf(decay, weight, direction), weight);
  }
};

template <int Width>
__device__ __forceinline__ void adamw_pack(AdamwBuffers const& at, AdamwConstants const& constants, Index i) {
  auto const gradient = load_lanes<Width>(at.gradients + i);
  auto weight = load_lanes<Width>(static_cast<float const*>(at.weights) + i);
  auto first = load_lanes<Width>(static_cast<float const*>(at.first) + i);
  auto second = load_lanes<Width>(static_cast<float const*>(at.second) + i);
#pragma unroll
  for (int e = 0; e < Width; ++e) {
    constants.update(gradient.value[e], weight.value[e], first.value[e], second.value[e]);
  }
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
    adamw_kernel(AdamwBuffers buffers, AdamwConstants constants, FlatPacks flat) {
  if (buffers.skip != nullptr && *buffers.skip != 0) return;
  if (buffers.gradient_scale != nullptr) constants.scale *= *buffers.gradient_scale;
  Index const i = Index{blockIdx.x} * tuning::kAdamwThreads + threadIdx.x;
  if (i < flat.packs) adamw_pack<Width>(buffers, constants, flat.head + i * Width);
  if (blockIdx.x != 0) return;
  Index const thread = threadIdx.x, behind = flat.head + flat.packs * Width;
  if (thread < flat.head) adamw_pack<1>(buffers, constants, thread);
  if (thread < flat.count - behind) adamw_pack<1>(buffers, constants, behind + thread);
}

/// partial[blockIdx.x] = the sum of the block's share of the numbers, or of their squares. Which thread adds which
/// numbers depends on `flat` and the number of blocks alone.
template <bool Squares>
__global__ void __launch_bounds__(tuning::kSumThreads)
    sum_kernel(float const* values, FlatPacks flat, double* partial) {
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
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

/// result = the sum of `count` partial sums, by one block.
template <int Threads>
__global__ void __launch_bounds__(Threads) sum_partials_kernel(double const* partial, Index count, double* result) {
  __shared__ double shared[Threads / kWarpSize];
  double sum = 0.0;
  for (Index i = threadIdx.x; i < count; i += Threads) sum += partial[i];
  sum = block_sum<Threads>(sum, shared);
  if (threadIdx.x == 0) *result = sum;
}

/// The clipping factor for gradients whose squared norm is the sum of `count` numbers, by one thread.
template <class Scale>
__global__ void clip_scale_kernel(double const* squared_norms, Index count, double max_norm, Scale* scale,
                                  std::int32_t* not_finite) {
  double squared = 0.0;
  for (Index i = 0; i < count; ++i) squared += squared_norms[i];
  double const norm = sqrt(squared);
  *scale = static_cast<Scale>(max_norm > 0.0 && norm > max_norm ? max_norm / norm : 1.0);
  *not_finite = isfinite(norm) ? 0 : 1;
}

}  // namespace mor::cuda
