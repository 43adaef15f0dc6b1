// SPDX-License-Identifier: Apache-2.0
/// @file
/// fill, copy and add; and how every map over rows is launched.
#pragma once

#include "mor/backend/cuda/kernels/elementwise.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/core/view.hpp"

#include <algorithm>
#include <cstdint>
#include <span>

namespace mor::cuda {

namespace detail {

/// Whether packs of `Width` elements can be read from every row: 16-byte accesses, and, unless there is only one row,
/// no rest behind the last pack.
template <int Width, class T>
[[nodiscard]] inline bool rows_in_packs(View<T> x) {
  constexpr Index step = 16 / static_cast<Index>(sizeof(T));
  return reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 &&
         (x.rows <= 1 || (x.stride % step == 0 && x.cols % Width == 0));
}

/// One launch over [rows, cols]: packs of `Width` elements, or single elements where `packed` is false.
template <int Width, class Operation>
inline void launch_map(Context const& context, char const* verb, bool packed, Index rows, Index cols,
                       Operation const& operation) {
  if (rows == 0 || cols == 0) return;
  PackGrid const grid(rows, cols, packed ? Width : 1);
  Index const blocks = std::max<Index>(divide_up(grid.packs, Index{tuning::kMapThreads} * Operation::kLoads), 1);
  LaunchShape const shape{dim3(static_cast<unsigned>(blocks)), tuning::kMapThreads, 0};
  if (packed) {
    launch(context, verb, shape, map_kernel<Width, Operation>, operation, grid);
  } else {
    launch(context, verb, shape, map_kernel<1, Operation>, operation, grid);
  }
}

/// The same elements as one row, for views without room between rows.
template <class T>
[[nodiscard]] inline View<T> as_one_row(View<T> x) {
  return {x.data, 1, x.size()};
}

/// The device address of a list, null where it is empty.
template <class T>
[[nodiscard]] inline T* list_or_null(std::span<T> list) {
  return list.empty() ? nullptr : list.data();
}

/// out[to[i]] = value for `count` rows.
template <class T>
inline void fill_rows(Context const& context, char const* verb, Index count, T value, View<T> out, Row const* to) {
  if (to == nullptr && out.contiguous()) out = as_one_row(out), count = 1;
  launch_map<kPackSize<T>>(context, verb, rows_in_packs<kPackSize<T>>(out), count, out.cols,
                           FillOperation<T>{value, out, to});
}

/// out[to[i]] += scale[i] * x[from[i]] for `count` rows.
template <class T>
inline void add_rows(Context const& context, char const* verb, Index count, View<T const> x, Row const* from,
                     float const* scale, View<T> out, Row const* to) {
  bool const packed = rows_in_packs<kPackSize<T>>(x) && rows_in_packs<kPackSize<T>>(out);
  launch_map<kPackSize<T>>(context, verb, packed, count, x.cols, AddOperation<T>{x, from, scale, out, to});
}

/// out[to[i]] = x[from[i]] for `count` rows.
template <class T>
inline void move_rows(Context const& context, char const* verb, Index count, View<T const> x, Row const* from,
                      View<T> out, Row const* to) {
  bool const packed = rows_in_packs<kPackSize<T>>(x) && rows_in_packs<kPackSize<T>>(out);
  launch_map<kPackSize<T>>(context, verb, packed, count, x.cols, MoveOperation<T>{x, from, out, to});
}

}  // namespace detail

/// out = value, rounded to T. Floor: the bytes of `out`, written once.
template <class T>
inline void fill(Context const& context, View<T> out, double value) {
  detail::fill_rows(context, "fill", out.rows, static_cast<T>(static_cast<float>(value)), out, nullptr);
}

/// out = value, a vector of integers.
inline void fill(Context const& context, std::span<Row> out, Row value) {
  detail::fill_rows(context, "fill", Index{1}, value, View<Row>(out.data(), 1, static_cast<Index>(out.size())),
                    nullptr);
}

/// out = x. Floor: one read and one write.
template <class T>
inline void copy(Context const& context, View<T const> x, View<T> out) {
  if (x.contiguous() && out.contiguous()) x = detail::as_one_row(x), out = detail::as_one_row(out);
  detail::move_rows(context, "copy", out.rows, x, nullptr, out, nullptr);
}

/// out += x. Floor: two reads and one write.
template <class T>
inline void add(Context const& context, View<T const> x, View<T> out) {
  if (x.contiguous() && out.contiguous()) x = detail::as_one_row(x), out = detail::as_one_row(out);
  detail::add_rows(context, "add", out.rows, x, nullptr, nullptr, out, nullptr);
}

}  // namespace mor::cuda
