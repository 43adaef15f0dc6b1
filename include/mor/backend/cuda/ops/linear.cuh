// SPDX-License-Identifier: Apache-2.0
/// @file
/// Dense layers: the verbs of `BackendLinear` but for router logits. A row-major [rows, cols] matrix is a column-major
/// [cols, rows] one, so every product below is the transposed one: out^T = w x^T.
#pragma once

#include "mor/backend/cuda/ops/blas.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/core/view.hpp"

namespace mor::cuda {

namespace detail {

/// d^T = alpha * op(a) op(b) + c with row-major operands; `c` without data adds nothing.
template <class T, class Out>
inline void multiply(Context const& context, char const* verb, View<T const> a, bool transpose_a, View<T const> b,
                     bool transpose_b, Index k, float alpha, View<Out const> c, View<Out> d) {
  if (d.empty()) return;
  GemmProblem problem;
  problem.m = d.cols;
  problem.n = d.rows;
  problem.k = k;
  problem.transpose_a = transpose_a;
  problem.transpose_b = transpose_b;
  problem.a = describe(a);
  problem.b = describe(b);
  problem.d = describe(View<Out const>(d));
  problem.add_c = c.data != nullptr;
  problem.c_is_d = c.data == nullptr || c.data == d.data;
  problem.c = problem.c_is_d ? problem.d : describe(c);
  GemmOperands operands;
  operands.a = a.data;
  operands.b = b.data;
  if (!problem.c_is_d) operands.c = c.data;
  operands.d = d.data;
  context.blas->multiply(context, verb, problem, alpha, operands);
}

}  // namespace detail

/// out = scale * x w^T; Out is T, or float for logits of bf16 weights. 2 N O I FLOPs.
template <class T, class Out>
inline void linear(Context const& context, View<T const> x, View<T const> weights, float scale, View<Out> out) {
  detail::multiply<T, Out>(context, "linear", weights, true, x, false, x.cols, scale, {}, out);
}

/// out = residual + x w^T; the addition costs no pass of its own.
template <class T>
inline void linear_residual(Context const& context, View<T const> x, View<T const> weights, View<T const> residual,
                            View<T> out) {
  detail::multiply<T, T>(context, "linear_residual", weights, true, x, false, x.cols, 1.0F, residual, out);
}

/// d_x (+)= d_out w.
template <class T>
inline void linear_backward_input(Context const& context, View<T const> d_out, View<T const> weights, bool accumulate,
                                  View<T> d_x) {
  View<T const> const before = accumulate ? View<T const>(d_x) : View<T const>{};
  detail::multiply<T, T>(context, "linear_backward_input", weights, false, d_out, false, d_out.cols, 1.0F, before, d_x);
}

/// d_w += d_out^T x, in float: a shared weight's gradient is a sum over recursions and micro-batches.
template <class T>
inline void linear_backward_weight(Context const& context, View<T const> d_out, View<T const> x, View<float> d_weights) {
  if (x.rows == 0) return;
  detail::multiply<T, float>(context, "linear_backward_weight", x, false, d_out, true, d_out.rows, 1.0F, d_weights,
                             d_weights);
}

}  // namespace mor::cuda
