// SPDX-License-Identifier: Apache-2.0
/// @file
/// Auxiliary losses of a router on the host, with their gradients.
#pragma once

#include "mor/backend/host/context.hpp"
#include "mor/backend/host/parallel.hpp"
#include "mor/backend/host/reduce.hpp"
#include "mor/backend/host/rows.hpp"
#include "mor/core/view.hpp"
#include "mor/math/cross_entropy.hpp"
#include "mor/math/softmax.hpp"

#include <algorithm>
#include <span>

namespace mor::host {

/// Binary cross-entropy of all logits, target 1 at `slots` and 0 elsewhere: statistics[0] += the mean, statistics[1] +=
/// the number of candidates on the right side of zero, d_logits += weight * the mean's gradient unless it is empty.
template <class T>
inline void router_bce(Context context, std::span<T const> logits, std::span<Row const> slots, T weight,
                       std::span<T> statistics, std::span<T> d_logits) {
  Index const count = detail::length(logits);
  if (count == 0) return;
  Scratch scratch(context);
  T* const targets = scratch.take<T>(count);
  std::fill(targets, targets + count, T(0));
  for (Row const slot : slots) targets[slot] = T(1);
  auto const logit = [&](Index i) { return logits[static_cast<std::size_t>(i)]; };
  double const loss =
      parallel_sum(context, count, [&](Index i) { return static_cast<double>(math::bce_with_logits(logit(i), targets[i])); });
  double const right =
      parallel_sum(context, count, [&](Index i) { return (logit(i) >= T(0)) == (targets[i] > T(0)) ? 1.0 : 0.0; });
  statistics[0] += static_cast<T>(loss / static_cast<double>(count));
  statistics[1] += static_cast<T>(right);
  if (d_logits.empty()) return;
  T const factor = weight / static_cast<T>(count);
  parallel_rows(context.threads, count, 32, [&](Index i) {
    d_logits[static_cast<std::size_t>(i)] += factor * math::bce_with_logits_derivative(logit(i), targets[i]);
  });
}

namespace detail {
/// log sum exp of one row of logits.
template <class T>
[[nodiscard]] inline T row_log_sum_exp(View<T const> logits, Index row) {
  math::SoftmaxState<T> state;
  for (Index j = 0; j < logits.cols; ++j) state = math::merge(state, math::SoftmaxState<T>{logits(row, j), T(1)});
  return math::log_sum_exp(state);
}
}  // namespace detail

/// statistics[0] += mean_i logsumexp(logits[i])^2; d_logits += weight * its gradient, 2 lse softmax / N, unless empty.
template <class T>
inline void z_loss(Context context, View<T const> logits, T weight, std::span<T> statistics, View<T> d_logits) {
  if (logits.empty()) return;
  Scratch scratch(context);
  T* const lse = scratch.take<T>(logits.rows);
  parallel_rows(context.threads, logits.rows, logits.cols * 64,
                [&](Index i) { lse[i] = detail::row_log_sum_exp(logits, i); });
  double const total = parallel_sum(context, logits.rows, [&](Index i) { return static_cast<double>(lse[i]) * lse[i]; });
  statistics[0] += static_cast<T>(total / static_cast<double>(logits.rows));
  if (d_logits.empty()) return;
  T const factor = T(2) * weight / static_cast<T>(logits.rows);
  parallel_rows(context.threads, logits.rows, logits.cols * 32, [&](Index i) {
    for (Index j = 0; j < logits.cols; ++j) d_logits(i, j) += factor * lse[i] * std::exp(logits(i, j) - lse[i]);
  });
}

}  // namespace mor::host
