// SPDX-License-Identifier: Apache-2.0
/// @file
/// `ExpertChoice`: at the entry of each recursion a router scores the tokens still active and the best k of each
/// sequence go on; their update is x + g F(x) (mor-spec section 3, arXiv 2507.10524 equation 1).
#pragma once

#include "mor/contract/serving_router.hpp"
#include "mor/core/capacity.hpp"
#include "mor/core/philox.hpp"
#include "mor/policy/router_network.hpp"
#include "mor/policy/select_rows.hpp"

#include <optional>
#include <type_traits>
#include <vector>

namespace mor {

/// @tparam Network  the scoring network; see `ConfiguredNetwork` in policy/router_network.hpp for what it provides
template <class Network = ConfiguredNetwork>
class ExpertChoice : public RouterBase {
 public:
  static constexpr RouterKind kind = RouterKind::ExpertChoice;
  static constexpr Horizon horizon = Horizon::AtEntry;
  static constexpr LayerNaming naming = LayerNaming::BlockPerRecursion;

  ExpertChoice() = default;
  explicit ExpertChoice(RecursionConfig const& recursion) : options_(recursion) {}

  template <class B>
  struct State {
    using Real = typename B::real_type;
    struct Step {
      typename Network::Weights router, aux;
      typename Network::template Activations<B> saved, aux_saved;
      View<Real> logits, d_logits;          // (candidates, 1)
      View<Real> aux_logits, d_aux_logits;  // (candidates, 1)
      std::span<Real> d_gate;               // (active)
      std::span<Row const> candidate_rows;  // (candidates)
      std::vector<Row> offsets;             // (sequences + 1) of the active set, in host memory
    };
    std::vector<Step> steps;
  };

  template <class B>
  void declare(State<B>& state, ModelConfig const& config, RouterNames const& names, ParameterLayout& layout) const {
    if (options_.activation() == RouterActivation::Softmax) {
      fail(ErrorCode::InvalidConfig, "a softmax over one logit is constant", "ExpertChoice, router_activation",
           "sigmoid, tanh or none", "softmax");
    }
    state.steps.resize(static_cast<std::size_t>(options_.num_recursions));
    if (options_.random_router) return;
    for (std::size_t r = 0; r < state.steps.size(); ++r) {
      auto& step = state.steps[r];
      step.router = Network::declare(config, names.prefix[r] + "mor_router", 1, ParameterGroup::Main, layout);
      if (has_aux_router()) {
        step.aux = Network::declare(config, names.prefix[r] + "mlp_router", 1, ParameterGroup::AuxRouter, layout);
      }
    }
  }

  template <class B, class S>
  ActiveSet<typename B::real_type> select(RouterContext<B>& context, S& state, Index step,
                                          ActiveSet<typename B::real_type> const& candidates) const {
    using Real = typename B::real_type;
    B& b = context.backend;
    auto& now = state.steps[static_cast<std::size_t>(step)];
    now.candidate_rows = candidates.rows;
    now.logits = b.arena().template matrix<Real>(candidates.num_rows, 1);
    if (options_.random_router) {
      // Training draws anew in every call; inference depends on the position alone, so that decode repeats prefill.
      auto const call = context.training ? static_cast<std::uint64_t>(context.progress.forward_calls) : 0;
      b.random_scores(stream_key(context.progress.seed, static_cast<std::uint64_t>(step)), call, candidates.positions,
                      now.logits);
    } else {
      auto const input = gather_hidden(context, candidates);
      now.saved = Network::forward(context, now.router, input, now.logits);
      if (has_aux_router() && (context.training || context.mode == RoutingMode::AuxRouter)) {
        now.aux_logits = b.arena().template matrix<Real>(candidates.num_rows, 1);
        now.aux_saved = Network::forward(context, now.aux, input, now.aux_logits);
      }
    }
    ActiveSet<Real> active = choose(context, now, step, candidates);
    active.gate = b.arena().template allocate<Real>(active.num_rows);
    if (options_.gating == Gating::Weighted) {
      b.router_gate(values(now.logits), active.slots, gate_activation(), gate_scale(), active.gate);
    } else {
      b.fill(View<Real>(active.gate.data(), active.num_rows, 1), 1.0);
    }
    if (context.training && !options_.random_router) add_losses(context, now, step, active);
    return active;
  }

