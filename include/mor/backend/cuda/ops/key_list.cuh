// SPDX-License-Identifier: Apache-2.0
/// @file
/// Key lists: the limits of a causal attention, keys written at their places, and how often rows were active.
#pragma once

#include "mor/backend/cuda/kernels/key_list.cuh"
#include "mor/backend/cuda/ops/alignment.cuh"
#include "mor/backend/cuda/ops/attention_problem.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/row_units.cuh"
#include "mor/backend/cuda/tuning/routing.hpp"
#include "mor/core/active_set.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <span>

namespace mor::cuda {

namespace detail {
[[nodiscard]] inline KeyPlaces key_places(KeyList const& keys) {
  return {keys.query_offsets.data(), static_cast<int>(keys.num_sequences), keys.key_begin.data(), keys.limits.data(),
          {keys.pages.data(), static_cast<int>(keys.page_size)}, keys.num_sequences == keys.num_queries && most_queries(keys) == 1};
}

template <class Tiles, class Unit, class T>
inline void write_keys_in(Context const& context, View<T const> x, KeyList const& keys, View<T> storage) {
  launch(context, "write_keys", {dim3(static_cast<unsigned>(divide_up(x.rows, Tiles::rows))), Tiles::threads},
         &write_keys_kernel<Unit, Tiles::threads, Tiles::rows>, unit_rows<Unit const>(x), x.rows, units_of<Unit>(x),
         key_places(keys), unit_rows<Unit>(storage));
}
}  // namespace detail

/// One thread a row, which finds its sequence by bisection. Floor: 4 to 8 bytes a row.
template <class Tiles = RouterTiles>
inline void causal_limits(Context const& context, std::span<Row const> set_offsets, std::span<Row const> rows,
                          std::span<Row const> batch_offsets, std::span<Row const> base, std::span<Row> limits) {
  if (set_offsets.empty()) return;
  auto const count = static_cast<Index>(limits.size());
  LimitLists const lists{set_offsets.data(), static_cast<int>(set_offsets.size()) - 1,
                         rows.empty() ? nullptr : rows.data(), batch_offsets.data(),
                         base.empty() ? nullptr : base.data()};
  launch(context, "causal_limits", {dim3(static_cast<unsigned>(divide_up(count, Tiles::threads))), Tiles::threads},
         &causal_limits_kernel<Tiles::threads>, lists, count, limits.data());
}

/// Floor: x once in, once out.
template <class T, class Tiles = RowCopyTiles>
inline void write_keys(Context const& context, View<T const> x, KeyList const& keys, View<T> storage) {
  if (x.empty() || keys.num_sequences == 0) return;
  if (can_pack(x, View<T const>(storage))) return detail::write_keys_in<Tiles, uint4>(context, x, keys, storage);
  detail::write_keys_in<Tiles, T>(context, x, keys, storage);
}

/// Floor: 12 bytes a row.
template <class Tiles = RouterTiles>
inline void count_rows(Context const& context, std::span<Row const> rows, std::span<Row> counts) {
  auto const count = static_cast<Index>(rows.size());
  launch(context, "count_rows", {dim3(static_cast<unsigned>(divide_up(count, Tiles::threads))), Tiles::threads},
         &count_rows_kernel<Tiles::threads>, rows.data(), count, counts.data());
}

}  // namespace mor::cuda
