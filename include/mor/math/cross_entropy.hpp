// SPDX-License-Identifier: Apache-2.0
/// @file
/// Binary cross-entropy on logits in the form that neither overflows nor cancels.
#pragma once

#include "mor/core/types.hpp"
#include "mor/math/activation.hpp"

#include <cmath>

namespace mor::math {

/// -t log sigmoid(z) - (1 - t) log(1 - sigmoid(z)) = max(z, 0) - z t + log(1 + e^-|z|).
template <class T>
[[nodiscard]] MOR_HOST_DEVICE inline T bce_with_logits(T logit, T target) {
  using std::exp;
  using std::log1p;
  T const positive = logit > T(0) ? logit : T(0);
  T const magnitude = logit > T(0) ? logit : -logit;
  return positive - logit * target + log1p(exp(-magnitude));
}

/// Its derivative by the logit, sigmoid(z) - t.
template <class T>
[[nodiscard]] MOR_HOST_DEVICE inline T bce_with_logits_derivative(T logit, T target) {
  return sigmoid(logit) - target;
}

}  // namespace mor::math
