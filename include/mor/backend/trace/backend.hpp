// SPDX-License-Identifier: Apache-2.0
/// @file
/// `mor::trace::Backend`: runs a model without arithmetic and without memory, and records what it would have done. It
/// sizes arenas, predicts memory, time and FLOPs, and checks the shapes and the order of a model's calls.
#pragma once

#include "mor/backend/trace/layer_verbs.hpp"
#include "mor/contract/backend.hpp"
#include "mor/core/active_set.hpp"
#include "mor/core/config.hpp"
#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <cmath>
#include <cstdint>
#include <span>
#include <string_view>

namespace mor::trace {

/// A backend that only counts. Every verb checks that its operands fit (ShapeMismatch names the verb), and appends one
/// `Operation`; nothing behind a pointer is read or written, except what the contract places in host memory. Random
/// weights are of no use here: leave `initialize` out.
///
/// What depends on data is assumed: `count_at_least` by `Options::assumed_depth`, attention limits of rows that a
/// router chose by a uniform choice (`KnownRows`); `download` gives zeros and `sum` 0.
///
/// Arena prediction: run one step of every kind, then reserve `arena().peak_bytes()` in the real backend's arena. It
/// covers a verb's own scratch where `Options::scratch_bytes` states it. Tables that a backend keeps for itself outside
/// the arena (angles, libraries' workspaces) are not part of it.
///
/// @tparam Scalar  type of weights and activations; only its size matters
/// @tparam Real    type of logits, losses, gradients of weights and optimizer state
template <class Scalar, class Real>
class Backend : public LayerVerbs<Scalar, Real> {
  using Base = LayerVerbs<Scalar, Real>;

 public:
  using Base::Base;

  void select_top_k(std::span<Real const> scores, ActiveSet<Real> const& candidates, std::span<Row const> host_offsets,
                    Selection const& selection) {
    log_selection("select_top_k", scores, candidates, host_offsets, selection);
  }
  void select_at_least(std::span<Real const> scores, double, ActiveSet<Real> const& candidates,
                       std::span<Row const> host_offsets, Selection const& selection) {
    log_selection("select_at_least", scores, candidates, host_offsets, selection);
  }
  /// Assumed counts, rounded up: never none of some.
  void count_at_least(std::span<Real const> scores, ActiveSet<Real> const& candidates,
                      std::span<double const> thresholds, std::span<Row> counts) {
    Index const sequences = candidates.num_sequences, levels = count(thresholds);
    check_candidates("count_at_least", scores, candidates);
    check("count_at_least", "the lengths of counts and thresholds times sequences", levels * sequences, count(counts));
    for (Index level = 0; level < levels; ++level) {
      for (Index s = 0; s < sequences; ++s) {
        auto const at = static_cast<std::size_t>(s);
        Index const all = candidates.host_offsets[at + 1] - candidates.host_offsets[at];
        counts[static_cast<std::size_t>(level * sequences + s)] = static_cast<Row>(assumed(all, level, levels));
      }
    }
    log("count_at_least", {shape(scores), {sequences, candidates.num_rows}, shape(thresholds)},
        {bytes(scores) + bytes(candidates.sequence_offsets), bytes(counts), 0}, scores.empty());
  }

