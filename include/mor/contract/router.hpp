// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a router is: the policy that decides which tokens enter each recursion and how a recursion's output is joined
/// to the residual stream. Derive from `RouterBase` and write `select`; override the rest where needed
/// (docs/adding_a_router.md).
#pragma once

#include "mor/contract/backend.hpp"
#include "mor/core/batch.hpp"
#include "mor/core/config.hpp"
#include "mor/core/parameter_views.hpp"

#include <concepts>
#include <span>
#include <string>
#include <vector>

namespace mor {

/// Opt-in mark: `using policy_kind = mor::router_tag;`.
struct router_tag {};

/// When the number of recursions of a token is known; a serving engine plans by it.
enum class Horizon {
  PreLoop,   ///< before the first recursion (token choice)
  AtEntry,   ///< at the entry of each recursion (expert choice)
  PostStep,  ///< after each recursion (exit gates)
  Request    ///< fixed for the whole request (no routing)
};

/// How checkpoint tensors of the layers are named (mor-spec section 11).
enum class LayerNaming {
  Unrolled,           ///< model.layers.{unrolled layer}.
  BlockPerRecursion,  ///< model.layers.{prelude + recursion}.block.{inner layer}.
  BlockList           ///< model.layers.{prelude}.block_list.{recursion}.{inner layer}.
};

/// Where a router adds what it measures, in one array of Real that is zeroed before each micro-batch.
struct StatisticsLayout {
  Index num_recursions = 1;
  [[nodiscard]] Index aux(Index step) const { return 2 * step; }          ///< mean BCE; the next entry: correct predictions
  [[nodiscard]] Index z(Index step) const { return 2 * num_recursions + step; }
  [[nodiscard]] Index balance() const { return 3 * num_recursions; }      ///< loss; then the load of each depth
  [[nodiscard]] Index load(Index depth) const { return 3 * num_recursions + 1 + depth; }
  [[nodiscard]] Index size() const { return 4 * num_recursions + 1; }
};

/// What the model gives a router in each call.
template <class B>
struct RouterContext {
  using Scalar = typename B::scalar_type;
  using Real = typename B::real_type;

  B& backend;
  TransformerConfig const& transformer;
  RecursionConfig const& recursion;
  ParameterViews<Scalar, Real> parameters;
  RoutingMode mode = RoutingMode::TopK;
  bool training = false;      ///< keep what the backward pass needs; add losses
  TrainingProgress progress;
  double loss_weight = 1.0;   ///< factor on every router loss of this micro-batch
  ActiveSet<Real> batch;      ///< every row of the call
  View<Scalar> hidden;        ///< [rows, D] the residual stream; `combine` updates it
  View<Scalar> d_hidden;      ///< [rows, D] its gradient, in the backward pass
  std::span<Real> statistics; ///< StatisticsLayout::size() entries

  [[nodiscard]] StatisticsLayout statistics_layout() const { return {recursion.num_recursions}; }
};

/// Names of a router's tensors: `prefix[step]` is what stands before `mor_router.` in recursion `step`.
struct RouterNames {
  std::vector<std::string> prefix;
};

/// Neutral defaults: no parameters, no losses; `combine` adds gate * output where the set has a gate and replaces the
/// rows where it has none. A router that updates the stream in place must give its sets a gate, even of ones: the model
/// then keeps a copy of the block's input.
struct RouterBase {
  using policy_kind = router_tag;
  static constexpr Horizon horizon = Horizon::AtEntry;
  static constexpr LayerNaming naming = LayerNaming::BlockPerRecursion;
  static constexpr bool routes = true;  ///< false: every token takes every recursion

  template <class B>
  struct State {};

  /// Adds the router's parameters to the layout and remembers their indices in the state.
  template <class B, class S>
  void declare(S&, ModelConfig const&, RouterNames const&, ParameterLayout&) const {}

  /// Called once before the first recursion.
  template <class B, class S>
  void begin(RouterContext<B>&, S&) const {}

