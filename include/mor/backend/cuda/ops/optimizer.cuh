// SPDX-License-Identifier: Apache-2.0
/// @file
/// AdamW, gradient norms and clipping, and the cast of master weights. Results that a host may want stay on the device.
#pragma once

#include "mor/backend/cuda/kernels/elementwise.cuh"
#include "mor/backend/cuda/kernels/optimizer.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/elementwise.cuh"
#include "mor/core/dtype.hpp"
#include "mor/core/view.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

namespace mor::cuda {

/// What an update may read and write besides the contract's buffers, so that a training step need not wait for the
/// device or read the weights twice. All in device memory, each may be null.
struct AdamwExtras {
  float const* gradient_scale = nullptr;  ///< a factor on the gradient besides `step.gradient_scale`
  std::int32_t const* skip = nullptr;     ///< not zero: weights, moments and `narrow_weights` stay as they are
  bfloat16* narrow_weights = nullptr;     ///< [count] receives the new weights in bf16
};

namespace detail {

/// Elements before the first 16-byte boundary.
[[nodiscard]] inline Index elements_to_boundary(float const* address) {
  auto const past = static_cast<Index>(reinterpret_cast<std::uintptr_t>(address) % 16) / Index{sizeof(float)};
  return past == 0 ? 0 : 4 - past;
}

/// Packs of one buffer.
[[nodiscard]] inline FlatPacks flat_packs(float const* values, Index count) {
  Index const head = std::min(elements_to_boundary(values), count);
  return {head, (count - head) / 4, count};
}

/// The constants of `step`, an AdamwStep; bias corrections in double.
template <class Step>
[[nodiscard]] inline AdamwConstants adamw_constants(Step const& step) {
  auto const count = static_cast<double>(step.step);
  auto const narrowed = [](double value) { return static_cast<float>(value); };
  return {narrowed(step.gradient_scale),
          narrowed(step.beta1),
          narrowed(1.0 - step.beta1),
          narrowed(step.beta2),
          narrowed(1.0 - step.beta2),
          narrowed(1.0 / (1.0 - std::pow(step.beta1, count))),
          narrowed(1.0 / (1.0 - std::pow(step.beta2, count))),
          narrowed(step.epsilon),
          narrowed(step.learning_rate),
          narrowed(step.weight_decay)};
}

template <bool Squares>
inline void reduce(Context const& context, char const* verb, std::span<float const> values, double* result) {
  auto const count = static_cast<Index>(values.size());
  Index const parts = tuning::sum_parts(count);
  FlatPacks const flat = flat_packs(values.data(), count);
  LaunchShape const shape{dim3(static_cast<unsigned>(parts)), tuning::kSumThreads, 0};
  if (parts == 1) {
    launch(context, verb, shape, sum_kernel<Squares>, values.data(), flat, result);
    return;
  }
  Scratch scratch(context);
  double* const partial = scratch.take<double>(parts);
  launch(context, verb, shape, sum_kernel<Squares>, values.data(), flat, partial);
  launch(context, verb, {dim3(1), tuning::kSumThreads, 0}, sum_partials_kernel<tuning::kSumThreads>, partial, parts,
         result);
}

}  // namespace detail

/// One AdamW update in place, in one launch. `Step` is mor::AdamwStep (this layer does not know the contract). Floor:
/// 16 bytes read and 12 written an element, 2 more with `narrow_weights`.
template <class Step>
inline void adamw(Context const& context, std::span<float const> gradients, Step const& step, std::span<float> weights,
                  std::span<float> first_moment, std::span<float> second_moment, AdamwExtras const& extras = {}) {
  auto const count = static_cast<Index>(gradients.size());
  if (count == 0) return;
  AdamwBuffers const buffers{gradients.data(),      weights.data(),        first_moment.data(), second_moment.data(),
                             extras.narrow_weights, extras.gradient_scale, extras.skip};
  AdamwConstants const constants = detail::adamw_constants(step);
  Index const head = detail::elements_to_boundary(gradients.data());
  auto const alike = [head](float const* address) { return detail::elements_to_boundary(address) == head; };
  auto const narrow_address = reinterpret_cast<std::uintptr_t>(extras.narrow_weights);
  bool const narrow_fits = extras.narrow_weights == nullptr ||
                           (narrow_address + static_cast<std::uintptr_t>(head) * sizeof(bfloat16)) % 8 == 0;
  auto const blocks_of = [](Index packs) {
    return dim3(static_cast<unsigned>(std::max<Index>(divide_up(packs, tuning::kAdamwThreads), 1)));
  };
  if (alike(weights.data()) && alike(first_moment.data()) && alike(second_moment.data()) && narrow_fits) {
    FlatPacks const flat = detail::flat_packs(gradients.data(), count);
    launch(context, "adamw", {blocks_of(flat.packs), tuning::kAdamwThreads, 0}, adamw_kernel<4>, buffers, constants,
           flat);
  } else {
    FlatPacks const flat{0, count, count};
    launch(context, "adamw", {blocks_of(count), tuning::kAdamwThreads, 0}, adamw_kernel<1>, buffers, constants, flat);
  }
}

/// result = the sum of squares; NaN and infinity stay. `result` is a double on the device. Floor: 4 bytes an element.
inline void squared_norm(Context const& context, std::span<float const> values, double* result) {
  detail::reduce<true>(context, "squared_norm", values, result);
}

/// result = the sum. `result` is a double on the device. Floor: 4 bytes an element.
inline void sum(Context const& context, std::span<float const> values, double* result) {
  detail::reduce<false>(context, "sum", values, result);
}

/// With norm = sqrt(sum of squared_norms): scale = max_norm / norm where max_norm is positive and the norm exceeds it,
/// else 1; not_finite = 1 where the norm is infinite or NaN, else 0. All pointers in device memory.
inline void clip_scale(Context const& context, std::span<double const> squared_norms, double max_norm, float* scale,
                       std::int32_t* not_finite) {
  launch(context, "clip_scale", {}, clip_scale_kernel<float>, squared_norms.data(),
         static_cast<Index>(squared_norms.size()), max_norm, scale, not_finite);
}

/// The same for one squared norm.
inline void clip_scale(Context const& context, double const* squared_norm, double max_norm, float* scale,
                       std::int32_t* not_finite) {
  clip_scale(context, std::span<double const>(squared_norm, 1), max_norm, scale, not_finite);
}

/// weights = master, rounded to T. Floor: 4 bytes read and sizeof(T) written an element.
template <class T>
inline void cast_weights(Context const& context, std::span<float const> master, std::span<T> weights) {
  View<float const> const from(master.data(), 1, static_cast<Index>(master.size()));
  View<T> const to(weights.data(), 1, static_cast<Index>(weights.size()));
  constexpr int width = kPackSize<T>;
  bool const packed = detail::rows_in_packs<width>(from) && detail::rows_in_packs<width>(to);
  detail::launch_map<width>(context, "cast_weights", packed, 1, from.cols, CastOperation<float, T>{from, to});
}

}  // namespace mor::cuda