  void random_scores(std::uint64_t, std::uint64_t, std::span<Row const> positions, View<Real> out) {
    check("random_scores", "the lengths of positions and the rows of out", count(positions), out.rows);
    log("random_scores", {shape(positions), shape(out)}, {bytes(positions), bytes(out), 0});
  }
  void router_gate(std::span<Real const> logits, std::span<Row const> slots, RouterActivation, double,
                   std::span<Real> gate) {
    check("router_gate", "the lengths of slots and gate", count(slots), count(gate));
    // exp, add, divide, alpha.
    log("router_gate", {shape(logits), shape(slots), shape(gate)},
        {bytes(slots) + bytes(gate), bytes(gate), 4 * count(gate)}, slots.empty());
  }
  void router_gate_backward(std::span<Real const> logits, std::span<Row const> slots, RouterActivation, double,
                            std::span<Real const> d_gate, std::span<Real> d_logits) {
    check("router_gate_backward", "the lengths of slots and d_gate", count(slots), count(d_gate));
    check("router_gate_backward", "the lengths of logits and d_logits", count(logits), count(d_logits));
    // Activation 3, its derivative 2, alpha, product and sum 3. Reads logits, d_gate and d_logits at the slots.
    log("router_gate_backward", {shape(logits), shape(slots), shape(d_gate), shape(d_logits)},
        {bytes(slots) + 3 * bytes(d_gate), bytes(d_gate), 8 * count(d_gate)}, slots.empty());
  }
  void router_bce(std::span<Real const> logits, std::span<Row const> slots, double, std::span<Real> statistics,
                  std::span<Real> d_logits) {
    check_statistics("router_bce", 2, statistics);
    check_optional("router_bce", "the lengths of logits and d_logits", count(logits), count(d_logits));
    // Softplus 4, minus the target 1, sum 1; gradient: sigmoid 3, target 1, weight and sum 2.
    log("router_bce", {shape(logits), shape(slots), shape(statistics), shape(d_logits)},
        {bytes(logits, d_logits) + bytes(slots), bytes(d_logits), 6 * count(logits) + 6 * count(d_logits)},
        logits.empty());
  }
  void z_loss(View<Real const> logits, double, std::span<Real> statistics, View<Real> d_logits) {
    check_statistics("z_loss", 1, statistics);
    if (!d_logits.empty()) check_same("z_loss", logits, d_logits);
    // Subtract the largest, exp, sum; a row: log, add, square and sum; gradient: quotient, product, sum 3 an element.
    log("z_loss", {shape(logits), shape(statistics), shape(d_logits)},
        {bytes(logits) + bytes(d_logits), bytes(d_logits), 3 * logits.size() + 4 * logits.rows + 3 * d_logits.size()},
        logits.empty());
  }

  void token_choice(View<Real const> logits, std::span<Real const> bias, RouterActivation, double, bool,
                    View<Real> probabilities, std::span<Real> choice, std::span<Real> gate) {
    check_same("token_choice", logits, probabilities);
    check_optional("token_choice", "the columns of logits and the length of bias", logits.cols, count(bias));
    check("token_choice", "the rows of logits and the length of choice", logits.rows, count(choice));
    check("token_choice", "the rows of logits and the length of gate", logits.rows, count(gate));
    // Subtract the largest, exp, sum, divide, alpha, bias.
    log("token_choice", {shape(logits), shape(bias), shape(probabilities), shape(choice), shape(gate)},
        {bytes(logits) + bytes(bias), bytes(probabilities) + bytes(choice, gate), 6 * logits.size()}, logits.empty());
  }
  void token_choice_backward(View<Real const> probabilities, std::span<Real const> choice, RouterActivation, double,
                             std::span<Real const> d_gate, View<Real const> d_probabilities, View<Real> d_logits) {
    check_same("token_choice_backward", probabilities, d_logits);
    if (!d_probabilities.empty()) check_same("token_choice_backward", probabilities, d_probabilities);
    check("token_choice_backward", "the rows of probabilities and the length of choice", probabilities.rows,
          count(choice));
    check_optional("token_choice_backward", "the lengths of choice and d_gate", count(choice), count(d_gate));
    // Dot product with the gradient 2, subtract 1, times p 1, alpha 1, sum 1.
    log("token_choice_backward",
        {shape(probabilities), shape(choice), shape(d_gate), shape(d_probabilities), shape(d_logits)},
        {bytes(probabilities, d_probabilities) + bytes(choice, d_gate) + bytes(d_logits), bytes(d_logits),
         6 * probabilities.size()});
  }
  void token_choice_weights(std::span<Real const> choice, std::span<Real const> gate, std::span<Row const> rows, Index,
                            bool, bool, std::span<Real> scale, std::span<Real> keep) {
    check("token_choice_weights", "the lengths of choice and gate", count(choice), count(gate));
    check("token_choice_weights", "the lengths of rows and scale", count(rows), count(scale));
    check("token_choice_weights", "the lengths of rows and keep", count(rows), count(keep));
    // Choice and gate are looked up at the rows.
    log("token_choice_weights", {shape(choice), shape(gate), shape(rows), shape(scale), shape(keep)},
        {bytes(rows) + bytes(scale, keep), bytes(scale, keep), 0}, rows.empty());
  }
  void token_choice_weights_backward(std::span<Real const> choice, std::span<Row const> rows, Index, bool,
                                     std::span<Real const> d_scale, std::span<Real> d_gate) {
    check("token_choice_weights_backward", "the lengths of choice and d_gate", count(choice), count(d_gate));
    check("token_choice_weights_backward", "the lengths of rows and d_scale", count(rows), count(d_scale));
    log("token_choice_weights_backward", {shape(choice), shape(rows), shape(d_scale), shape(d_gate)},
        {bytes(rows) + 3 * bytes(d_scale), bytes(d_scale), count(rows)}, rows.empty());
  }
  void balance_loss(View<Real const> probabilities, std::span<Real const> choice, double, std::span<Real> statistics,
                    View<Real> d_probabilities) {
    check_statistics("balance_loss", 1 + probabilities.cols, statistics);
    check("balance_loss", "the rows of probabilities and the length of choice", probabilities.rows, count(choice));
    if (!d_probabilities.empty()) check_same("balance_loss", probabilities, d_probabilities);
    log("balance_loss", {shape(probabilities), shape(choice), shape(statistics), shape(d_probabilities)},
        {bytes(probabilities) + bytes(choice), bytes(d_probabilities), probabilities.size()}, probabilities.empty());
  }

