// SPDX-License-Identifier: Apache-2.0
/// @file
/// Language-model head and cross-entropy on the host. Logits exist for one group of rows at a time.
#pragma once

#include "mor/backend/host/context.hpp"
#include "mor/backend/host/linear.hpp"
#include "mor/backend/host/parallel.hpp"
#include "mor/backend/host/rows.hpp"
#include "mor/backend/host/vector_math.hpp"
#include "mor/core/view.hpp"

#include <algorithm>
#include <cmath>
#include <span>

namespace mor::host {

namespace detail {

/// Rows of logits held at a time: about 4 MB of them, but enough rows that reading the weights pays, and a number that
/// depends on the vocabulary only.
template <class T>
[[nodiscard]] inline Index head_rows(Index rows, Index vocabulary) {
  Index const room = (Index{4} << 20) / static_cast<Index>(sizeof(T));
  return std::min(rows, std::max<Index>(room / std::max<Index>(vocabulary, 1), 96));
}

/// -log softmax(logits)[target]; leaves exp(logit - maximum) in `logits` and their sum in `total`. A token that has no
/// target costs nothing.
template <class T>
inline T row_loss(Index vocabulary, Token target, T* logits, T& total) {
  T const highest = maximum(vocabulary, static_cast<T const*>(logits));
  T const wanted = target < 0 ? T(0) : logits[target];
  total = exp_and_sum(vocabulary, highest, logits);
  return target < 0 ? T(0) : std::log(total) + (highest - wanted);
}

}  // namespace detail

/// losses[i] = -log softmax(x w^T)[i, targets[i]], 0 where targets[i] < 0.
template <class T>
inline void head_loss(Context context, View<T const> x, View<T const> weights, std::span<Token const> targets,
                      std::span<T> losses) {
  Index const group = detail::head_rows<T>(x.rows, weights.rows);
  Scratch scratch(context);
  View<T> const logits(scratch.take<T>(group * weights.rows), group, weights.rows);
  for (Index first = 0; first < x.rows; first += group) {
    Index const count = std::min(group, x.rows - first);
    linear(context, x.row_range(first, count), weights, T(1), View<T const>{}, logits.row_range(0, count));
    parallel_rows(context.threads, count, weights.rows, [&](Index i) {
      auto const at = static_cast<std::size_t>(first + i);
      T total;
      losses[at] = detail::row_loss(weights.rows, targets[at], logits.row(i), total);
    });
  }
}

/// The same losses, and the gradients of weight * sum(losses): overwrites d_x, accumulates d_weights.
template <class T>
inline void head_loss_backward(Context context, View<T const> x, View<T const> weights, std::span<Token const> targets,
                               T weight, std::span<T> losses, View<T> d_x, View<T> d_weights) {
  Index const group = detail::head_rows<T>(x.rows, weights.rows);
  Scratch scratch(context);
  View<T> const logits(scratch.take<T>(group * weights.rows), group, weights.rows);
  for (Index first = 0; first < x.rows; first += group) {
    Index const count = std::min(group, x.rows - first);
    View<T const> const rows = x.row_range(first, count);
    View<T> const part = logits.row_range(0, count);
    linear(context, rows, weights, T(1), View<T const>{}, part);
    parallel_rows(context.threads, count, weights.rows, [&](Index i) {
      auto const at = static_cast<std::size_t>(first + i);
      T* const row = part.row(i);
      T total;
      losses[at] = detail::row_loss(weights.rows, targets[at], row, total);
      if (targets[at] < 0) {
        std::fill(row, row + weights.rows, T(0));
        return;
      }
      Pack<T> const factor(weight / total);
      map(weights.rows, [&](Pack<T> e) { return e * factor; }, row, static_cast<T const*>(row));
      row[targets[at]] -= weight;
    });
    linear_backward_input(context, View<T const>(part), weights, T(1), false, d_x.row_range(first, count));
    linear_backward_weight(context, View<T const>(part), rows, T(1), d_weights);
  }
}

}  // namespace mor::host