  template <class B, class S>
  void combine(RouterContext<B>& context, S&, Index, ActiveSet<typename B::real_type> const& active,
               View<typename B::scalar_type> y) const {
    context.backend.combine(y, active.gate, {}, active.rows, context.hidden, context.hidden);
  }

  template <class B, class S>
  View<typename B::scalar_type> combine_backward(RouterContext<B>& context, S& state, Index step,
                                                 ActiveSet<typename B::real_type> const& active,
                                                 View<typename B::scalar_type const> y) const {
    B& b = context.backend;
    auto& now = state.steps[static_cast<std::size_t>(step)];
    bool const gate_learns = options_.gating == Gating::Weighted && !options_.random_router;
    now.d_gate = {};
    if (gate_learns) now.d_gate = b.arena().template allocate<typename B::real_type>(active.num_rows);
    auto d_y = b.arena().template matrix<typename B::scalar_type>(active.num_rows, y.cols);
    b.combine_backward(context.d_hidden, y, active.gate, active.rows, d_y, now.d_gate);
    return d_y;
  }

  template <class B, class S>
  void select_backward(RouterContext<B>& context, S& state, Index step,
                       ActiveSet<typename B::real_type> const& active, View<typename B::scalar_type> d_x) const {
    using Scalar = typename B::scalar_type;
    B& b = context.backend;
    b.scatter_add_rows(d_x, active.rows, context.d_hidden);
    if (options_.random_router) return;
    auto& now = state.steps[static_cast<std::size_t>(step)];
    if (!now.d_gate.empty()) {
      b.router_gate_backward(values(now.logits), active.slots, gate_activation(), gate_scale(), now.d_gate,
                             values(now.d_logits));
    }
    auto const mark = b.arena().mark();
    auto d_input = b.arena().template matrix<Scalar>(now.saved.input.rows, now.saved.input.cols);
    b.fill(d_input, 0.0);
    Network::backward(context, now.router, now.saved, now.d_logits, d_input);
    b.scatter_add_rows(d_input, now.candidate_rows, context.d_hidden);
    if (has_aux_router()) {
      Network::backward(context, now.aux, now.aux_saved, now.d_aux_logits, View<Scalar>{});  // input is detached
    }
    b.arena().release(mark);
  }

  static constexpr bool keeps_entry = false;

  /// The gate of the first recursion, which every token takes.
  template <class B, class S>
  void serve_enter(RouterContext<B>& context, S& state, ServingRows const& rows, std::span<Row const> order,
                   View<typename B::scalar_type> x, ServingBank<B> const& bank) const {
    using Real = typename B::real_type;
    if constexpr (FusesExpertChoice<B> && std::is_same_v<Network, ConfiguredNetwork>) {
      if (fused_step(context, state)) return;  // the first step finds it
    }
    if (options_.gating != Gating::Weighted) {
      auto const ones = context.backend.arena().template allocate<Real>(x.rows);
      context.backend.fill_values(1.0, ones);
      context.backend.scatter_values(ones, rows.cells, bank.gate);
      return;
    }
    auto const logits = context.backend.arena().template matrix<Real>(x.rows, 1);
    Network::forward(context, state.steps.front().router, x, logits);
    keep_gate<B>(context, values(logits), rows, order, bank);
  }

