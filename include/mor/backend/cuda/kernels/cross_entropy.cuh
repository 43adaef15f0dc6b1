// SPDX-License-Identifier: Apache-2.0
/// @file
/// Cross-entropy of rows of logits, and its gradient in place of the logits. Maximum and sum of exponentials come from
/// one pass; every thread reads, and overwrites, columns of its own.
#pragma once

#include "mor/backend/cuda/kernels/attention_arguments.cuh"
#include "mor/backend/cuda/kernels/elementwise.cuh"
#include "mor/backend/cuda/kernels/mma.cuh"
#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/tuning/head.hpp"
#include "mor/core/view.hpp"

#include <type_traits>

namespace mor::cuda {

/// e^(x - reference) to the accuracy that values stored as T deserve: for bf16 a multiplication-addition and 2^x.
template <class T>
class ExponentialsBelow {
  static constexpr bool kExact = std::is_same_v<T, float>;

 public:
  __device__ __forceinline__ explicit ExponentialsBelow(float reference)
      : reference_(kExact ? reference : reference * kLog2E) {}
  __device__ __forceinline__ float operator()(float x) const {
    if constexpr (kExact) {
      return expf(x - reference_);
    } else {
      return exp2_fast(fmaf(x, kLog2E, -reference_));
    }
  }

 private:
  float reference_;
};

/// e^(from - to). Of two equal numbers exactly 1, however large: ExponentialsBelow rounds the product of one of them.
template <class T>
[[nodiscard]] __device__ __forceinline__ float reference_factor(float from, float to) {
  if constexpr (std::is_same_v<T, float>) {
    return expf(from - to);
  } else {
    return exp2_fast((from - to) * kLog2E);
  }
}

/// Sum of e^(x - reference) over some columns of a row. The reference is finite, also where nothing or -infinity was
/// seen.
struct SoftmaxSum {
  float reference;
  float sum;
};

/// Adds numbers one pack at a time. The reference is raised, and the sum rescaled, only when a number outgrows it by
/// `kSlack`, which no sum of floats overflows from.
template <class T>
class SoftmaxAccumulator {
  static constexpr float kSlack = 8.0F;

 public:
  template <int N>
  __device__ __forceinline__ void add(Lanes<T, N> const& x) {
    float top = x.value[0];
#pragma unroll
    for (int e = 1; e < N; ++e) top = fmaxf(top, x.value[e]);
    if (top > result_.reference + kSlack) {
      exponentials_ = ExponentialsBelow<T>(top);
      result_.sum *= reference_factor<T>(result_.reference, top);
      result_.reference = top;
    }
#pragma unroll
    for (int e = 0; e < N; ++e) result_.sum += exponentials_(x.value[e]);
  }
  [[nodiscard]] __device__ __forceinline__ SoftmaxSum result() const { return result_; }

 private:
  SoftmaxSum result_{kLowestScore, 0.0F};
  ExponentialsBelow<T> exponentials_{kLowestScore};
};

/// The sum over a warp, in every lane.
template <class T>
[[nodiscard]] __device__ __forceinline__ SoftmaxSum warp_softmax(SoftmaxSum part) {
  float const highest = warp_max(part.reference);
  return {highest, warp_sum(part.sum * reference_factor<T>(part.reference, highest))};
}

/// The sum over a block, in every thread, with one barrier: `shared` must not be used again before the next one.
template <class T, int Threads>
[[nodiscard]] __device__ __forceinline__ SoftmaxSum block_softmax(SoftmaxSum part, SoftmaxSum* shared) {
  constexpr unsigned warps = Threads / kWarpSize;
  static_assert(warps <= kWarpSize);
  part = warp_softmax<T>(part);
  if (threadIdx.x % kWarpSize == 0) shared[threadIdx.x / kWarpSize] = part;
  __syncthreads();
  unsigned const lane = threadIdx.x % kWarpSize;
  return warp_softmax<T>(lane < warps ? shared[lane] : SoftmaxSum{kLowestScore, 0.0F});
}

/// A row's target. Its column belongs to one thread, which writes the loss and corrects the gradient at that column.
struct TargetColumn {
  Token token;  ///< negative: the row counts for nothing
  bool mine;

  template <int Width, int Threads>
  [[nodiscard]] static __device__ __forceinline__ TargetColumn find(Token token) {
    return {token, token >= 0 && static_cast<unsigned>(token) / Width % Threads == threadIdx.x};
  }
  /// `wanted` is the target's logit; only the column's thread needs to know it.
  __device__ __forceinline__ void write_loss(SoftmaxSum const& row, float wanted, float* loss) const {
    if (mine) *loss = logf(row.sum) + (row.reference - wanted);
    if (token < 0 && threadIdx.x == 0) *loss = 0.0F;
  }
};

/// The gradient of a row: weight * (softmax - [column == target]).
template <class T>
class CrossEntropyGradient {
 public:
  __device__ __forceinline__ CrossEntropyGradient(SoftmaxSum const& row, float weight, TargetColumn const& target)
      : exponentials_(row.reference), weight_(weight), factor_(weight / row.sum), target_(target) {}

  /// Of every column but the target.
  template <int N>
  __device__ __forceinline__ void write(Lanes<T, N> x, T* to) const {
#pragma unroll
    for (int e = 0; e < N; ++e) x.value[e] = target_.token < 0 ? 0.0F : factor_ * exponentials_(x.value[e]);
    store_global(to, x.value);
  }
  /// Of the target, after the other columns.
  __device__ __forceinline__ void correct(float wanted, T* row) const {
    asm volatile("" ::: "memory");  // the pack around it is stored first
    if (target_.mine) row[target_.token] = narrow<T>(fmaf(factor_, exponentials_(wanted), -weight_));
  }

