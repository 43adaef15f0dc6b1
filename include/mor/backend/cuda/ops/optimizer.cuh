// SPDX-License-Identifier: Apache-2.0
/// @file
/// Updates of the weights: sums for their record, the decision, AdamW; and the cast of master weights. Nothing waits.
#pragma once

#include "mor/backend/cuda/kernels/elementwise.cuh"
#include "mor/backend/cuda/kernels/optimizer.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/elementwise.cuh"
#include "mor/backend/cuda/tuning/scratch.hpp"
#include "mor/core/dtype.hpp"
#include "mor/core/parameter_layout.hpp"
#include "mor/core/update.hpp"
#include "mor/core/view.hpp"

#include <algorithm>
#include <cstdint>
#include <span>

namespace mor::cuda {

inline void note_to(WorkLog& log, AdamwSettings const& s) {
  log.note(s.beta1, s.beta2, s.epsilon, s.weight_decay, s.clip_norm, s.aux_router_learning_rate, s.largest_accepted);
}

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

[[nodiscard]] inline AdamwConstants adamw_constants(AdamwSettings const& settings) {
  auto const narrowed = [](double value) { return static_cast<float>(value); };
  return {narrowed(settings.beta1),       narrowed(1.0 - settings.beta1), narrowed(settings.beta2),
          narrowed(1.0 - settings.beta2), narrowed(settings.epsilon),     narrowed(settings.weight_decay)};
}

/// Tells the log what a launch carries inside a structure, where it does not look.
template <class... Values>
inline void note(Context const& context, Values... values) {
  if (context.log != nullptr) (context.log->note(values), ...);
}

template <bool Squares>
inline void reduce(Context const& context, char const* verb, std::span<float const> values, SumTarget target) {
  auto const count = static_cast<Index>(values.size());
  Index const parts = tuning::sum_parts(count), partials = tuning::sum_partials(count);
  FlatPacks const flat = flat_packs(values.data(), count);
  LaunchShape const shape{dim3(static_cast<unsigned>(parts)), tuning::kSumThreads, 0};
  note(context, target.value, target.weight);
  if (partials == 0) {
    launch(context, verb, shape, sum_kernel<Squares>, values.data(), flat, nullptr, target);
    return;
  }
  Scratch scratch(context);
  double* const partial = scratch.take<double>(partials);
  launch(context, verb, shape, sum_kernel<Squares>, values.data(), flat, partial, target);
  launch(context, verb, {dim3(1), tuning::kSumThreads, 0}, sum_partials_kernel<tuning::kSumThreads>, partial, parts,
         target);
}

}  // namespace detail

/// One AdamW update in place, in one launch, with the numbers that `record` holds by then. `narrow` may be null. Floor:
/// 16 bytes read and 12 written an element, 2 more with `narrow`.
inline void adamw(Context const& context, std::span<float const> gradients, AdamwSettings const& settings,
                  ParameterGroup group, UpdateRecord<float> const* record, std::span<float> weights,
                  std::span<float> first_moment, std::span<float> second_moment, bfloat16* narrow) {
  auto const count = static_cast<Index>(gradients.size());
  if (count == 0) return;
  AdamwBuffers const buffers{gradients.data(), weights.data(), first_moment.data(), second_moment.data(), narrow};
  AdamwConstants const constants = detail::adamw_constants(settings);
  detail::note(context, buffers.gradients, buffers.weights, buffers.first, buffers.second, buffers.narrow_weights,
               settings.beta1, settings.beta2, settings.epsilon, settings.weight_decay);
  Index const head = detail::elements_to_boundary(gradients.data());
  auto const alike = [head](float const* address) { return detail::elements_to_boundary(address) == head; };
  auto const narrow_address = reinterpret_cast<std::uintptr_t>(narrow);
  bool const narrow_fits =
      narrow == nullptr || (narrow_address + static_cast<std::uintptr_t>(head) * sizeof(bfloat16)) % 8 == 0;
  auto const blocks_of = [](Index packs) {
    return dim3(static_cast<unsigned>(std::max<Index>(divide_up(packs, tuning::kAdamwThreads), 1)));
  };
  if (alike(weights.data()) && alike(first_moment.data()) && alike(second_moment.data()) && narrow_fits) {
    FlatPacks const flat = detail::flat_packs(gradients.data(), count);
    launch(context, "adamw", {blocks_of(flat.packs), tuning::kAdamwThreads, 0}, adamw_kernel<4>, buffers, constants,
           record, group, flat);
  } else {
    FlatPacks const flat{0, count, count};
    launch(context, "adamw", {blocks_of(count), tuning::kAdamwThreads, 0}, adamw_kernel<1>, buffers, constants, record,
           group, flat);
  }
}

/// Squares of the gradients of a group for its norm. `record` is on the device. Floor: 4 bytes an element.
inline void add_squares(Context const& context, std::span<float const> gradients, ParameterGroup group,
                        UpdateRecord<float>* record) {
  if (gradients.empty()) return;
  detail::reduce<true>(context, "add_squares", gradients, {&record->group(group).squares, 1.0, true});
}

/// A step's loss for the decision. `record` is on the device. Floor: 4 bytes an element.
inline void add_loss(Context const& context, std::span<float const> losses, double weight, UpdateRecord<float>* record) {
  if (losses.empty()) return;
  detail::reduce<false>(context, "add_loss", losses, {&record->collected_loss, weight, true});
}

/// The decision, by one thread.
inline void decide_update(Context const& context, AdamwSettings const& settings, float const* learning_rate,
                          UpdateRecord<float>* record) {
  detail::note(context, settings.beta1, settings.beta2, settings.clip_norm, settings.aux_router_learning_rate,
               settings.largest_accepted);
  launch(context, "decide_update", {}, decide_update_kernel<float>, settings, learning_rate, record);
}

/// result = the sum. `result` is a double on the device. Floor: 4 bytes an element.
inline void sum(Context const& context, std::span<float const> values, double* result) {
  detail::reduce<false>(context, "sum", values, {result, 1.0, false});
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
