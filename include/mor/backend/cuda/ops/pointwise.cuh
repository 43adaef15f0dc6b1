// SPDX-License-Identifier: Apache-2.0
/// @file
/// Gated and plain activations.
#pragma once

#include "mor/backend/cuda/kernels/elementwise.cuh"
#include "mor/backend/cuda/kernels/pointwise.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/elementwise.cuh"
#include "mor/core/view.hpp"

namespace mor::cuda {

namespace detail {
template <int Width, class... Views>
[[nodiscard]] inline bool all_in_packs(Views... views) {
  return (... && rows_in_packs<Width>(views));
}
}  // namespace detail

/// out = silu(gate) * up. Floor: three matrices of out's size, two read and one written.
template <class T>
inline void swiglu(Context const& context, View<T const> gate_up, View<T> out) {
  constexpr int width = kPackSize<T>;
  View<T const> const gate = gate_up.columns(0, out.cols), up = gate_up.columns(out.cols, out.cols);
  detail::launch_map<width>(context, "swiglu", detail::all_in_packs<width>(gate, up, out), out.rows, out.cols,
                            SwigluOperation<T>{gate, up, out});
}

/// Both gradients in one pass. Floor: five matrices of d_out's size, three read and two written; with `out` six.
template <class T>
inline void swiglu_backward(Context const& context, View<T const> d_out, View<T const> gate_up, View<T> d_gate_up, View<T> out) {
  constexpr int width = kPackSize<T>;
  Index const size = d_out.cols;
  View<T const> const gate = gate_up.columns(0, size), up = gate_up.columns(size, size);
  View<T> const d_gate = d_gate_up.columns(0, size), d_up = d_gate_up.columns(size, size);
  bool const packed = detail::all_in_packs<width>(d_out, gate, up, d_gate, d_up);
  if (out.empty()) {
    detail::launch_map<width>(context, "swiglu_backward", packed, d_out.rows, size,
                              SwigluBackwardOperation<T, false>{d_out, gate, up, d_gate, d_up, out});
  } else {
    detail::launch_map<width>(context, "swiglu_backward", packed && detail::all_in_packs<width>(out), d_out.rows, size,
                              SwigluBackwardOperation<T, true>{d_out, gate, up, d_gate, d_up, out});
  }
}

/// out = gelu(scale * x), the exact GELU. Floor: one read and one write.
template <class T>
inline void gelu(Context const& context, View<T const> x, double scale, View<T> out) {
  constexpr int width = kPackSize<T>;
  if (x.contiguous() && out.contiguous()) x = detail::as_one_row(x), out = detail::as_one_row(out);
  detail::launch_map<width>(context, "gelu", detail::all_in_packs<width>(x, out), x.rows, x.cols,
                            GeluOperation<T>{x, static_cast<float>(scale), out});
}

/// d_x = d_out * scale * gelu'(scale * x). Floor: two reads and one write.
template <class T>
inline void gelu_backward(Context const& context, View<T const> d_out, View<T const> x, double scale, View<T> d_x) {
  constexpr int width = kPackSize<T>;
  if (d_out.contiguous() && x.contiguous() && d_x.contiguous()) {
    d_out = detail::as_one_row(d_out), x = detail::as_one_row(x), d_x = detail::as_one_row(d_x);
  }
  detail::launch_map<width>(context, "gelu_backward", detail::all_in_packs<width>(d_out, x, d_x), x.rows, x.cols,
                            GeluBackwardOperation<T>{d_out, x, static_cast<float>(scale), d_x});
}

}  // namespace mor::cuda
