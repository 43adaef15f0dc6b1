// SPDX-License-Identifier: Apache-2.0
/// @file
/// Sampling of the next tokens on the host.
#pragma once

#include "mor/backend/host/context.hpp"
#include "mor/backend/host/parallel.hpp"
#include "mor/core/sampling.hpp"
#include "mor/core/view.hpp"
#include "mor/math/sample_row.hpp"

#include <algorithm>
#include <span>

namespace mor::host {

/// Scratch: a row of values and a row of ids for each thread that has work.
template <class T>
inline void sample(Context context, View<T const> logits, std::span<SamplingRule const> rules,
                   std::span<Token const> history, std::span<Token> tokens, std::span<T> log_probabilities) {
  if (logits.empty()) return;
  auto const vocabulary = static_cast<std::size_t>(logits.cols);
  Index const rooms = std::min<Index>(context.threads, logits.rows);
  Scratch scratch(context);
  T* const values = scratch.take<T>(rooms * logits.cols);
  Token* const order = scratch.take<Token>(rooms * logits.cols);
  parallel_items(context.threads, logits.rows, [&](Index row, int thread) {
    auto const i = static_cast<std::size_t>(row);
    Index const room = Index{thread} * logits.cols;
    auto const sampled = math::sample_row<T>({logits.row(row), vocabulary}, rules[i], history,
                                             {{values + room, vocabulary}, {order + room, vocabulary}});
    tokens[i] = sampled.token;
    log_probabilities[i] = static_cast<T>(sampled.log_probability);
  });
}

}  // namespace mor::host
