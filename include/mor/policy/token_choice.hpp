// SPDX-License-Identifier: Apache-2.0
/// @file
/// `TokenChoice`: one router before the first recursion gives each token its number of recursions; the update
/// x0 + g F(...F(x0)) is made once, after the last of them (mor-spec section 4).
#pragma once

#include "mor/contract/serving_router.hpp"
#include "mor/core/philox.hpp"
#include "mor/policy/router_network.hpp"
#include "mor/policy/select_rows.hpp"

#include <span>
#include <vector>

namespace mor {

/// @tparam Network  the scoring network; see `ConfiguredNetwork` in policy/router_network.hpp for what it provides
template <class Network = ConfiguredNetwork>
class TokenChoice : public RouterBase {
 public:
  static constexpr RouterKind kind = RouterKind::TokenChoice;
  static constexpr Horizon horizon = Horizon::PreLoop;
  static constexpr LayerNaming naming = LayerNaming::BlockList;

  TokenChoice() = default;
  explicit TokenChoice(RecursionConfig const& recursion) : options_(recursion) {}

  template <class B>
  struct State {
    using Scalar = typename B::scalar_type;
    using Real = typename B::real_type;
    struct Step {
      std::span<Real> scale, keep;  // (active)
      std::vector<Row> offsets;     // (sequences + 1)
    };
    typename Network::Weights router;
    Index bias = -1;                       ///< parameter index; -1 where there is none
    typename Network::template Activations<B> saved;
    View<Scalar> entry, d_entry;           // (rows, D) the stream at the entry, and its gradient through the residual
    View<Real> logits, d_logits;           // (rows, Nr)
    View<Real> probabilities, d_probabilities;
    std::span<Real> choice, gate, d_gate;  // (rows)
    std::vector<double> thresholds;        // (Nr): 0, 1, ..., Nr - 1
    std::vector<Row> counts;               // (Nr * sequences) tokens of each sequence that enter each recursion
    std::vector<Step> steps;
  };

  template <class B>
  void declare(State<B>& state, ModelConfig const& config, RouterNames const& names, ParameterLayout& layout) const {
    auto const activation = options_.activation();
    if (activation != RouterActivation::Softmax && activation != RouterActivation::Sigmoid) {
      fail(ErrorCode::InvalidConfig, "token choice needs probabilities", "TokenChoice, router_activation",
           "softmax or sigmoid", activation == RouterActivation::Tanh ? "tanh" : "none");
    }
    Index const depths = options_.num_recursions;
    state.steps.resize(static_cast<std::size_t>(depths));
    for (Index r = 0; r < depths; ++r) state.thresholds.push_back(static_cast<double>(r));
    state.router = Network::declare(config, names.prefix[0] + "mor_router", depths, ParameterGroup::Main, layout);
    if (options_.balance() == Balancing::LossFree) {
      state.bias = layout.add_frozen_vector(names.prefix[0] + "router_bias", depths);
    }
  }

  /// Routes every token of the batch.
  template <class B, class S>
  void begin(RouterContext<B>& context, S& state) const {
    using Scalar = typename B::scalar_type;
    using Real = typename B::real_type;
    B& b = context.backend;
    Index const rows = context.batch.num_rows;
    Index const depths = options_.num_recursions;
    bool const warming_up =
        context.training && context.progress.forward_calls <= context.progress.balance_warmup_calls;
    state.entry = b.arena().template matrix<Scalar>(rows, context.hidden.cols);
    b.copy(context.hidden, state.entry);
    state.logits = b.arena().template matrix<Real>(rows, depths);
    state.probabilities = b.arena().template matrix<Real>(rows, depths);
    state.choice = b.arena().template allocate<Real>(rows);
    state.gate = b.arena().template allocate<Real>(rows);
    score(context, state);
    b.token_choice(state.logits, bias(context, state, warming_up), options_.activation(), options_.gate_scale(),
                   warming_up || (!context.training && context.mode == RoutingMode::FullDepth), state.probabilities,
                   state.choice, state.gate);
    if (context.training) add_losses(context, state);
    state.counts.resize(static_cast<std::size_t>(depths * context.batch.num_sequences));
    b.count_at_least(state.choice, context.batch, state.thresholds, state.counts);
  }