  void sample(View<Real const> logits, std::span<SamplingRule const> rules, std::span<Token const> history,
              std::span<Token> tokens, std::span<Real> log_probabilities) {
    check("sample", "the rows of logits and the rules", logits.rows, count(rules));
    check("sample", "the rows of logits and the tokens", logits.rows, count(tokens));
    check("sample", "the rows of logits and the log-probabilities", logits.rows, count(log_probabilities));
    // Of the model's distribution: subtract the largest, exp, sum. What rules ask for besides depends on data.
    log("sample", {shape(logits), shape(rules), shape(history), shape(tokens), shape(log_probabilities)},
        {bytes(logits) + bytes(rules) + bytes(history), bytes(tokens) + bytes(log_probabilities), 3 * logits.size()});
  }

 private:
  using Base::bytes;
  using Base::check;
  using Base::check_optional;
  using Base::check_same;
  using Base::count;
  using Base::log;
  using Base::shape;

  [[nodiscard]] Index assumed(Index all, Index level, Index levels) const {
    if (this->options().assumed_depth == AssumedDepth::Worst) return all;
    if (levels > 1) return (all * (levels - level) + levels - 1) / levels;
    return static_cast<Index>(std::ceil(static_cast<double>(all) * this->options().share));
  }
  static void check_statistics(std::string_view verb, Index needed, std::span<Real const> statistics) {
    if (count(statistics) < needed) check(verb, "the statistics needed and given", needed, count(statistics));
  }
  static void check_candidates(std::string_view verb, std::span<Real const> scores, ActiveSet<Real> const& candidates) {
    check(verb, "the candidates and their scores", candidates.num_rows, count(scores));
    check(verb, "the sequences and their offsets less one", candidates.num_sequences,
          count(candidates.host_offsets) - 1);
  }
  void log_selection(std::string_view verb, std::span<Real const> scores, ActiveSet<Real> const& candidates,
                     std::span<Row const> host_offsets, Selection const& selection) {
    check_candidates(verb, scores, candidates);
    check(verb, "the sequences and the offsets of the selection less one", candidates.num_sequences,
          count(host_offsets) - 1);
    Index const kept = host_offsets.back();
    check(verb, "the kept rows and the last offset", kept, count(selection.rows));
    check(verb, "the kept positions and the last offset", kept, count(selection.positions));
    check(verb, "the kept slots and the last offset", kept, count(selection.slots));
    // Rows and positions are looked up for what is kept.
    log(verb, {shape(scores), {candidates.num_sequences, candidates.num_rows}, {kept, 1}},
        {bytes(scores) + bytes(candidates.sequence_offsets) + bytes(selection.rows, selection.positions),
         bytes(selection.rows, selection.positions, selection.slots), 0},
        scores.empty());
  }
};

}  // namespace mor::trace
