// SPDX-License-Identifier: Apache-2.0
/// @file
/// Root-mean-square normalisation (Zhang and Sennrich, 2019) on the host.
#pragma once

#include "mor/backend/host/context.hpp"
#include "mor/backend/host/parallel.hpp"
#include "mor/backend/host/rows.hpp"
#include "mor/backend/host/vector_math.hpp"
#include "mor/core/view.hpp"

#include <algorithm>
#include <cmath>
#include <span>

namespace mor::host {

/// out = x * rstd * w with rstd[i] = 1 / sqrt(mean_j x[i, j]^2 + eps).
template <class T>
inline void rms_norm(Context context, View<T const> x, std::span<T const> weights, double eps, View<T> out,
                     std::span<T> rstd) {
  parallel_rows(context.threads, x.rows, x.cols, [&](Index i) {
    T const mean = dot(x.cols, x.row(i), x.row(i)) / static_cast<T>(x.cols);
    T const inverse = T(1) / std::sqrt(mean + static_cast<T>(eps));
    rstd[static_cast<std::size_t>(i)] = inverse;
    Pack<T> const factor(inverse);
    map(x.cols, [&](Pack<T> value, Pack<T> weight) { return (value * factor) * weight; }, out.row(i), x.row(i),
        weights.data());
  });
}

namespace detail {
/// d_x of one row, and the row's part of d_w. With n = x rstd and g = d_out * w:
/// d_x += rstd (g - n mean(g n)), d_w += d_out n.
template <class T>
inline void rms_norm_backward_row(Index cols, T const* d_out, T const* x, T const* weights, T rstd, T* d_x, T* d_w) {
  auto const product = [](Pack<T> g, Pack<T> w, Pack<T> value) { return g * w * value; };
  T const mean = map_sum(cols, product, d_out, weights, x) * rstd / static_cast<T>(cols);
  Pack<T> const inverse(rstd), coefficient(mean);
  auto const input = [&](Pack<T> sum, Pack<T> g, Pack<T> w, Pack<T> value) {
    return sum + inverse * (g * w - value * inverse * coefficient);
  };
  map(cols, input, d_x, static_cast<T const*>(d_x), d_out, weights, x);
  auto const weight = [&](Pack<T> sum, Pack<T> g, Pack<T> value) { return sum + g * (value * inverse); };
  map(cols, weight, d_w, static_cast<T const*>(d_w), d_out, x);
}
}  // namespace detail

/// Accumulates d_x and d_w. d_w is summed over groups of rows of a fixed size, then over the groups in order, so it
/// does not depend on the number of threads.
template <class T>
inline void rms_norm_backward(Context context, View<T const> d_out, View<T const> x, std::span<T const> weights,
                              std::span<T const> rstd, View<T> d_x, std::span<T> d_w) {
  if (x.empty()) return;
  Index const group = 64;
  Index const groups = divide_up(x.rows, group);
  Index const stride = round_up(x.cols, 64);
  Scratch scratch(context);
  T* const partial = scratch.take<T>(groups * stride);
  parallel_ranges(context.threads, groups, 16384 / (group * x.cols) + 1, [&](Index begin, Index end) {
    for (Index part = begin; part < end; ++part) {
      T* const sum = partial + part * stride;
      std::fill(sum, sum + x.cols, T(0));
      for (Index i = part * group; i < std::min((part + 1) * group, x.rows); ++i) {
        detail::rms_norm_backward_row(x.cols, d_out.row(i), x.row(i), weights.data(), rstd[static_cast<std::size_t>(i)],
                                      d_x.row(i), sum);
      }
    }
  });
  for (Index part = 0; part < groups; ++part) add_row(x.cols, static_cast<T const*>(partial + part * stride), d_w.data());
}

}  // namespace mor::host