  template <class B, class S>
  ActiveSet<typename B::real_type> select(RouterContext<B>& context, S& state, Index step,
                                          ActiveSet<typename B::real_type> const& candidates) const {
    using Real = typename B::real_type;
    B& b = context.backend;
    auto& now = state.steps[static_cast<std::size_t>(step)];
    auto const sequences = static_cast<std::size_t>(candidates.num_sequences);
    now.offsets.resize(sequences + 1);
    std::copy_n(state.counts.begin() + step * candidates.num_sequences, sequences, now.offsets.begin() + 1);
    auto scores = b.arena().template allocate<Real>(candidates.num_rows);
    b.gather_values(state.choice, candidates.rows, scores);
    auto active = keep_counted(context, std::span<Real const>(scores), static_cast<double>(step), candidates, now.offsets);
    now.scale = b.arena().template allocate<Real>(active.num_rows);
    now.keep = b.arena().template allocate<Real>(active.num_rows);
    b.token_choice_weights(state.choice, state.gate, active.rows, step, options_.paper_eq2,
                           options_.gating == Gating::Additive, now.scale, now.keep);
    active.gate = now.scale;
    return active;
  }

  template <class B, class S>
  void combine(RouterContext<B>& context, S& state, Index step, ActiveSet<typename B::real_type> const& active,
               View<typename B::scalar_type> y) const {
    auto const& now = state.steps[static_cast<std::size_t>(step)];
    context.backend.combine(y, now.scale, now.keep, active.rows, state.entry, context.hidden);
  }

  template <class B, class S>
  View<typename B::scalar_type> combine_backward(RouterContext<B>& context, S& state, Index step,
                                                 ActiveSet<typename B::real_type> const& active,
                                                 View<typename B::scalar_type const> y) const {
    using Scalar = typename B::scalar_type;
    using Real = typename B::real_type;
    B& b = context.backend;
    auto& now = state.steps[static_cast<std::size_t>(step)];
    auto d_y = b.arena().template matrix<Scalar>(active.num_rows, y.cols);
    auto d_scale = b.arena().template allocate<Real>(active.num_rows);
    b.combine_backward(context.d_hidden, y, now.scale, active.rows, d_y, d_scale);
    if (options_.gating == Gating::Weighted) {
      b.token_choice_weights_backward(state.choice, active.rows, step, options_.paper_eq2, d_scale, state.d_gate);
    }
    b.scale_add_rows(context.d_hidden, now.keep, active.rows, state.d_entry);
    return d_y;
  }

  /// The active rows' old value reaches the output only through the block (and the entry), so it is replaced.
  template <class B, class S>
  void select_backward(RouterContext<B>& context, S&, Index, ActiveSet<typename B::real_type> const& active,
                       View<typename B::scalar_type> d_x) const {
    context.backend.scatter_rows(d_x, active.rows, context.d_hidden);
  }

  /// Called before the recursions' backward passes.
  template <class B, class S>
  void prepare_backward(RouterContext<B>& context, S& state) const {
    B& b = context.backend;
    state.d_entry = b.arena().template matrix<typename B::scalar_type>(state.entry.rows, state.entry.cols);
    b.fill(state.d_entry, 0.0);
    state.d_gate = b.arena().template allocate<typename B::real_type>(state.entry.rows);
    b.fill(View<typename B::real_type>(state.d_gate.data(), state.entry.rows, 1), 0.0);
  }

  template <class B, class S>
  void begin_backward(RouterContext<B>& context, S& state) const {
    B& b = context.backend;
    b.add(state.d_entry, context.d_hidden);
    if (options_.random_router) return;
    b.token_choice_backward(state.probabilities, state.choice, options_.activation(), options_.gate_scale(), state.d_gate,
                            state.d_probabilities, state.d_logits);
    Network::backward(context, state.router, state.saved, state.d_logits, context.d_hidden);
  }

  /// Loss-free balancing, after each optimizer step: bias_i += rate * sign(mean load - load_i) (mor-spec section 4).
  void update_bias(std::span<double> bias, std::span<double const> load) const {
    double mean = 0.0;
    for (double const value : load) mean += value / static_cast<double>(load.size());
    for (std::size_t i = 0; i < bias.size(); ++i) {
      if (load[i] < mean) bias[i] += options_.bias_update_rate;
      if (load[i] > mean) bias[i] -= options_.bias_update_rate;
    }
  }

