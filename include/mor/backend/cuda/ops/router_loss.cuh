// SPDX-License-Identifier: Apache-2.0
/// @file
/// Auxiliary losses of a router, with their gradients.
#pragma once

#include "mor/backend/cuda/kernels/router_loss.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/tuning/routing.hpp"
#include "mor/backend/cuda/tuning/scratch.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <span>

namespace mor::cuda {

/// `slots` ascend. Floor: logits once, gradients twice. One launch finds each block's targets in the list of slots and
/// sums its losses, a second one adds the sums.
template <class Tiles = RouterTiles>
inline void router_bce(Context const& context, std::span<float const> logits, std::span<Row const> slots, double weight,
                       std::span<float> statistics, std::span<float> d_logits) {
  auto const count = static_cast<Index>(logits.size());
  if (count == 0) return;
  Scratch scratch(context);
  Index const parts = tuning::router_bce_parts<Tiles>(count);
  double* const partial = scratch.take<double>(2 * parts);
  launch(context, "router_bce", {dim3(static_cast<unsigned>(parts)), Tiles::threads},
         &router_bce_kernel<Tiles::threads, Tiles::items>, logits.data(), count, slots.data(),
         static_cast<Index>(slots.size()), static_cast<float>(weight / static_cast<double>(count)), partial,
         d_logits.empty() ? nullptr : d_logits.data());
  launch(context, "router_bce", {dim3(2), Tiles::threads}, &add_statistics_kernel<Tiles::threads>, partial, parts,
         static_cast<double>(count), statistics.data());
}

/// Floor: logits once, gradients twice. One thread a row, then one block that adds the sums.
template <class Tiles = RouterTiles>
inline void z_loss(Context const& context, View<float const> logits, double weight, std::span<float> statistics,
                   View<float> d_logits) {
  if (logits.empty()) return;
  Scratch scratch(context);
  Index const parts = tuning::z_loss_parts<Tiles>(logits.rows);
  double* const partial = scratch.take<double>(parts);
  auto const rows = static_cast<double>(logits.rows);
  launch(context, "z_loss", {dim3(static_cast<unsigned>(parts)), Tiles::threads}, &z_loss_kernel<Tiles::threads>,
         logits, static_cast<float>(2.0 * weight / rows), partial, d_logits.empty() ? View<float>{} : d_logits);
  launch(context, "z_loss", {dim3(1), Tiles::threads}, &add_statistics_kernel<Tiles::threads>, partial, parts, rows,
         statistics.data());
}

}  // namespace mor::cuda
