// SPDX-License-Identifier: Apache-2.0
/// @file
/// The verbs of `ServingRouting` that are no plain move: gates and choices of rows at different depths.
#pragma once

#include "mor/backend/cuda/kernels/serving_routing.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/routing.cuh"
#include "mor/backend/cuda/tuning/routing.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <span>

namespace mor::cuda {

/// Floor: 12 bytes a row.
template <class Tiles = RouterTiles>
inline void pick_columns(Context const& context, View<float const> x, std::span<Row const> columns, Index shift,
                         std::span<float> out) {
  if (x.empty()) return;
  auto const count = static_cast<Index>(out.size());
  launch(context, "pick_columns", detail::thread_each<Tiles>(count), &pick_columns_kernel<Tiles::threads>, x,
         columns.data(), shift, count, out.data());
}

/// Floor: 24 bytes a row.
template <class Tiles = RouterTiles>
inline void limit_choice(Context const& context, View<float const> probabilities, std::span<Row const> least,
                         std::span<Row const> most, std::span<float> choice, std::span<float> gate) {
  auto const count = static_cast<Index>(choice.size());
  launch(context, "limit_choice", detail::thread_each<Tiles>(count), &limit_choice_kernel<Tiles::threads>,
         probabilities, least.data(), most.data(), count, choice.data(), gate.data());
}

/// Floor: 24 bytes a row.
template <class Tiles = RouterTiles>
inline void choice_weights(Context const& context, std::span<float const> choice, std::span<float const> gate,
                           std::span<Row const> depths, bool gate_intermediate, bool additive, std::span<float> scale,
                           std::span<float> keep, std::span<float> scores) {
  auto const count = static_cast<Index>(depths.size());
  launch(context, "choice_weights", detail::thread_each<Tiles>(count), &choice_weights_kernel<Tiles::threads>,
         choice.data(), gate.data(), depths.data(), count, gate_intermediate, additive, scale.data(), keep.data(),
         scores.data());
}

}  // namespace mor::cuda