 private:
  ExponentialsBelow<T> exponentials_;
  float weight_, factor_;
  TargetColumn target_;
};

/// losses[i] = log sum exp(logits[i]) - logits[i, targets[i]] and, with `Gradient`, logits[i] = its gradient times
/// `weight`. A negative target gives zeros. A block a row, which reads the row again for the gradient: for rows of any
/// length and alignment.
template <class T, int Width, bool Gradient>
__global__ void __launch_bounds__(tuning::kCrossEntropyThreads, 2)
    cross_entropy_kernel(View<T> logits, Token const* targets, float weight, float* losses) {
  constexpr int threads = tuning::kCrossEntropyThreads, loads = 4;
  constexpr tuning::Reading reading = Gradient ? tuning::Reading::Cached : tuning::kReading;
  constexpr Index step = Index{threads} * Width;
  __shared__ SoftmaxSum shared[threads / kWarpSize];
  Index const columns = logits.cols, first = Index{threadIdx.x} * Width;
  T* const row = logits.row(blockIdx.x);
  auto const target = TargetColumn::find<Width, threads>(targets[blockIdx.x]);
  float const wanted = target.mine ? static_cast<float>(row[target.token]) : 0.0F;
  // Calls operation(pack, column) for the thread's packs, of which several are in flight.
  auto const for_packs = [columns, first, row](auto const& operation) {
    for (Index j = first; j < columns; j += loads * step) {
      RawPack<T, Width> packs[loads];
#pragma unroll
      for (int i = 0; i < loads; ++i) {
        if (j + i * step < columns) packs[i] = load_raw<Width, reading>(static_cast<T const*>(row) + j + i * step);
      }
#pragma unroll
      for (int i = 0; i < loads; ++i) {
        if (j + i * step < columns) operation(widen(packs[i]), j + i * step);
      }
    }
  };
  SoftmaxAccumulator<T> seen;
  for_packs([&](Lanes<T, Width> const& x, Index) { seen.add(x); });
  SoftmaxSum const sum = block_softmax<T, threads>(seen.result(), shared);
  target.write_loss(sum, wanted, losses + blockIdx.x);
  if constexpr (Gradient) {
    CrossEntropyGradient<T> const gradient(sum, weight, target);
    for_packs([&](Lanes<T, Width> const& x, Index column) { gradient.write(x, row + column); });
    gradient.correct(wanted, row);
  }
}

/// The same with the gradient, for rows that fit shared memory (the dynamic one, a row), in 16-byte packs: device
/// memory is read once and written once. Loads of the whole row are sent for at once, and used group by group as they
/// arrive. Packs are private to threads: only the sum over the row needs a barrier.
template <class T>
__global__ void __launch_bounds__(tuning::kCrossEntropyThreads, 2)
    cross_entropy_gradient_kernel(View<T> logits, Token const* targets, float weight, float* losses) {
  constexpr int threads = tuning::kCrossEntropyThreads, groups = tuning::kCrossEntropyGroups, width = kPackSize<T>;
  extern __shared__ __align__(16) unsigned char cache_bytes[];
  __shared__ SoftmaxSum shared[threads / kWarpSize];
  T* const cache = reinterpret_cast<T*>(cache_bytes);
  constexpr Index step = Index{threads} * width;
  Index const columns = logits.cols, first = Index{threadIdx.x} * width;
  Index const group_columns = ((columns + step - 1) / step + groups - 1) / groups * step;
  // Calls operation(column) for the thread's packs of a group.
  auto const for_group = [columns, group_columns, first](int group, auto const& operation) {
    Index const end = min((group + 1) * group_columns, columns);
#pragma unroll 1
    for (Index column = group * group_columns + first; column < end; column += step) operation(column);
  };
  T* const row = logits.row(blockIdx.x);
#pragma unroll
  for (int group = 0; group < groups; ++group) {
    for_group(group, [&](Index column) { sm80::copy_async<16>(sm80::shared_address(cache + column), row + column, true); });
    sm80::close_copy_group();
  }
  auto const target = TargetColumn::find<width, threads>(targets[blockIdx.x]);
  SoftmaxAccumulator<T> seen;
  auto const add_group = [&](int group) {
    for_group(group, [&](Index column) { seen.add(load_lanes<width>(static_cast<T const*>(cache) + column)); });
  };
  static_assert(groups == 4);
  sm80::wait_for_copy_groups<3>(), add_group(0);
  sm80::wait_for_copy_groups<2>(), add_group(1);
  sm80::wait_for_copy_groups<1>(), add_group(2);
  sm80::wait_for_copy_groups<0>(), add_group(3);
  float const wanted = target.mine ? static_cast<float>(cache[target.token]) : 0.0F;
  SoftmaxSum const sum = block_softmax<T, threads>(seen.result(), shared);
  target.write_loss(sum, wanted, losses + blockIdx.x);
  CrossEntropyGradient<T> const gradient(sum, weight, target);
#pragma unroll
  for (int group = 0; group < groups; ++group) {
    for_group(group, [&](Index column) {
      gradient.write(load_lanes<width>(static_cast<T const*>(cache) + column), row + column);
    });
  }
  gradient.correct(wanted, row);
}

}  // namespace mor::cuda