  /// Joins the block's output `y` [active rows, D] to `context.hidden`.
  template <class B, class S>
  void combine(RouterContext<B>& context, S&, Index /*step*/, ActiveSet<typename B::real_type> const& active,
               View<typename B::scalar_type> y) const {
    if (!active.gate.empty()) {
      context.backend.combine(y, active.gate, {}, active.rows, context.hidden, context.hidden);
    } else if (active.everything) {
      context.hidden = y;
    } else {
      context.backend.scatter_rows(y, active.rows, context.hidden);
    }
  }

  /// Called once before the backward passes of the recursions, which run from the last to the first.
  template <class B, class S>
  void prepare_backward(RouterContext<B>&, S&) const {}

  /// Gradient of `combine`: returns the gradient of y and leaves in `context.d_hidden` what bypasses the block.
  template <class B, class S>
  View<typename B::scalar_type> combine_backward(RouterContext<B>& context, S&, Index /*step*/,
                                                 ActiveSet<typename B::real_type> const& active,
                                                 View<typename B::scalar_type const> y) const {
    if (active.gate.empty() && active.everything) return context.d_hidden;
    auto d_y = context.backend.arena().template matrix<typename B::scalar_type>(active.num_rows, y.cols);
    context.backend.combine_backward(context.d_hidden, y, active.gate, active.rows, d_y, {});
    return d_y;
  }

  /// Gradient of the gather before the block: joins `d_x`, the gradient of the block's input, to `context.d_hidden`.
  template <class B, class S>
  void select_backward(RouterContext<B>& context, S&, Index /*step*/, ActiveSet<typename B::real_type> const& active,
                       View<typename B::scalar_type> d_x) const {
    if (!active.gate.empty()) {
      context.backend.scatter_add_rows(d_x, active.rows, context.d_hidden);
    } else if (!active.everything) {
      context.backend.scatter_rows(d_x, active.rows, context.d_hidden);
    }
  }

  /// Gradient of `begin`, after the first recursion's.
  template <class B, class S>
  void begin_backward(RouterContext<B>&, S&) const {}
};

template <class R>
concept RouterIsTagged = std::same_as<typename R::policy_kind, router_tag>;

template <class R>
concept RouterHasTraits = requires {
  { R::horizon } -> std::convertible_to<Horizon>;
  { R::naming } -> std::convertible_to<LayerNaming>;
  { R::routes } -> std::convertible_to<bool>;
};

template <class R, class B>
concept RouterHasState = requires { typename R::template State<B>; };

template <class R, class B>
concept RouterDeclaresParameters = requires(R const router, typename R::template State<B>& state, ModelConfig const& config,
                                            RouterNames const& names, ParameterLayout& layout) {
  router.template declare<B>(state, config, names, layout);
};

/// `select(context, state, step, candidates)` returns the rows that enter recursion `step`, a subset of the candidates
/// (those of the recursion before), ascending, decided in each sequence on its own.
template <class R, class B>
concept RouterSelects = requires(R const router, RouterContext<B>& context, typename R::template State<B>& state, Index step,
                                 ActiveSet<typename B::real_type> const& set) {
  { router.select(context, state, step, set) } -> std::same_as<ActiveSet<typename B::real_type>>;
};

template <class R, class B>
concept RouterCombines = requires(R const router, RouterContext<B>& context, typename R::template State<B>& state, Index step,
                                  ActiveSet<typename B::real_type> const& set, View<typename B::scalar_type> y) {
  router.begin(context, state);
  router.combine(context, state, step, set, y);
};

template <class R, class B>
concept RouterHasBackward = requires(R const router, RouterContext<B>& context, typename R::template State<B>& state, Index step,
                                     ActiveSet<typename B::real_type> const& set, View<typename B::scalar_type> y) {
  router.prepare_backward(context, state);
  { router.combine_backward(context, state, step, set, y) } -> std::same_as<View<typename B::scalar_type>>;
  router.select_backward(context, state, step, set, y);
  router.begin_backward(context, state);
};

/// A router that runs on backend B.
template <class R, class B>
concept RouterOn = RouterIsTagged<R> && RouterHasTraits<R> && RouterHasState<R, B> && RouterDeclaresParameters<R, B> &&
                   RouterSelects<R, B> && RouterCombines<R, B> && RouterHasBackward<R, B>;

}  // namespace mor
