// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a backend adds to `Backend` so that an engine can serve on it: compound verbs of a layer that read each weight
/// once for a few rows, scalar verbs for rows of mixed depth, and the verbs that keep the tables of core/serving_tables.hpp.
///
/// Symbols as in contract/backend.hpp. What a row gets from a verb does not depend on the other rows, on their number or
/// on its place among them.
#pragma once

#include "mor/contract/backend.hpp"
#include "mor/core/serving_tables.hpp"

#include <array>
#include <concepts>
#include <span>

namespace mor {

/// norm_linear(x, norm_weights, eps, w, out): out = rms_norm(x) w^T.
/// norm_logits(x, norm_weights, eps, w, count, out): the same with Real output. `count`: one number in the backend's memory;
/// rows from that on may be left alone (empty: there are none such).
/// norm_swiglu(x, norm_weights, eps, gate_up [2F, D], out [N, F]): out = swiglu(rms_norm(x) gate_up^T).
/// project_keys(x, norm_weights, eps, qkv [(H + 2K) E, D], positions, head_dim, theta, write, q [N, H*E], plane_k,
/// plane_v): q, k, v = rms_norm(x) qkv^T; RoPE on q and k; k and v are written to their places in the list `write`.
template <class B>
concept ServingLayers = requires(detail::VerbArguments<B> a, B& b) {
  b.norm_linear(a.x, a.vector, 1e-5, a.x, a.out);
  b.norm_logits(a.x, a.vector, 1e-5, a.x, a.rows, a.real_out);
  b.norm_swiglu(a.x, a.vector, 1e-5, a.x, a.out);
  b.project_keys(a.x, a.vector, 1e-5, a.x, a.rows, Index{64}, 10000.0, a.keys, a.out, a.out, a.out);
};

/// move_rows(x, from, to, out): out[to[i]] = x[from[i]]. scatter_values(values, rows, out): out[rows[i]] = values[i].
/// fill_values(value, out).
/// pick_columns(x [N, C], columns, shift, out): out[i] = x[i, min(columns[i] + shift, C - 1)].
/// limit_choice(probabilities [N, Nr], least, most, choice, gate): choice[i] becomes the nearest depth that has least[i] to
/// most[i] recursions (choice counts from 0), and gate[i] its probability.
/// choice_weights(choice, gate, depths, gate_intermediate, additive, scale, keep, scores): as `token_choice_weights`, with
/// the row's own step depths[i]; scores[i] = infinity where the token goes on after it, -infinity where it finishes.
template <class B>
concept ServingRouting = requires(detail::VerbArguments<B> a, B& b) {
  b.move_rows(a.x, a.rows, a.rows, a.out);
  b.scatter_values(a.reals, a.rows, a.reals_out);
  b.fill_values(0.0, a.reals_out);
  b.pick_columns(a.real_in, a.rows, Index{1}, a.reals_out);
  b.limit_choice(a.real_in, a.rows, a.rows, a.reals_out, a.reals_out);
  b.choice_weights(a.reals, a.reals, a.rows, false, false, a.reals_out, a.reals_out, a.reals_out);
};

namespace detail {
/// Work that `Replays` might run; has a name, since nvcc takes no lambda in a concept.
struct ReplayedWork {
  void operator()() const {}
};
}  // namespace detail

/// apply_edits(edits, tables): words of the tables, each at most once; `edits` is host memory, free again on return.
/// start_recursion(tables, rule, rows): lists the cells that are Ready: with `one_depth` those of the depth that
/// `math::depth_of_launch` names, with `most_rows` of the slots' own cells those in `math::window_of_launch`, from the slot on whose
/// turn it is, for `TickRule::most_decoding` rows; the slot behind it is next. Every list must hold all cells that qualify, but those noted below.
/// finish_recursion(tables, rows, scores, report): after the block: lengths grow by the keys written, depths by 1; who goes
/// on (`math::goes_on`) is Ready, the others are Finished. No scores: infinity for all. In the report no row has finished or entered yet.
/// collect_finished(tables, rule, report, rows, sampled): lists the cells that are Finished and whose slot has none pending, as many as
/// both lists have room for; they become Idle. None where by the report's counts the rule does not finish (`TickRule::finishes`).
/// commit_samples(tables, rows, sampled, tokens, log_probabilities, report): writes the report of these rows; each new token
/// joins its slot's text, and unless it ends it, its slot's own cell is Entering.
/// collect_entering(tables, rows, tokens, report): lists cells that are Entering, those of prompts first, as many as there is room
/// for, with their tokens; they become Ready at depth 0. There must be room for all of prompts.
/// `B::Reports`: reports on their way to the host, first in, first out: Reports(b, words, in_flight), pending(), arrived() (of the
/// oldest; never waits), wait() (for the oldest), front(), pop(). send(words): a copy of them, which may run beside what follows,
/// until settle(); both may be part of captured work. expect(size): the work that ran last has sent so many. post(words): all three.
/// `B::Replays`: Replays(b), run(key, work): work that depends on nothing but the key, and whose memory stays where it is.
/// It neither uploads nor waits (CUDA refuses that), and has the arena to itself.
/// `Replays::captures`: runs of a key after the first ones cost the host next to nothing.
template <class B>
concept ServingControl =
    requires(detail::VerbArguments<B> a, B& b, ServingTables const& tables, std::span<TableEdit const> edits,
             TickRule const& rule, ServingRows const& rows, SampledRows const& sampled, ServingReport const& report, typename B::Reports& reports,
             typename B::Replays& replays) {
      b.apply_edits(edits, tables);
      b.start_recursion(tables, rule, rows);
      b.finish_recursion(tables, rows, a.reals, report);
      b.collect_finished(tables, rule, report, rows, sampled);
      b.commit_samples(tables, rows, sampled, a.tokens, a.reals, report);
      b.collect_entering(tables, rows, a.rows_out, report);
      reports.send(a.rows);
      reports.settle();
      reports.expect(Index{1});
      reports.post(a.rows);
      { reports.pending() } -> std::convertible_to<Index>;
      { reports.arrived() } -> std::same_as<bool>;
      reports.wait();
      { reports.front() } -> std::same_as<std::span<Row const>>;
      reports.pop();
      replays.run(std::uint64_t{0}, detail::ReplayedWork{});
      { B::Replays::captures } -> std::convertible_to<bool>;
    };

/// Linear routers of the recursions, one vector [D] each.
template <class Scalar>
struct RouterVectors {
  static constexpr Index kMost = 16;
  std::array<Scalar const*, kMost> vectors{};
  Index count = 0;
};

/// What one step of expert choice does for every row, fused. All vectors are a router's input over its temperature.
template <class Scalar>
struct ExpertStep {
  RouterVectors<Scalar> routers;  ///< of the recursions that a row may take next
  RouterVectors<Scalar> deciders;  ///< where not empty: auxiliary routers, which decide in their place
  Scalar const* entry = nullptr;  ///< router of the first recursion: the gate of a row at depth 0 comes from it; null: from `gate` too
  double scale = 1.0;             ///< 1 / temperature
  RouterActivation activation = RouterActivation::Sigmoid;
  double alpha = 0.1;
  bool weighted = true;           ///< false: every gate is 1
};

/// Optional: expert choice in one pass over the rows, where a backend would otherwise launch many small kernels.
/// expert_step(step, y [N, D], cells, depths, hidden, gate, scores): hidden[c] += gate[c] * y[i], then with the router
/// depths[i]: z = scale <hidden[c], router>, gate[c] = alpha * act(z), scores[i] = z, or the decider's; c = cells[i]. Without
/// routers only the first part.
/// With `entry` and at depth 0 gate[c] = alpha * act(scale <hidden[c], entry>) before all that.
template <class B>
concept FusesExpertChoice = requires(detail::VerbArguments<B> a, B& b, ExpertStep<typename B::scalar_type> const& step) {
  b.expert_step(step, a.x, a.rows, a.rows, a.out, a.reals_out, a.reals_out);
};

/// Rows of a table: row i is row rows[i] of it, or row i where `rows` is empty.
template <class Scalar>
struct TableRows {
  View<Scalar> table;
  std::span<Row const> rows{};
};

/// What the layers of a stack have in common.
struct LayerSizes {
  Index hidden_size = 0, intermediate_size = 0;
  AttentionShape attention;
  double rms_norm_eps = 1e-5, rope_theta = 10000.0;
};

/// Weights of one layer, and the storage of its keys and values.
template <class Scalar>
struct StackedLayer {
  View<Scalar const> qkv, o, gate_up, down;
  std::span<Scalar const> input_norm, post_attention_norm;
  View<Scalar> plane_k, plane_v;
};

/// The rows that go through a stack of layers.
template <class Scalar>
struct StackRows {
  TableRows<Scalar const> x;         ///< [N], also where fewer are real: the others may be read
  std::span<Row const> positions{};  ///< [N]
  std::span<Row const> count{};    ///< one number in the backend's memory; rows from that on are left alone (empty: there are none such)
  bool rows_apart = false;         ///< no row sees a key that another row of the call writes
  View<Scalar> out{};              ///< [N, D]
  TableRows<Scalar> kept{};        ///< where there is a table, its rows get the results too; no two of them are the same
};

/// Optional: consecutive decoder layers on few rows in one pass, where a backend would otherwise launch several kernels a
/// layer. `B::LayerStack`: LayerStack(b, sizes); takes(rows, longest, page_size): whether it takes so many rows with paged
/// lists of so many keys at most; takes(layer): whether it takes such a layer; run(context, layers, rows, read, write): the layers
/// of `DecoderLayer`, one after the other, at least one. All layers read the list `read` and write to `write`, lists of one row
/// each with the same pages.
template <class B>
concept StacksLayers = requires(detail::VerbArguments<B> a, B& b, LayerSizes const& sizes, typename B::LayerStack const& stack,
                                std::span<StackedLayer<typename B::scalar_type> const> layers,
                                StackRows<typename B::scalar_type> const& rows) {
  { typename B::LayerStack(b, sizes) };
  { stack.takes(Index{1}, Index{1}, Index{64}) } -> std::same_as<bool>;
  { stack.takes(layers[0]) } -> std::same_as<bool>;
  stack.run(b.context(), layers, rows, a.keys, a.keys);
};

/// Optional: `norm_logits` and `sample` of few rows in one pass. `B::HeadSampler`: HeadSampler(b, D, V); takes(rows, norm_weights,
/// w [V, D]); run(context, x (rows of a table), norm_weights, eps, w, count, rules [N], history, logits [N, V], tokens [N], log_probabilities [N]): both,
/// for the first *count rows, whose logits may have other last bits than those of `norm_logits`. `count`: one number in the
/// backend's memory; rows from that on are left alone (empty: there are none such). Calls follow one another.
template <class B>
concept FusesHeadSampling = requires(detail::VerbArguments<B> a, B& b, typename B::HeadSampler const& head,
                                     TableRows<typename B::scalar_type const> x) {
  { typename B::HeadSampler(b, Index{1}, Index{1}) };
  { head.takes(Index{1}, a.vector, a.x) } -> std::same_as<bool>;
  head.run(b.context(), x, a.vector, 1e-5, a.x, a.rows, a.rules, a.tokens, a.real_out, a.rows_out, a.reals_out);
};

/// Optional: verbs that follow one another in every tick of all stages, in one pass.
/// finish_and_collect(tables, rule, rows, scores, report, finished, sampled): `finish_recursion` of rows, then `collect_finished`.
/// commit_and_collect(tables, finished, sampled, tokens, log_probabilities, report, entering, entering_tokens): `commit_samples` of
/// finished rows, then `collect_entering`; both lists of tokens may be the same memory.
template <class B>
concept JoinsLists = requires(detail::VerbArguments<B> a, B& b, ServingTables const& tables, TickRule const& rule, ServingRows const& rows,
                              SampledRows const& sampled, ServingReport const& report) {
  b.finish_and_collect(tables, rule, rows, a.reals, report, rows, sampled);
  b.commit_and_collect(tables, rows, sampled, a.tokens, a.reals, report, rows, a.rows_out);
};

/// A backend that an engine can serve on.
template <class B>
concept ServingBackend = Backend<B> && ServingLayers<B> && ServingRouting<B> && ServingControl<B>;

}  // namespace mor
