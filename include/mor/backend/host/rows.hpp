// SPDX-License-Identifier: Apache-2.0
/// @file
/// Moving rows between a batch and an active set on the host: every verb of `BackendRows`, and fill, copy and add.
#pragma once

#include "mor/backend/host/context.hpp"
#include "mor/backend/host/parallel.hpp"
#include "mor/backend/host/vector_math.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <algorithm>
#include <span>

namespace mor::host {

namespace detail {
[[nodiscard]] inline Index length(auto const& span) { return static_cast<Index>(span.size()); }

/// The i-th of a list of factors, where an empty list means all ones.
template <class T>
[[nodiscard]] inline T factor_at(std::span<T const> factors, Index i) {
  return factors.empty() ? T(1) : factors[static_cast<std::size_t>(i)];
}
template <class Integer>
[[nodiscard]] inline Index index_at(std::span<Integer const> indices, Index i) {
  return static_cast<Index>(indices[static_cast<std::size_t>(i)]);
}
}  // namespace detail

template <class T>
inline void fill(Context context, View<T> out, T value) {
  parallel_rows(context.threads, out.rows, out.cols, [&](Index i) { std::fill(out.row(i), out.row(i) + out.cols, value); });
}

template <class T>
inline void copy(Context context, View<T const> x, View<T> out) {
  parallel_rows(context.threads, out.rows, out.cols, [&](Index i) { std::copy(x.row(i), x.row(i) + x.cols, out.row(i)); });
}

template <class T>
inline void add_row(Index count, T const* x, T* out) {
  map(count, [](Pack<T> a, Pack<T> b) { return a + b; }, out, static_cast<T const*>(out), x);
}

template <class T>
inline void add(Context context, View<T const> x, View<T> out) {
  parallel_rows(context.threads, out.rows, out.cols, [&](Index i) { add_row(x.cols, x.row(i), out.row(i)); });
}

/// out[i] = x[indices[i]]; indices may repeat (embedding).
template <class T, class Integer>
inline void gather_rows(Context context, View<T const> x, std::span<Integer const> indices, View<T> out) {
  parallel_rows(context.threads, detail::length(indices), x.cols, [&](Index i) {
    T const* const source = x.row(detail::index_at(indices, i));
    std::copy(source, source + x.cols, out.row(i));
  });
}

/// out[to[i]] = x[from[i]]; rows of `to` are distinct.
template <class T>
inline void move_rows(Context context, View<T const> x, std::span<Row const> from, std::span<Row const> to, View<T> out) {
  parallel_rows(context.threads, detail::length(from), x.cols, [&](Index i) {
    T const* const source = x.row(detail::index_at(from, i));
    std::copy(source, source + x.cols, out.row(detail::index_at(to, i)));
  });
}

/// d_table[tokens[i]] += d_out[i]. Tokens repeat: each thread takes a part of the columns and all rows in order, so the
/// order of every sum is fixed.
template <class T>
inline void embed_backward(Context context, std::span<Token const> tokens, View<T const> d_out, View<T> d_table) {
  Index const unit = 64 / static_cast<Index>(sizeof(T));  // columns of one cache line
  Index const lines = divide_up(d_out.cols, unit);
  Index const grain = detail::length(tokens) * d_out.cols < 16384 ? lines : 1;
  parallel_ranges(context.threads, lines, grain, [&](Index begin, Index end) {
    Index const first = begin * unit;
    Index const count = std::min(end * unit, d_out.cols) - first;
    for (Index i = 0; i < detail::length(tokens); ++i) {
      add_row(count, d_out.row(i) + first, d_table.row(detail::index_at(tokens, i)) + first);
    }
  });
}

template <class T>
inline void scatter_rows(Context context, View<T const> x, std::span<Row const> rows, View<T> out) {
  parallel_rows(context.threads, detail::length(rows), x.cols, [&](Index i) {
    std::copy(x.row(i), x.row(i) + x.cols, out.row(detail::index_at(rows, i)));
  });
}

template <class T>
inline void scatter_add_rows(Context context, View<T const> x, std::span<Row const> rows, View<T> out) {
  parallel_rows(context.threads, detail::length(rows), x.cols, [&](Index i) {
    add_row(x.cols, x.row(i), out.row(detail::index_at(rows, i)));
  });
}

template <class T>
inline void zero_rows(Context context, std::span<Row const> rows, View<T> out) {
  parallel_rows(context.threads, detail::length(rows), out.cols, [&](Index i) {
    T* const row = out.row(detail::index_at(rows, i));
    std::fill(row, row + out.cols, T(0));
  });
}

/// hidden[rows[i]] = scale[i] * y[i] + keep[i] * base[rows[i]]; `base` may be `hidden`.
template <class T>
inline void combine(Context context, View<T const> y, std::span<T const> scale, std::span<T const> keep,
                    std::span<Row const> rows, View<T const> base, View<T> hidden) {
  parallel_rows(context.threads, detail::length(rows), y.cols, [&](Index i) {
    Index const row = detail::index_at(rows, i);
    Pack<T> const factor(detail::factor_at(scale, i)), kept(detail::factor_at(keep, i));
    auto const blend = [&](Pack<T> update, Pack<T> old) { return multiply_add(factor, update, kept * old); };
    map(y.cols, blend, hidden.row(row), y.row(i), base.row(row));
  });
}

/// d_y[i] = scale[i] * d_hidden[rows[i]]; d_scale[i] = <d_hidden[rows[i]], y[i]> unless it is empty.
template <class T>
inline void combine_backward(Context context, View<T const> d_hidden, View<T const> y, std::span<T const> scale,
                             std::span<Row const> rows, View<T> d_y, std::span<T> d_scale) {
  parallel_rows(context.threads, detail::length(rows), d_hidden.cols, [&](Index i) {
    T const* const gradient = d_hidden.row(detail::index_at(rows, i));
    if (!d_scale.empty()) d_scale[static_cast<std::size_t>(i)] = dot(d_hidden.cols, gradient, y.row(i));
    Pack<T> const factor(detail::factor_at(scale, i));
    map(d_hidden.cols, [&](Pack<T> g) { return factor * g; }, d_y.row(i), gradient);
  });
}

/// out[rows[i]] += scale[i] * x[rows[i]].
template <class T>
inline void scale_add_rows(Context context, View<T const> x, std::span<T const> scale, std::span<Row const> rows,
                           View<T> out) {
  parallel_rows(context.threads, detail::length(rows), x.cols, [&](Index i) {
    Index const row = detail::index_at(rows, i);
    Pack<T> const factor(detail::factor_at(scale, i));
    auto const blend = [&](Pack<T> sum, Pack<T> value) { return multiply_add(factor, value, sum); };
    map(x.cols, blend, out.row(row), static_cast<T const*>(out.row(row)), x.row(row));
  });
}

}  // namespace mor::host
