// SPDX-License-Identifier: Apache-2.0
/// @file
/// Moving rows between a batch and an active set, and joining an update to the stream.
#pragma once

#include "mor/backend/cuda/kernels/elementwise.cuh"
#include "mor/backend/cuda/kernels/rows.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/elementwise.cuh"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <span>

namespace mor::cuda {

namespace detail {
/// The number of listed rows.
[[nodiscard]] inline Index row_count(std::span<Row const> rows) {
  return static_cast<Index>(rows.size());
}
}  // namespace detail

/// out[i] = x[rows[i]]. Floor: the chosen rows read once and written once.
template <class T>
inline void gather_rows(Context const& context, View<T const> x, std::span<Row const> rows, View<T> out) {
  detail::move_rows(context, "gather_rows", detail::row_count(rows), x, rows.data(), out, nullptr);
}

/// out[rows[i]] = x[i]. Floor: as `gather_rows`.
template <class T>
inline void scatter_rows(Context const& context, View<T const> x, std::span<Row const> rows, View<T> out) {
  detail::move_rows(context, "scatter_rows", detail::row_count(rows), x, nullptr, out, rows.data());
}

/// out[to[i]] = x[from[i]]. Floor: as `gather_rows`.
template <class T>
inline void move_rows(Context const& context, View<T const> x, std::span<Row const> from, std::span<Row const> to, View<T> out) {
  detail::move_rows(context, "move_rows", detail::row_count(from), x, from.data(), out, to.data());
}

/// out[rows[i]] += x[i]; rows are distinct, so no two threads meet. Floor: two reads and one write of the rows.
template <class T>
inline void scatter_add_rows(Context const& context, View<T const> x, std::span<Row const> rows, View<T> out) {
  detail::add_rows(context, "scatter_add_rows", detail::row_count(rows), x, nullptr, nullptr, out, rows.data());
}

/// out[rows[i]] += scale[i] * x[rows[i]]; an empty `scale` means all ones. Floor: as `scatter_add_rows`.
template <class T>
inline void scale_add_rows(Context const& context, View<T const> x, std::span<float const> scale,
                           std::span<Row const> rows, View<T> out) {
  detail::add_rows(context, "scale_add_rows", detail::row_count(rows), x, rows.data(), detail::list_or_null(scale), out,
                   rows.data());
}

/// out[rows[i]] = 0. Floor: one write of the rows.
template <class T>
inline void zero_rows(Context const& context, std::span<Row const> rows, View<T> out) {
  if (rows.empty()) return;
  detail::fill_rows(context, "zero_rows", detail::row_count(rows), static_cast<T>(0.0F), out, rows.data());
}

/// out[i] = x[rows[i]] for single numbers.
inline void gather_values(Context const& context, std::span<float const> x, std::span<Row const> rows,
                          std::span<float> out) {
  detail::move_rows(context, "gather_values", detail::row_count(rows),
                    View<float const>(x.data(), static_cast<Index>(x.size()), 1), rows.data(),
                    View<float>(out.data(), static_cast<Index>(out.size()), 1), nullptr);
}

/// out[rows[i]] = values[i].
inline void scatter_values(Context const& context, std::span<float const> values, std::span<Row const> rows,
                           std::span<float> out) {
  detail::move_rows(context, "scatter_values", detail::row_count(rows),
                    View<float const>(values.data(), static_cast<Index>(values.size()), 1), nullptr,
                    View<float>(out.data(), static_cast<Index>(out.size()), 1), rows.data());
}

/// hidden[rows[i]] = scale[i] * y[i] + keep[i] * base[rows[i]], rounded once. Floor: two reads and one write of the
/// rows.
template <class T>
inline void combine(Context const& context, View<T const> y, std::span<float const> scale, std::span<float const> keep,
                    std::span<Row const> rows, View<T const> base, View<T> hidden) {
  constexpr int width = kPackSize<T>;
  bool const packed =
      detail::rows_in_packs<width>(y) && detail::rows_in_packs<width>(base) && detail::rows_in_packs<width>(hidden);
  detail::launch_map<width>(
      context, "combine", packed, detail::row_count(rows), y.cols,
      CombineOperation<T>{y, detail::list_or_null(scale), detail::list_or_null(keep), rows.data(), base, hidden});
}

namespace detail {
template <class T, int Width>
inline void launch_combine_backward(Context const& context, View<T const> d_hidden, View<T const> y, float const* scale,
                                    std::span<Row const> rows, View<T> d_y, float* d_scale) {
  Index const blocks = divide_up(d_y.rows, tuning::kMapThreads / kWarpSize);
  launch(context, "combine_backward", {dim3(static_cast<unsigned>(blocks)), tuning::kMapThreads, 0},
         combine_backward_kernel<T, Width>, d_hidden, y, scale, rows.data(), d_y, d_scale);
}
}  // namespace detail

/// d_y[i] = scale[i] * d_hidden[rows[i]] and, where `d_scale` is not empty, d_scale[i] = <d_hidden[rows[i]], y[i]> in
/// the same pass. Floor: two reads (one without `d_scale`) and one write of the rows.
template <class T>
inline void combine_backward(Context const& context, View<T const> d_hidden, View<T const> y,
                             std::span<float const> scale, std::span<Row const> rows, View<T> d_y,
                             std::span<float> d_scale) {
  constexpr int width = kPackSize<T>;
  if (rows.empty()) return;
  d_y.rows = detail::row_count(rows);
  float const* const factors = detail::list_or_null(scale);
  bool const packed =
      detail::rows_in_packs<width>(d_hidden) && detail::rows_in_packs<width>(d_y) && d_y.cols % width == 0;
  if (d_scale.empty()) {
    detail::launch_map<width>(context, "combine_backward", packed, d_y.rows, d_y.cols,
                              ScaledGatherOperation<T>{d_hidden, factors, rows.data(), d_y});
  } else if (packed && detail::rows_in_packs<width>(y)) {
    detail::launch_combine_backward<T, width>(context, d_hidden, y, factors, rows, d_y, d_scale.data());
  } else {
    detail::launch_combine_backward<T, 1>(context, d_hidden, y, factors, rows, d_y, d_scale.data());
  }
}

}  // namespace mor::cuda
