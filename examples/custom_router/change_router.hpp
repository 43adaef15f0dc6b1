// SPDX-License-Identifier: Apache-2.0
/// @file
/// A router from outside the library, in one header: tokens whose representation is still changing go round again.
///
/// After each recursion the direction of a token's residual stream is compared with the direction before it. Tokens
/// that turned most go on; one that hardly turned has settled and leaves. The score is not learned, so the router has
/// no parameters and no loss, and its backward pass is that of `mor::RouterBase`.
#pragma once

#include "mor/backend/trace/backend.hpp"
#include "mor/contract/router.hpp"
#include "mor/core/capacity.hpp"
#include "mor/policy/select_rows.hpp"

#include <algorithm>
#include <vector>

namespace acme {

class ChangeRouter : public mor::RouterBase {
 public:
  /// @param recursion  capacities: how many tokens enter each recursion in training
  /// @param settled    cosine between the directions before and after a recursion from which on a token has settled; it
  ///                   decides in causal inference, where tokens cannot be compared with later ones
  explicit ChangeRouter(mor::RecursionConfig recursion, double settled = 0.95)
      : recursion_(std::move(recursion)), settled_(settled) {}

  template <class B>
  struct State {
    mor::View<typename B::scalar_type> directions;  ///< of the rows that entered the recursion before, unit mean square
    std::vector<std::vector<mor::Row>> offsets;     ///< [Nr][sequences + 1] of each recursion's set, in host memory
  };

  template <class B, class S>
  mor::ActiveSet<typename B::real_type> select(mor::RouterContext<B>& context, S& state, mor::Index step,
                                               mor::ActiveSet<typename B::real_type> const& candidates) const {
    auto const now = directions(context, candidates, 1.0);
    if (step == 0) {
      state.offsets.resize(static_cast<std::size_t>(recursion_.num_recursions));
      state.directions = now;
      return mor::keep_all(context, candidates);
    }
    auto active = choose(context, state, step, candidates);
    state.directions = context.backend.arena().template matrix<typename B::scalar_type>(active.num_rows, now.cols);
    context.backend.gather_rows(now, active.slots, state.directions);
    return active;
  }

 private:
  /// Each candidate's row of the residual stream, scaled to a mean square of one and multiplied by `sign`.
  template <class B>
  static mor::View<typename B::scalar_type> directions(mor::RouterContext<B>& context,
                                                       mor::ActiveSet<typename B::real_type> const& candidates,
                                                       double sign) {
    using Scalar = typename B::scalar_type;
    B& b = context.backend;
    auto const rows = mor::gather_hidden(context, candidates);
    auto const weight = b.arena().template matrix<Scalar>(1, rows.cols);
    b.fill(weight, sign);
    auto const out = b.arena().template matrix<Scalar>(rows.rows, rows.cols);
    auto const scratch = b.arena().template allocate<typename B::real_type>(rows.rows);
    b.rms_norm(rows, {weight.data, static_cast<std::size_t>(weight.cols)}, context.transformer.rms_norm_eps, out,
               scratch);
    return out;
  }

  template <class B, class S>
  mor::ActiveSet<typename B::real_type> choose(mor::RouterContext<B>& context, S& state, mor::Index step,
                                               mor::ActiveSet<typename B::real_type> const& candidates) const {
    using Real = typename B::real_type;
    if (!context.training && context.mode == mor::RoutingMode::FullDepth) return mor::keep_all(context, candidates);
    B& b = context.backend;
    auto const width = static_cast<double>(context.hidden.cols);
    // The score is minus width times the cosine. Products of rows are what `combine_backward` gives the gate.
    auto const opposite = directions(context, candidates, -1.0);
    auto const scratch = b.arena().template matrix<typename B::scalar_type>(opposite.rows, opposite.cols);
    auto const scores = b.arena().template allocate<Real>(candidates.num_rows);
    auto const all = context.batch.rows.first(static_cast<std::size_t>(candidates.num_rows));  // 0, 1, 2, ...
    b.combine_backward(state.directions, opposite, {}, all, scratch, scores);

    auto& offsets = state.offsets[static_cast<std::size_t>(step)];
    if (!context.training && context.mode != mor::RoutingMode::TopK) {
      return mor::keep_at_least(context, std::span<Real const>(scores), -settled_ * width, candidates, offsets);
    }
    offsets.assign(static_cast<std::size_t>(candidates.num_sequences) + 1, 0);
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
      mor::Index const length = context.batch.host_offsets[s + 1] - context.batch.host_offsets[s];
      mor::Index const available = candidates.host_offsets[s + 1] - candidates.host_offsets[s];
      offsets[s + 1] = static_cast<mor::Row>(std::min(mor::kept_tokens(recursion_, step, length), available));
    }
    return mor::keep_top_k(context, std::span<Real const>(scores), candidates, offsets);
  }

  mor::RecursionConfig recursion_;
  double settled_;
};

// A mistake shows here, next to the class, and not in the depths of a model. The trace backend is the cheapest to ask.
static_assert(mor::RouterOn<ChangeRouter, mor::trace::Backend<float, float>>);

}  // namespace acme
