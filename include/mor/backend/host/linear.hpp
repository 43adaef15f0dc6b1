// SPDX-License-Identifier: Apache-2.0
/// @file
/// Dense layers and router logits on the host: every verb of `BackendLinear`.
#pragma once

#include "mor/backend/host/context.hpp"
#include "mor/backend/host/gemm.hpp"
#include "mor/backend/host/parallel.hpp"
#include "mor/backend/host/vector_math.hpp"
#include "mor/core/view.hpp"

namespace mor::host {

/// out = addend + scale * x w^T, weights [out, in]; an `addend` without data is zero.
template <class T>
inline void linear(Context context, View<T const> x, View<T const> weights, T scale, View<T const> addend, View<T> out) {
  multiply(context, operand(x), operand(weights).transposed(), x.cols, Target<T>{out, addend, scale});
}

/// d_x = d_out w, added to what is there when `accumulate`.
template <class T>
inline void linear_backward_input(Context context, View<T const> d_out, View<T const> weights, T scale, bool accumulate,
                                  View<T> d_x) {
  View<T const> const addend = accumulate ? View<T const>(d_x) : View<T const>{};
  multiply(context, operand(d_out), operand(weights), d_out.cols, Target<T>{d_x, addend, scale});
}

/// d_w += scale * d_out^T x.
template <class T>
inline void linear_backward_weight(Context context, View<T const> d_out, View<T const> x, T scale, View<T> d_weights) {
  multiply(context, operand(d_out).transposed(), operand(x), d_out.rows, Target<T>{d_weights, d_weights, scale});
}

/// out = scale * x w^T for a router. With a handful of columns a dot product per element beats a padded tile.
template <class T>
inline void linear_logits(Context context, View<T const> x, View<T const> weights, T scale, View<T> out) {
  if (weights.rows > 4) return linear(context, x, weights, scale, View<T const>{}, out);
  parallel_rows(context.threads, x.rows, x.cols * weights.rows, [&](Index i) {
    for (Index j = 0; j < weights.rows; ++j) out(i, j) = scale * dot(x.cols, x.row(i), weights.row(j));
  });
}

/// d_x += scale * d_out w (unless d_x is empty) and d_w += scale * d_out^T x.
template <class T>
inline void linear_logits_backward(Context context, View<T const> d_out, View<T const> x, View<T const> weights, T scale,
                                   View<T> d_x, View<T> d_weights) {
  linear_backward_weight(context, d_out, x, scale, d_weights);
  if (d_x.empty()) return;
  if (weights.rows > 4) return linear_backward_input(context, d_out, weights, scale, true, d_x);
  parallel_rows(context.threads, d_out.rows, x.cols * weights.rows, [&](Index i) {
    T* const row = d_x.row(i);
    for (Index j = 0; j < weights.rows; ++j) {
      Pack<T> const factor(scale * d_out(i, j));
      auto const add = [&](Pack<T> sum, Pack<T> weight) { return multiply_add(factor, weight, sum); };
      map(d_x.cols, add, row, static_cast<T const*>(row), weights.row(j));
    }
  });
}

}  // namespace mor::host
