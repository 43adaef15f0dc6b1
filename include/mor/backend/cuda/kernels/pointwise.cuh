// SPDX-License-Identifier: Apache-2.0
/// @file
/// Gated and plain activations as maps over packs.
#pragma once

#include "mor/backend/cuda/kernels/elementwise.cuh"
#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"
#include "mor/math/activation.hpp"

#include <type_traits>

namespace mor::cuda {

/// 1 / (1 + e^-x) to the accuracy that values stored as T deserve. e^-x may become infinity: the result is then 0.
template <class T>
__device__ __forceinline__ float sigmoid_of(float x) {
  if constexpr (std::is_same_v<T, float>) {
    return __fdividef(1.0F, 1.0F + expf(-x));
  } else {
    return __fdividef(1.0F, 1.0F + __expf(-x));
  }
}

/// out = silu(gate) * up.
template <class T>
struct SwigluOperation {
  static constexpr int kLoads = 2;
  struct Place {
    T const* gate;
    T const* up;
    T* to;
  };
  template <int N>
  struct Registers {
    RawPack<T, N> gate, up;
  };
  View<T const> gate, up;
  View<T> out;

  void note_to(auto& log) const { log.note(gate, up, out); }

  __device__ __forceinline__ Place find(Index i, Index col) const {
    return {gate.row(i) + col, up.row(i) + col, out.row(i) + col};
  }
  template <int N>
  __device__ __forceinline__ Registers<N> load(Place const& at) const {
    return {load_raw<N>(at.gate), load_raw<N>(at.up)};
  }
  template <int N>
  __device__ __forceinline__ void store(Place const& at, Registers<N> const& now) const {
    auto const g = widen(now.gate);
    auto u = widen(now.up);
#pragma unroll
    for (int e = 0; e < N; ++e) u.value[e] *= g.value[e] * sigmoid_of<T>(g.value[e]);
    store_lanes(at.to, u.value);
  }
};

/// d_gate = d_out * up * silu'(gate), d_up = d_out * silu(gate); with `Again` also out = silu(gate) * up, as SwigluOperation
/// computes it. A thread stores where it has loaded, so outputs may be inputs.
template <class T, bool Again>
struct SwigluBackwardOperation {
  static constexpr int kLoads = 2;
  struct Place {
    T const* gradient;
    T const* gate;
    T const* up;
    T* to_gate;
    T* to_up;
    T* to_out;
  };
  template <int N>
  struct Registers {
    RawPack<T, N> gradient, gate, up;
  };
  View<T const> d_out, gate, up;
  View<T> d_gate, d_up, out;

  void note_to(auto& log) const { log.note(d_out, gate, up, d_gate, d_up, out); }

  __device__ __forceinline__ Place find(Index i, Index col) const {
    return {d_out.row(i) + col, gate.row(i) + col, up.row(i) + col, d_gate.row(i) + col, d_up.row(i) + col,
            Again ? out.row(i) + col : nullptr};
  }
  template <int N>
  __device__ __forceinline__ Registers<N> load(Place const& at) const {
    return {load_raw<N>(at.gradient), load_raw<N>(at.gate), load_raw<N>(at.up)};
  }
  template <int N>
  __device__ __forceinline__ void store(Place const& at, Registers<N> const& now) const {
    auto d = widen(now.gradient), g = widen(now.gate), u = widen(now.up);
#pragma unroll
    for (int e = 0; e < N; ++e) {
      float const s = sigmoid_of<T>(g.value[e]), silu = g.value[e] * s;
      float const value = u.value[e] * silu;
      float const slope = fmaf(silu, 1.0F - s, s);  // s (1 + g (1 - s))
      g.value[e] = d.value[e] * u.value[e] * slope;
      u.value[e] = d.value[e] * silu;
      if constexpr (Again) d.value[e] = value;
    }
    store_lanes(at.to_gate, g.value);
    store_lanes(at.to_up, u.value);
    if constexpr (Again) store_lanes(at.to_out, d.value);
  }
};

/// out = gelu(scale * x).
template <class T>
struct GeluOperation {
  static constexpr int kLoads = 2;
  struct Place {
    T const* from;
    T* to;
  };
  template <int N>
  struct Registers {
    RawPack<T, N> value;
  };
  View<T const> x;
  float scale;
  View<T> out;

  void note_to(auto& log) const { log.note(x, scale, out); }

  __device__ __forceinline__ Place find(Index i, Index col) const { return {x.row(i) + col, out.row(i) + col}; }
  template <int N>
  __device__ __forceinline__ Registers<N> load(Place const& at) const {
    return {load_raw<N>(at.from)};
  }
  template <int N>
  __device__ __forceinline__ void store(Place const& at, Registers<N> const& now) const {
    auto value = widen(now.value);
#pragma unroll
    for (int e = 0; e < N; ++e) value.value[e] = math::gelu(value.value[e] * scale);
    store_lanes(at.to, value.value);
  }
};

/// d_x = d_out * scale * gelu'(scale * x).
template <class T>
struct GeluBackwardOperation {
  static constexpr int kLoads = 2;
  struct Place {
    T const* gradient;
    T const* from;
    T* to;
  };
  template <int N>
  struct Registers {
    RawPack<T, N> gradient, value;
  };
  View<T const> d_out, x;
  float scale;
  View<T> d_x;

  void note_to(auto& log) const { log.note(d_out, x, scale, d_x); }

  __device__ __forceinline__ Place find(Index i, Index col) const {
    return {d_out.row(i) + col, x.row(i) + col, d_x.row(i) + col};
  }
  template <int N>
  __device__ __forceinline__ Registers<N> load(Place const& at) const {
    return {load_raw<N>(at.gradient), load_raw<N>(at.from)};
  }
  template <int N>
  __device__ __forceinline__ void store(Place const& at, Registers<N> const& now) const {
    auto const d = widen(now.gradient);
    auto value = widen(now.value);
#pragma unroll
    for (int e = 0; e < N; ++e) value.value[e] = d.value[e] * scale * math::gelu_derivative(value.value[e] * scale);
    store_lanes(at.to, value.value);
  }
};

}  // namespace mor::cuda