  static constexpr bool keeps_entry = true;

  /// Chooses the depth, within what the request allows.
  template <class B, class S>
  void serve_enter(RouterContext<B>& context, S& state, ServingRows const& rows, std::span<Row const>,
                   View<typename B::scalar_type> x, ServingBank<B> const& bank) const {
    using Real = typename B::real_type;
    B& b = context.backend;
    auto const logits = b.arena().template matrix<Real>(x.rows, options_.num_recursions);
    auto const probabilities = b.arena().template matrix<Real>(x.rows, options_.num_recursions);
    auto const choice = b.arena().template allocate<Real>(x.rows), gate = b.arena().template allocate<Real>(x.rows);
    Network::forward(context, state.router, x, logits);
    b.token_choice(logits, bias(context, state, false), options_.activation(), options_.gate_scale(), false, probabilities,
                   choice, gate);
    b.limit_choice(probabilities, rows.least, rows.most, choice, gate);
    b.scatter_values(choice, rows.cells, bank.choice);
    b.scatter_values(gate, rows.cells, bank.gate);
    b.scatter_rows(x, rows.cells, bank.entry);
  }

  template <class B, class S>
  void serve_step(RouterContext<B>& context, S&, ServingRows const& rows, std::span<Row const>,
                  View<typename B::scalar_type const> y, ServingBank<B> const& bank,
                  std::span<typename B::real_type> scores) const {
    using Real = typename B::real_type;
    B& b = context.backend;
    auto const take = [&] { return b.arena().template allocate<Real>(y.rows); };
    auto const choice = take(), gate = take(), scale = take(), keep = take();
    b.gather_values(bank.choice, rows.cells, choice);
    b.gather_values(bank.gate, rows.cells, gate);
    b.choice_weights(choice, gate, rows.depths, options_.paper_eq2, options_.gating == Gating::Additive, scale, keep, scores);
    b.combine(y, scale, keep, rows.cells, bank.entry, bank.hidden);
  }

 private:
  template <class B, class S>
  void score(RouterContext<B>& context, S& state) const {
    if (!options_.random_router) {
      state.saved = Network::forward(context, state.router, state.entry, state.logits);
      return;
    }
    auto const call = context.training ? static_cast<std::uint64_t>(context.progress.forward_calls) : 0;
    context.backend.random_scores(stream_key(context.progress.seed, 0), call, context.batch.positions, state.logits);
  }

  /// Balancing loss, load and z-loss: values to the statistics, gradients to `d_probabilities` and `d_logits`.
  template <class B, class S>
  void add_losses(RouterContext<B>& context, S& state) const {
    using Real = typename B::real_type;
    B& b = context.backend;
    auto const layout = context.statistics_layout();
    Index const rows = state.logits.rows;
    state.d_probabilities = b.arena().template matrix<Real>(rows, state.logits.cols);
    state.d_logits = b.arena().template matrix<Real>(rows, state.logits.cols);
    b.fill(state.d_logits, 0.0);
    double const coefficient =
        options_.balance() == Balancing::Loss ? context.loss_weight * options_.balance_coefficient : 0.0;
    auto const balance = context.statistics.subspan(static_cast<std::size_t>(layout.balance()),
                                                    static_cast<std::size_t>(1 + options_.num_recursions));
    b.balance_loss(state.probabilities, state.choice, coefficient, balance, state.d_probabilities);
    if (options_.z_coefficient != 0.0) {
      auto const z = context.statistics.subspan(static_cast<std::size_t>(layout.z(0)), 1);
      b.z_loss(state.logits, context.loss_weight * options_.z_coefficient, z, state.d_logits);
    }
  }

  /// The loss-free bias; empty where there is none, and zero during the balance warm-up.
  template <class B, class S>
  std::span<typename B::real_type const> bias(RouterContext<B>& context, S const& state, bool warming_up) const {
    if (state.bias < 0 || warming_up) return {};
    return context.parameters.master_vector(state.bias);
  }

  RecursionConfig options_;
};

}  // namespace mor