  /// x + g F(x), and the next recursion's logit of each row by that recursion's router.
  template <class B, class S>
  void serve_step(RouterContext<B>& context, S& state, ServingRows const& rows, std::span<Row const> order,
                  View<typename B::scalar_type const> y, ServingBank<B> const& bank,
                  std::span<typename B::real_type> scores) const {
    using Real = typename B::real_type;
    B& b = context.backend;
    bool const aux = context.mode == RoutingMode::AuxRouter;
    if (aux && !has_aux_router()) {
      fail(ErrorCode::InvalidArgument, "this model has no auxiliary router", "ExpertChoice, routing mode",
           "threshold or full_depth", "aux_router");
    }
    if constexpr (FusesExpertChoice<B> && std::is_same_v<Network, ConfiguredNetwork>) {
      if (auto const step = fused_step(context, state)) {
        return b.expert_step(*step, y, rows.cells, rows.depths, bank.hidden, bank.gate, scores);
      }
    }
    auto const gate = b.arena().template allocate<Real>(y.rows);
    b.gather_values(bank.gate, rows.cells, gate);
    b.combine(y, gate, {}, rows.cells, bank.hidden, bank.hidden);
    if (options_.num_recursions == 1) return b.fill_values(0.0, scores);
    auto const x = b.arena().template matrix<typename B::scalar_type>(y.rows, y.cols);
    b.gather_rows(bank.hidden, rows.cells, x);
    next_logits(context, state, rows, x, false, scores);
    if (options_.gating == Gating::Weighted) keep_gate<B>(context, scores, rows, order, bank);
    if (aux) next_logits(context, state, rows, x, true, scores);
  }

 private:
  /// scores[i] = logit of the recursion after depths[i].
  template <class B, class S>
  void next_logits(RouterContext<B>& context, S& state, ServingRows const& rows, View<typename B::scalar_type> x, bool aux,
                   std::span<typename B::real_type> scores) const {
    auto const mark = context.backend.arena().mark();
    auto const logits = context.backend.arena().template matrix<typename B::real_type>(x.rows, options_.num_recursions - 1);
    for (Index step = 1; step < options_.num_recursions; ++step) {
      auto const& now = state.steps[static_cast<std::size_t>(step)];
      Network::forward(context, aux ? now.aux : now.router, x, logits.columns(step - 1, 1));
    }
    context.backend.pick_columns(logits, rows.depths, 0, scores);
    context.backend.arena().release(mark);
  }

  /// The step in one pass, where every router is a vector.
  template <class B, class S>
  std::optional<ExpertStep<typename B::scalar_type>> fused_step(RouterContext<B>& context, S const& state) const {
    ExpertStep<typename B::scalar_type> step;
    bool const aux = context.mode == RoutingMode::AuxRouter && has_aux_router();
    Index const next = options_.num_recursions - 1;  // recursions that a row may take after its first one
    if (options_.router_network != RouterNetwork::Linear || next > step.routers.kMost) return {};
    for (Index r = 0; r < next; ++r) {
      auto const at = static_cast<std::size_t>(r);
      auto const& now = state.steps[at + 1];
      step.routers.vectors[at] = context.parameters.weight(now.router.first).data;
      if (aux) step.deciders.vectors[at] = context.parameters.weight(now.aux.first).data;
    }
    step.routers.count = next;
    step.deciders.count = aux ? next : 0;
    step.scale = 1.0 / context.recursion.temperature;
    step.activation = gate_activation();
    step.alpha = gate_scale();
    step.weighted = options_.gating == Gating::Weighted;
    if (step.weighted) step.entry = context.parameters.weight(state.steps.front().router.first).data;
    return step;
  }

  template <class B>
  void keep_gate(RouterContext<B>& context, std::span<typename B::real_type const> logits, ServingRows const& rows,
                 std::span<Row const> order, ServingBank<B> const& bank) const {
    auto const gate = context.backend.arena().template allocate<typename B::real_type>(static_cast<Index>(logits.size()));
    context.backend.router_gate(logits, order.first(logits.size()), gate_activation(), gate_scale(), gate);
    context.backend.scatter_values(gate, rows.cells, bank.gate);
  }

