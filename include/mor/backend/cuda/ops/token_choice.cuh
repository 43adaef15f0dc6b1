// SPDX-License-Identifier: Apache-2.0
/// @file
/// Token-choice routing: each token picks its own depth.
#pragma once

#include "mor/backend/cuda/kernels/token_choice.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/routing.cuh"
#include "mor/backend/cuda/tuning/routing.hpp"
#include "mor/backend/cuda/tuning/scratch.hpp"
#include "mor/core/config.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <span>

namespace mor::cuda {

/// Floor: logits and probabilities once, 8 bytes a row.
template <class Tiles = RouterTiles>
inline void token_choice(Context const& context, View<float const> logits, std::span<float const> bias,
                         RouterActivation activation, double alpha, bool full_depth, View<float> probabilities,
                         std::span<float> choice, std::span<float> gate) {
  if (logits.empty()) return;
  ChoiceRule const rule{bias.empty() ? nullptr : bias.data(), activation, static_cast<float>(alpha), full_depth};
  launch(context, "token_choice", detail::thread_each<Tiles>(logits.rows), &token_choice_kernel<Tiles::threads>, logits,
         rule, probabilities, choice.data(), gate.data());
}

/// Either of `d_gate` and `d_probabilities` may be empty (zero). Floor: probabilities once, d_logits twice.
template <class Tiles = RouterTiles>
inline void token_choice_backward(Context const& context, View<float const> probabilities,
                                  std::span<float const> choice, RouterActivation activation, double alpha,
                                  std::span<float const> d_gate, View<float const> d_probabilities,
                                  View<float> d_logits) {
  if (probabilities.empty()) return;
  ChoiceGradients const gradients{choice.data(), d_gate.empty() ? nullptr : d_gate.data(),
                                  d_probabilities.empty() ? View<float const>{} : d_probabilities};
  launch(context, "token_choice_backward", detail::thread_each<Tiles>(probabilities.rows),
         &token_choice_backward_kernel<Tiles::threads>, probabilities, activation, static_cast<float>(alpha), gradients,
         d_logits);
}

/// Floor: 20 bytes a row.
template <class Tiles = RouterTiles>
inline void token_choice_weights(Context const& context, std::span<float const> choice, std::span<float const> gate,
                                 std::span<Row const> rows, Index step, bool gate_intermediate, bool additive,
                                 std::span<float> scale, std::span<float> keep) {
  auto const count = static_cast<Index>(rows.size());
  launch(context, "token_choice_weights", detail::thread_each<Tiles>(count),
         &token_choice_weights_kernel<Tiles::threads>, choice.data(), gate.data(), rows.data(), count,
         static_cast<int>(step), gate_intermediate, additive, scale.data(), keep.data());
}

/// Floor: 20 bytes a row.
template <class Tiles = RouterTiles>
inline void token_choice_weights_backward(Context const& context, std::span<float const> choice,
                                          std::span<Row const> rows, Index step, bool gate_intermediate,
                                          std::span<float const> d_scale, std::span<float> d_gate) {
  auto const count = static_cast<Index>(rows.size());
  launch(context, "token_choice_weights_backward", detail::thread_each<Tiles>(count),
         &token_choice_weights_backward_kernel<Tiles::threads>, choice.data(), rows.data(), count,
         static_cast<int>(step), gate_intermediate, d_scale.data(), d_gate.data());
}

/// Floor: probabilities and their gradient once. Sums of fixed spans of rows, then one block for the statistics, then
/// the gradient, which is the same for every row.
template <class Tiles = RouterTiles>
inline void balance_loss(Context const& context, View<float const> probabilities, std::span<float const> choice,
                         double weight, std::span<float> statistics, View<float> d_probabilities) {
  if (probabilities.empty()) return;
  Scratch scratch(context);
  Index const parts = tuning::balance_parts<Tiles>(probabilities.rows);
  double* const partial = scratch.take<double>(2 * probabilities.cols * parts);
  float* const gradient = scratch.take<float>(probabilities.cols);
  launch(context, "balance_loss", {dim3(static_cast<unsigned>(parts)), Tiles::threads},
         &balance_sums_kernel<Tiles::threads, Tiles::items>, probabilities, choice.data(), partial);
  launch(context, "balance_loss", {dim3(1), Tiles::threads}, &balance_statistics_kernel<Tiles::threads>, partial, parts,
         probabilities.rows, static_cast<int>(probabilities.cols), weight, statistics.data(), gradient);
  if (d_probabilities.empty()) return;
  launch(context, "balance_loss", detail::thread_each<Tiles>(d_probabilities.size()),
         &spread_gradient_kernel<Tiles::threads>, gradient, d_probabilities);
}

}  // namespace mor::cuda
