// SPDX-License-Identifier: Apache-2.0
/// @file
/// Expert choice in one pass over rows of mixed depth: the verbs of `FusesExpertChoice`.
#pragma once

#include "mor/backend/cuda/kernels/expert_step.cuh"
#include "mor/backend/cuda/ops/alignment.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/contract/serving.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <cstdint>
#include <span>

namespace mor::cuda {

namespace detail {

template <class T>
[[nodiscard]] inline RouterTable<T> router_table(ExpertStep<T> const& step) {
  RouterTable<T> table{};
  static_assert(RouterTable<T>::kMost == RouterVectors<T>::kMost);
  for (Index r = 0; r < step.routers.count; ++r) {
    auto const at = static_cast<std::size_t>(r);
    table.routers[r] = step.routers.vectors[at];
    table.deciders[r] = step.deciders.count > 0 ? step.deciders.vectors[at] : nullptr;
  }
  table.count = static_cast<int>(step.routers.count);
  table.entry = step.entry;
  table.scale = static_cast<float>(step.scale);
  table.alpha = static_cast<float>(step.alpha);
  table.activation = step.activation;
  table.weighted = step.weighted;
  return table;
}

template <class T>
[[nodiscard]] inline bool vectors_pack(RouterTable<T> const& table) {
  if (reinterpret_cast<std::uintptr_t>(table.entry) % 16 != 0) return false;
  for (int r = 0; r < table.count; ++r) {
    if (reinterpret_cast<std::uintptr_t>(table.routers[r]) % 16 != 0) return false;
    if (table.deciders[r] != nullptr && reinterpret_cast<std::uintptr_t>(table.deciders[r]) % 16 != 0) return false;
  }
  return true;
}

}  // namespace detail

/// Floor: a row is read twice and written once; at decoding's row counts one launch's latency.
template <class Arch, class T>
inline void expert_step(Context const& context, ExpertStep<T> const& step, View<T const> y, std::span<Row const> cells,
                        std::span<Row const> depths, View<T> hidden, std::span<float> gate, std::span<float> scores) {
  if (y.empty()) return;
  constexpr int threads = 128;  // one pack each for rows of up to 1024
  LaunchShape shape{dim3(static_cast<unsigned>(y.rows)), threads};
  shape.overlaps = Arch::capability >= 90;
  auto const table = detail::router_table(step);
  bool const packs = detail::vectors_pack(table) && can_pack(y) && can_pack(View<T const>(hidden));
  auto* const kernel = packs ? &expert_step_kernel<Arch, T, kPackSize<T>, threads> : &expert_step_kernel<Arch, T, 1, threads>;
  launch(context, "expert_step", shape, kernel, table, y, cells.data(), depths.data(), hidden, gate.data(), scores.data());
}

}  // namespace mor::cuda
