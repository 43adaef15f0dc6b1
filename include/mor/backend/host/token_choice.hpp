// SPDX-License-Identifier: Apache-2.0
/// @file
/// Token-choice routing on the host: each token picks its own depth (mor-spec section 4).
#pragma once

#include "mor/backend/host/context.hpp"
#include "mor/backend/host/parallel.hpp"
#include "mor/backend/host/reduce.hpp"
#include "mor/backend/host/router_loss.hpp"
#include "mor/backend/host/rows.hpp"
#include "mor/core/config.hpp"
#include "mor/core/view.hpp"
#include "mor/math/activation.hpp"

#include <cmath>
#include <span>

namespace mor::host {

/// probabilities = alpha * softmax or activation of the logits; choice[i] = argmax_j (p_j + bias_j), the lowest j on a
/// tie and the last one when `full_depth`; gate[i] = p[choice[i]].
template <class T>
inline void token_choice(Context context, View<T const> logits, std::span<T const> bias, RouterActivation activation,
                         T alpha, bool full_depth, View<T> probabilities, std::span<T> choice, std::span<T> gate) {
  if (logits.cols == 0) return;
  parallel_rows(context.threads, logits.rows, logits.cols * 64, [&](Index i) {
    if (activation == RouterActivation::Softmax) {
      T const lse = detail::row_log_sum_exp(logits, i);
      for (Index j = 0; j < logits.cols; ++j) probabilities(i, j) = alpha * std::exp(logits(i, j) - lse);
    } else {
      for (Index j = 0; j < logits.cols; ++j) probabilities(i, j) = math::router_gate(activation, alpha, logits(i, j));
    }
    auto const biased = [&](Index j) {
      return probabilities(i, j) + (bias.empty() ? T(0) : bias[static_cast<std::size_t>(j)]);
    };
    Index best = full_depth ? logits.cols - 1 : 0;
    for (Index j = 1; !full_depth && j < logits.cols; ++j) best = biased(j) > biased(best) ? j : best;
    choice[static_cast<std::size_t>(i)] = static_cast<T>(best);
    gate[static_cast<std::size_t>(i)] = probabilities(i, best);
  });
}

namespace detail {
/// The derivative of alpha * act by its logit, from the value p. Where alpha is 0, so is the derivative.
template <class T>
[[nodiscard]] inline T gate_derivative_of_value(RouterActivation activation, T alpha, T p) {
  if (activation == RouterActivation::None) return T(1);
  if (alpha == T(0)) return T(0);
  return activation == RouterActivation::Tanh ? alpha - p * p / alpha : p * (T(1) - p / alpha);
}
}  // namespace detail

/// Accumulates d_logits from d_p = d_probabilities + d_gate at the choice; either gradient may be empty (zero).
template <class T>
inline void token_choice_backward(Context context, View<T const> probabilities, std::span<T const> choice,
                                  RouterActivation activation, T alpha, std::span<T const> d_gate,
                                  View<T const> d_probabilities, View<T> d_logits) {
  parallel_rows(context.threads, probabilities.rows, probabilities.cols * 16, [&](Index i) {
    auto const at = static_cast<std::size_t>(i);
    auto const gradient = [&](Index j) {
      T const outer = d_probabilities.empty() ? T(0) : d_probabilities(i, j);
      return !d_gate.empty() && static_cast<Index>(choice[at]) == j ? outer + d_gate[at] : outer;
    };
    T mean(0);
    if (activation == RouterActivation::Softmax && alpha != T(0)) {
      for (Index j = 0; j < probabilities.cols; ++j) mean += gradient(j) * probabilities(i, j);
      mean /= alpha;
    }
    for (Index j = 0; j < probabilities.cols; ++j) {
      T const p = probabilities(i, j);
      d_logits(i, j) += activation == RouterActivation::Softmax
                            ? p * (gradient(j) - mean)
                            : gradient(j) * detail::gate_derivative_of_value(activation, alpha, p);
    }
  });
}

/// The weights of `combine` for the active rows: a token whose choice is this step finishes here. keep[i] = 1 where it
/// finishes, else 0; scale[i] = gate where it finishes or `gate_intermediate`, else 1; always 1 when `additive`.
template <class T>
inline void token_choice_weights(std::span<T const> choice, std::span<T const> gate, std::span<Row const> rows, Index step,
                                 bool gate_intermediate, bool additive, std::span<T> scale, std::span<T> keep) {
  for (std::size_t i = 0; i < rows.size(); ++i) {
    auto const row = static_cast<std::size_t>(rows[i]);
    bool const finishes = static_cast<Index>(choice[row]) == step;
    keep[i] = finishes ? T(1) : T(0);
    scale[i] = !additive && (finishes || gate_intermediate) ? gate[row] : T(1);
  }
}

/// d_gate[rows[i]] += d_scale[i] where scale[i] was the gate.
template <class T>
inline void token_choice_weights_backward(std::span<T const> choice, std::span<Row const> rows, Index step,
                                          bool gate_intermediate, std::span<T const> d_scale, std::span<T> d_gate) {
  for (std::size_t i = 0; i < rows.size(); ++i) {
    auto const row = static_cast<std::size_t>(rows[i]);
    if (gate_intermediate || static_cast<Index>(choice[row]) == step) d_gate[row] += d_scale[i];
  }
}

/// statistics[0] += Nr * sum_j load_j mean(p_j), statistics[1 + j] += load_j; d_probabilities = weight * Nr load_j / N.
template <class T>
inline void balance_loss(Context context, View<T const> probabilities, std::span<T const> choice, T weight,
                         std::span<T> statistics, View<T> d_probabilities) {
  if (probabilities.empty()) return;
  auto const rows = static_cast<double>(probabilities.rows);
  auto const choices = static_cast<double>(probabilities.cols);
  for (Index j = 0; j < probabilities.cols; ++j) {
    double const chosen = parallel_sum(context, probabilities.rows, [&](Index i) {
      return static_cast<Index>(choice[static_cast<std::size_t>(i)]) == j ? 1.0 : 0.0;
    });
    double const total =
        parallel_sum(context, probabilities.rows, [&](Index i) { return static_cast<double>(probabilities(i, j)); });
    double const load = chosen / rows;
    statistics[0] += static_cast<T>(choices * load * total / rows);
    statistics[static_cast<std::size_t>(1 + j)] += static_cast<T>(load);
    if (d_probabilities.empty()) continue;
    T const gradient = static_cast<T>(static_cast<double>(weight) * choices * load / rows);
    for (Index i = 0; i < probabilities.rows; ++i) d_probabilities(i, j) = gradient;
  }
}

}  // namespace mor::host
