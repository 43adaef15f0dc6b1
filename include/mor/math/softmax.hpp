// SPDX-License-Identifier: Apache-2.0
/// @file
/// The online softmax: a running maximum and a running sum that can be merged in any grouping (Milakov and
/// Gimelshein, "Online normalizer calculation for softmax", 2018).
#pragma once

#include "mor/core/types.hpp"

#include <cmath>
#include <limits>

namespace mor::math {

/// Summary of a part of a row of scores: their maximum, and the sum of exp(score - maximum).
template <class T>
struct SoftmaxState {
  T maximum = -std::numeric_limits<T>::infinity();
  T sum = T(0);
};

/// exp(from - to), the factor that moves a sum from one maximum to a larger one. An empty part (both -infinity) gives
/// 0, where the plain formula gives NaN.
template <class T>
[[nodiscard]] MOR_HOST_DEVICE inline T softmax_rescale(T from, T to) {
  using std::exp;
  return from == -std::numeric_limits<T>::infinity() ? T(0) : exp(from - to);
}

/// The summary of two parts together.
template <class T>
[[nodiscard]] MOR_HOST_DEVICE inline SoftmaxState<T> merge(SoftmaxState<T> a, SoftmaxState<T> b) {
  T const maximum = a.maximum < b.maximum ? b.maximum : a.maximum;
  return {maximum, a.sum * softmax_rescale(a.maximum, maximum) + b.sum * softmax_rescale(b.maximum, maximum)};
}

/// log sum exp of the scores; -infinity for an empty part.
template <class T>
[[nodiscard]] MOR_HOST_DEVICE inline T log_sum_exp(SoftmaxState<T> state) {
  using std::log;
  return state.sum == T(0) ? -std::numeric_limits<T>::infinity() : state.maximum + log(state.sum);
}

}  // namespace mor::math