  [[nodiscard]] bool has_aux_router() const {
    return options_.sampling == RouterSampling::AuxRouter && !options_.random_router;
  }
  [[nodiscard]] RouterActivation gate_activation() const {
    return options_.random_router ? RouterActivation::None : options_.activation();
  }
  /// `none` has no scale (its gate is the logit), but the random control has: g = alpha U(0, 1).
  [[nodiscard]] double gate_scale() const {
    return !options_.random_router && options_.activation() == RouterActivation::None ? 1.0 : options_.gate_scale();
  }

  /// The rule of mor-spec 3.6 that `context.mode` names.
  template <class B, class Step>
  ActiveSet<typename B::real_type> choose(RouterContext<B>& context, Step& now, Index step,
                                          ActiveSet<typename B::real_type> const& candidates) const {
    using Real = typename B::real_type;
    bool const top_k = context.training || context.mode == RoutingMode::TopK;
    if (!top_k && (step == 0 || context.mode == RoutingMode::FullDepth)) return keep_all(context, candidates);
    std::span<Real const> const scores = values(now.logits);
    now.offsets.resize(static_cast<std::size_t>(candidates.num_sequences) + 1);
    if (top_k) {
      for (std::size_t s = 0; s + 1 < now.offsets.size(); ++s) {
        Index const length = context.batch.host_offsets[s + 1] - context.batch.host_offsets[s];
        Index const kept = context.training ? kept_tokens(options_, step, length, context.progress.forward_calls,
                                                          context.progress.capacity_warmup_calls)
                                            : kept_tokens(options_, step, length);
        Index const available = candidates.host_offsets[s + 1] - candidates.host_offsets[s];
        now.offsets[s + 1] = static_cast<Row>(std::min(kept, available));
      }
      return keep_top_k(context, scores, candidates, now.offsets);
    }
    if (context.mode == RoutingMode::AuxRouter && !options_.random_router) {
      if (!has_aux_router()) {
        fail(ErrorCode::InvalidArgument, "this model has no auxiliary router", "ExpertChoice, routing mode",
             "topk, threshold or full_depth", "aux_router");
      }
      return keep_at_least(context, std::span<Real const>(values(now.aux_logits)), 0.0, candidates, now.offsets);
    }
    // A random score has no natural zero: cut it so that the expected share of survivors is the capacity's.
    double const threshold = options_.random_router ? 1.0 - capacity(options_, step) / capacity(options_, step - 1) : 0.0;
    return keep_at_least(context, scores, threshold, candidates, now.offsets);
  }

  /// Auxiliary loss or auxiliary router, and z-loss: values to the statistics, gradients to `d_logits` (mor-spec 3.5).
  template <class B, class Step>
  void add_losses(RouterContext<B>& context, Step& now, Index step,
                  ActiveSet<typename B::real_type> const& active) const {
    using Real = typename B::real_type;
    B& b = context.backend;
    auto const layout = context.statistics_layout();
    Index const candidates = now.logits.rows;
    now.d_logits = b.arena().template matrix<Real>(candidates, 1);
    b.fill(now.d_logits, 0.0);
    auto const aux = context.statistics.subspan(static_cast<std::size_t>(layout.aux(step)), 2);
    if (has_aux_router()) {
      now.d_aux_logits = b.arena().template matrix<Real>(candidates, 1);
      b.fill(now.d_aux_logits, 0.0);
      b.router_bce(values(now.aux_logits), active.slots, context.loss_weight, aux, values(now.d_aux_logits));
    } else {
      b.router_bce(values(now.logits), active.slots, context.loss_weight * options_.aux_coefficient, aux,
                   values(now.d_logits));
    }
    if (options_.z_coefficient != 0.0) {
      auto const z = context.statistics.subspan(static_cast<std::size_t>(layout.z(step)), 1);
      b.z_loss(now.logits, context.loss_weight * options_.z_coefficient, z, now.d_logits);
    }
  }

  RecursionConfig options_;
};

}  // namespace mor
