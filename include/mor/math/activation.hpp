// SPDX-License-Identifier: Apache-2.0
/// @file
/// Activations and their derivatives, written once for scalars of the host and of a device. A vector type with the
/// usual operators and an `exp` that argument lookup finds may take the place of `T` where no comparison is needed.
#pragma once

#include "mor/core/config.hpp"
#include "mor/core/types.hpp"

#include <cmath>

namespace mor::math {

/// 1 / (1 + e^-x). Without overflow for every x: e^-x may become infinity, and the result is then 0.
template <class T>
[[nodiscard]] MOR_HOST_DEVICE inline T sigmoid(T x) {
  using std::exp;
  return T(1) / (T(1) + exp(-x));
}

/// x * sigmoid(x) ("swish").
template <class T>
[[nodiscard]] MOR_HOST_DEVICE inline T silu(T x) {
  return x * sigmoid(x);
}

/// d silu / dx = s (1 + x (1 - s)) with s = sigmoid(x).
template <class T>
[[nodiscard]] MOR_HOST_DEVICE inline T silu_derivative(T x) {
  T const s = sigmoid(x);
  return s * (T(1) + x * (T(1) - s));
}

/// Exact GELU, x Phi(x) with the normal distribution function Phi (not the tanh approximation).
template <class T>
[[nodiscard]] MOR_HOST_DEVICE inline T gelu(T x) {
  using std::erf;
  return T(0.5) * x * (T(1) + erf(x * T(0.70710678118654752440)));
}

/// d gelu / dx = Phi(x) + x phi(x).
template <class T>
[[nodiscard]] MOR_HOST_DEVICE inline T gelu_derivative(T x) {
  using std::erf;
  using std::exp;
  T const distribution = T(0.5) * (T(1) + erf(x * T(0.70710678118654752440)));
  T const density = T(0.39894228040143267794) * exp(T(-0.5) * x * x);
  return distribution + x * density;
}

/// A router's gate from one logit: alpha * sigmoid, alpha * tanh, or the logit itself (mor-spec 3.1). Softmax needs a
/// whole row of logits: callers refuse it before they come here.
template <class T>
[[nodiscard]] MOR_HOST_DEVICE inline T router_gate(RouterActivation activation, T alpha, T logit) {
  using std::tanh;
  if (activation == RouterActivation::Sigmoid) return alpha * sigmoid(logit);
  if (activation == RouterActivation::Tanh) return alpha * tanh(logit);
  return logit;
}

/// Derivative of `router_gate` by the logit.
template <class T>
[[nodiscard]] MOR_HOST_DEVICE inline T router_gate_derivative(RouterActivation activation, T alpha, T logit) {
  using std::tanh;
  if (activation == RouterActivation::Sigmoid) {
    T const s = sigmoid(logit);
    return alpha * s * (T(1) - s);
  }
  if (activation == RouterActivation::Tanh) {
    T const t = tanh(logit);
    return alpha * (T(1) - t * t);
  }
  return T(1);
}

}  // namespace mor::math
