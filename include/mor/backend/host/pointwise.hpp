// SPDX-License-Identifier: Apache-2.0
/// @file
/// Gated and plain activations on the host.
#pragma once

#include "mor/backend/host/context.hpp"
#include "mor/backend/host/parallel.hpp"
#include "mor/backend/host/vector_math.hpp"
#include "mor/core/view.hpp"
#include "mor/math/activation.hpp"

namespace mor::host {

/// out = silu(gate) * up, with gate_up [N, 2F] holding the gate first.
template <class T>
inline void swiglu(Context context, View<T const> gate_up, View<T> out) {
  parallel_rows(context.threads, out.rows, out.cols, [&](Index i) {
    T const* const gate = gate_up.row(i);
    map(out.cols, [](Pack<T> g, Pack<T> u) { return math::silu(g) * u; }, out.row(i), gate, gate + out.cols);
  });
}

/// d_gate = d_out * up * silu'(gate), d_up = d_out * silu(gate); and swiglu once more, where `out` is not empty.
template <class T>
inline void swiglu_backward(Context context, View<T const> d_out, View<T const> gate_up, View<T> d_gate_up, View<T> out) {
  Index const width = d_out.cols;
  parallel_rows(context.threads, d_out.rows, width, [&](Index i) {
    T const* const gate = gate_up.row(i);
    T const* const up = gate + width;
    T const* const gradient = d_out.row(i);
    T* const d_gate = d_gate_up.row(i);
    T* const again = out.empty() ? nullptr : out.row(i);
    auto const one = [&](Pack<T> g, Pack<T> u, Pack<T> d, Pack<T>& to_up, Pack<T>& value) {
      Pack<T> const s = math::sigmoid(g);
      to_up = d * g * s;
      value = g * s * u;
      return d * u * s * (Pack<T>(T(1)) + g * (Pack<T>(T(1)) - s));
    };
    Index j = 0;
    Pack<T> to_up, value;
    for (; j + Pack<T>::size <= width; j += Pack<T>::size) {
      store(d_gate + j, one(load(gate + j), load(up + j), load(gradient + j), to_up, value));
      store(d_gate + width + j, to_up);
      if (again != nullptr) store(again + j, value);
    }
    if (j < width) {
      Index const rest = width - j;
      store_partial(d_gate + j, rest, one(load_partial(gate + j, rest), load_partial(up + j, rest),
                                          load_partial(gradient + j, rest), to_up, value));
      store_partial(d_gate + width + j, rest, to_up);
      if (again != nullptr) store_partial(again + j, rest, value);
    }
  });
}

/// out = gelu(scale * x).
template <class T>
inline void gelu(Context context, View<T const> x, T scale, View<T> out) {
  parallel_rows(context.threads, x.rows, x.cols * 8, [&](Index i) {
    map(x.cols, [&](Pack<T> value) { return math::gelu(value * Pack<T>(scale)); }, out.row(i), x.row(i));
  });
}

/// d_x = d_out * scale * gelu'(scale * x).
template <class T>
inline void gelu_backward(Context context, View<T const> d_out, View<T const> x, T scale, View<T> d_x) {
  Pack<T> const factor(scale);
  parallel_rows(context.threads, x.rows, x.cols * 8, [&](Index i) {
    auto const chain = [&](Pack<T> g, Pack<T> value) { return g * factor * math::gelu_derivative(value * factor); };
    map(x.cols, chain, d_x.row(i), d_out.row(i), x.row(i));
  });
}

}  // namespace mor::host
