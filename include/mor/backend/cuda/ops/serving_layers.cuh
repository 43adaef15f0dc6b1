// SPDX-License-Identifier: Apache-2.0
/// @file
/// The compound verbs of `ServingLayers`, and the choice of the kernels that multiply rows: those for few rows, or
/// cuBLASLt with what comes before and after it as kernels of their own.
#pragma once

#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/few_rows.cuh"
#include "mor/backend/cuda/ops/linear.cuh"
#include "mor/backend/cuda/ops/logits.cuh"
#include "mor/backend/cuda/ops/norm.cuh"
#include "mor/backend/cuda/ops/pointwise.cuh"
#include "mor/backend/cuda/ops/rope.cuh"
#include "mor/backend/cuda/tuning/serving.hpp"
#include "mor/core/active_set.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <span>

namespace mor::cuda {

/// When the kernels for few rows multiply. With them the bits of a row do not depend on the number of rows.
struct FewRowsChoice {
  bool serving = false;        ///< also in the verbs that training calls
  bool row_invariant = false;  ///< whatever the number of rows

  /// In the verbs that only serving calls.
  [[nodiscard]] bool takes(Index rows) const { return row_invariant || rows <= tuning::kServingFewRows; }
  /// In the verbs that training calls too, whose bits and speed stay what they are unless the backend serves.
  [[nodiscard]] bool takes_in_training(Index rows) const {
    return row_invariant || (serving && rows <= tuning::kServingFewRows);
  }
};

namespace detail {
/// rms_norm(x) in scratch memory.
template <class T>
[[nodiscard]] inline View<T const> normed(Context const& context, Scratch& scratch, View<T const> x,
                                          std::span<T const> weights, double eps) {
  View<T> const out(scratch.take<T>(x.size()), x.rows, x.cols);
  float* const rstd = scratch.take<float>(x.rows);
  rms_norm(context, x, weights, eps, out, std::span<float>(rstd, static_cast<std::size_t>(x.rows)));
  return out;
}
}  // namespace detail

/// Floor: the weights once.
template <class Arch, class T>
inline void norm_linear(Context const& context, FewRowsChoice const& few, View<T const> x,
                        std::span<T const> norm_weights, double eps, View<T const> weights, View<T> out) {
  if (few.takes(x.rows)) return few_rows_norm_linear<Arch>(context, x, norm_weights, eps, weights, out);
  Scratch scratch(context);
  linear<T, T>(context, detail::normed(context, scratch, x, norm_weights, eps), weights, 1.0F, out);
}

/// Floor: the weights once.
template <class Arch, class T>
inline void norm_logits(Context const& context, FewRowsChoice const& few, View<T const> x,
                        std::span<T const> norm_weights, double eps, View<T const> weights, std::span<Row const> count,
                        View<float> out) {
  if (few.takes(x.rows)) return few_rows_norm_linear<Arch>(context, x, norm_weights, eps, weights, out, count.data());
  Scratch scratch(context);
  linear_logits(context, detail::normed(context, scratch, x, norm_weights, eps), weights, 1.0, out);
}

/// Floor: the weights once.
template <class Arch, class T>
inline void norm_swiglu(Context const& context, FewRowsChoice const& few, View<T const> x,
                        std::span<T const> norm_weights, double eps, View<T const> gate_up_weights, View<T> out) {
  if (few.takes(x.rows)) return few_rows_norm_swiglu<Arch>(context, x, norm_weights, eps, gate_up_weights, out);
  Scratch scratch(context);
  View<T> const gate_up(scratch.take<T>(x.rows * gate_up_weights.rows), x.rows, gate_up_weights.rows);
  linear<T, T>(context, detail::normed(context, scratch, x, norm_weights, eps), gate_up_weights, 1.0F, gate_up);
  swiglu(context, View<T const>(gate_up), out);
}

/// Floor: the weights once.
template <class Arch, class T>
inline void project_keys(Context const& context, FewRowsChoice const& few, View<T const> x,
                         std::span<T const> norm_weights, double eps, View<T const> qkv_weights,
                         std::span<Row const> positions, Index head_dim, double theta, KeyList const& write, View<T> q,
                         View<T> plane_k, View<T> plane_v) {
  if (few.takes(x.rows)) {
    return few_rows_project_keys<Arch>(context, x, norm_weights, eps, qkv_weights, positions, head_dim, theta, write, q,
                                       plane_k, plane_v);
  }
  Scratch scratch(context);
  View<T> const qkv(scratch.take<T>(x.rows * qkv_weights.rows), x.rows, qkv_weights.rows);
  linear<T, T>(context, detail::normed(context, scratch, x, norm_weights, eps), qkv_weights, 1.0F, qkv);
  rope_to_keys(context, positions, head_dim, theta, qkv, write, q, plane_k, plane_v);
}

/// `linear`, or the same of few rows.
template <class Arch, class T>
inline void served_linear(Context const& context, FewRowsChoice const& few, View<T const> x, View<T const> weights,
                          View<T> out) {
  if (few.takes_in_training(x.rows)) return few_rows_linear<Arch>(context, x, weights, 1.0F, out);
  linear<T, T>(context, x, weights, 1.0F, out);
}

/// `linear_residual`, or the same of few rows.
template <class Arch, class T>
inline void served_linear_residual(Context const& context, FewRowsChoice const& few, View<T const> x,
                                   View<T const> weights, View<T const> residual, View<T> out) {
  if (few.takes_in_training(x.rows)) return few_rows_linear_residual<Arch>(context, x, weights, residual, out);
  linear_residual(context, x, weights, residual, out);
}

/// `linear_logits`, or the same of few rows; a router's few columns have one kernel for any number of rows.
template <class Arch, class T>
inline void served_linear_logits(Context const& context, FewRowsChoice const& few, View<T const> x,
                                 View<T const> weights, double scale, View<float> out) {
  if (weights.rows > detail::kNarrowOutputs && few.takes_in_training(x.rows)) {
    return few_rows_linear<Arch>(context, x, weights, static_cast<float>(scale), out);
  }
  linear_logits(context, x, weights, scale, out);
}

}  // namespace mor::cuda
