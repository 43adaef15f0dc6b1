// SPDX-License-Identifier: Apache-2.0
/// @file
/// The host backend: every verb of the contract on the processor's cores. With double it is the oracle that gradients
/// and other backends are checked against; with float it is what trains and serves without an accelerator.
#pragma once

#include "mor/backend/host/attention.hpp"
#include "mor/backend/host/attention_backward.hpp"
#include "mor/backend/host/context.hpp"
#include "mor/backend/host/head.hpp"
#include "mor/backend/host/key_list.hpp"
#include "mor/backend/host/linear.hpp"
#include "mor/backend/host/memory.hpp"
#include "mor/backend/host/norm.hpp"
#include "mor/backend/host/optimizer.hpp"
#include "mor/backend/host/parallel.hpp"
#include "mor/backend/host/pointwise.hpp"
#include "mor/backend/host/rope.hpp"
#include "mor/backend/host/router_loss.hpp"
#include "mor/backend/host/routing.hpp"
#include "mor/backend/host/rows.hpp"
#include "mor/backend/host/sampling.hpp"
#include "mor/backend/host/serving.hpp"
#include "mor/backend/host/serving_tables.hpp"
#include "mor/backend/host/token_choice.hpp"
#include "mor/contract/backend.hpp"
#include "mor/contract/device_pacing.hpp"
#include "mor/contract/serving.hpp"
#include "mor/math/update.hpp"

#include <algorithm>
#include <memory>
#include <span>

namespace mor::host {

/// Verbs as `mor::Backend` defines them; shapes and meaning are written there. T is float or double, and the type of
/// weights, activations, gradients and losses alike. One thread may call a backend at a time.
template <class T>
class Backend {
 public:
  using scalar_type = T;
  using real_type = T;
  using In = View<T const>;
  using Out = View<T>;
  using Values = std::span<T const>;
  using Results = std::span<T>;
  using Rows = std::span<Row const>;
  using Record = std::span<UpdateRecord<T>>;
  using Records = std::span<UpdateRecord<T> const>;

  /// @param threads  threads of every verb; 0 for OpenMP's default
  explicit Backend(int threads = 0)
      : memory_(std::make_unique<HostMemory>()), arena_(memory_->resource()), threads_(resolve_threads(threads)) {}

  /// @name Memory
  /// @{
  [[nodiscard]] MemoryResource memory() { return memory_->resource(); }
  [[nodiscard]] Arena& arena() { return arena_; }
  [[nodiscard]] MemoryStatistics memory_statistics() const { return memory_->statistics(); }
  [[nodiscard]] int threads() const { return threads_; }
  [[nodiscard]] Rows upload(Rows values) { return values; }
  [[nodiscard]] Values upload(Values values) { return values; }
  [[nodiscard]] std::span<SamplingRule const> upload(std::span<SamplingRule const> values) { return values; }
  void download(Values from, Results to) { std::copy(from.begin(), from.end(), to.begin()); }
  void download(Rows from, std::span<Row> to) { std::copy(from.begin(), from.end(), to.begin()); }
  void store(Values from, Results to) { std::copy(from.begin(), from.end(), to.begin()); }
  void store(Rows from, std::span<Row> to) { std::copy(from.begin(), from.end(), to.begin()); }
  void download(Records from, Record to) { to.front() = from.front(); }
  void store(Records from, Record to) { to.front() = from.front(); }
  void synchronize() {}
  void fill(Out out, double value) { host::fill(context(), out, static_cast<T>(value)); }
  void fill(std::span<Row> out, Row value) { std::fill(out.begin(), out.end(), value); }
  void copy(In x, Out out) { host::copy(context(), x, out); }
  void add(In x, Out out) { host::add(context(), x, out); }
  /// @}

  /// @name Rows
  /// @{
  void embed(std::span<Token const> tokens, In table, Out out) { host::gather_rows(context(), table, tokens, out); }
  void embed_backward(std::span<Token const> tokens, In d_out, Out d_table) {
    host::embed_backward(context(), tokens, d_out, d_table);
  }
  void gather_rows(In x, Rows rows, Out out) { host::gather_rows(context(), x, rows, out); }
  void scatter_rows(In x, Rows rows, Out out) { host::scatter_rows(context(), x, rows, out); }
  void scatter_add_rows(In x, Rows rows, Out out) { host::scatter_add_rows(context(), x, rows, out); }
  void zero_rows(Rows rows, Out out) { host::zero_rows(context(), rows, out); }
  void gather_values(Values x, Rows rows, Results out) {
    for (std::size_t i = 0; i < rows.size(); ++i) out[i] = x[static_cast<std::size_t>(rows[i])];
  }
  void combine(In y, Values scale, Values keep, Rows rows, In base, Out hidden) {
    host::combine(context(), y, scale, keep, rows, base, hidden);
  }
  void combine_backward(In d_hidden, In y, Values scale, Rows rows, Out d_y, Results d_scale) {
    host::combine_backward(context(), d_hidden, y, scale, rows, d_y, d_scale);
  }
  void scale_add_rows(In x, Values scale, Rows rows, Out out) { host::scale_add_rows(context(), x, scale, rows, out); }
  void count_rows(Rows rows, std::span<Row> counts) {
    for (Row const row : rows) ++counts[static_cast<std::size_t>(row)];
  }
  /// @}

  /// @name Dense layers
  /// @{
  void linear(In x, In weights, Out out) { host::linear(context(), x, weights, T(1), In{}, out); }
  void linear_residual(In x, In weights, In residual, Out out) {
    host::linear(context(), x, weights, T(1), residual, out);
  }
  void linear_backward_input(In d_out, In weights, bool accumulate, Out d_x) {
    host::linear_backward_input(context(), d_out, weights, T(1), accumulate, d_x);
  }
  void linear_backward_weight(In d_out, In x, Out d_weights) {
    host::linear_backward_weight(context(), d_out, x, T(1), d_weights);
  }
  void linear_logits(In x, In weights, double scale, Out out) {
    host::linear_logits(context(), x, weights, static_cast<T>(scale), out);
  }
  void linear_logits_backward(In d_out, In x, In weights, double scale, Out d_x, Out d_weights) {
    host::linear_logits_backward(context(), d_out, x, weights, static_cast<T>(scale), d_x, d_weights);
  }
  /// @}

  /// @name Pointwise layers
  /// @{
  void rms_norm(In x, Values weights, double eps, Out out, Results rstd) {
    host::rms_norm(context(), x, weights, eps, out, rstd);
  }
  void rms_norm_backward(In d_out, In x, Values weights, Values rstd, Out d_x, Results d_weights) {
    host::rms_norm_backward(context(), d_out, x, weights, rstd, d_x, d_weights);
  }
  void rope(Rows positions, Index head_dim, double theta, Rotation rotation, Out x) {
    host::rope(context(), memory(), rope_, positions, head_dim, theta, rotation, x);
  }
  void swiglu(In gate_up, Out out) { host::swiglu(context(), gate_up, out); }
  void swiglu_backward(In d_out, In gate_up, Out d_gate_up, Out out) {
    host::swiglu_backward(context(), d_out, gate_up, d_gate_up, out);
  }
  void gelu(In x, double scale, Out out) { host::gelu(context(), x, static_cast<T>(scale), out); }
  void gelu_backward(In d_out, In x, double scale, Out d_x) {
    host::gelu_backward(context(), d_out, x, static_cast<T>(scale), d_x);
  }
  /// @}

  /// @name Attention
  /// @{
  void attention(In q, In k, In v, KeyList const& keys, AttentionShape const& shape, Out out, Out lse) {
    host::attention(context(), q, k, v, keys, shape, out, lse);
  }
  void attention_backward(In q, In k, In v, KeyList const& keys, AttentionShape const& shape, In out, In lse, In d_out,
                          Out d_q, Out d_k, Out d_v) {
    host::attention_backward(context(), detail::AttentionGradients<T>{q, k, v, out, lse, d_out, d_q, d_k, d_v}, keys, shape);
  }
  void causal_limits(Rows set_offsets, Rows rows, Rows batch_offsets, Rows base, std::span<Row> limits) {
    host::causal_limits(set_offsets, rows, batch_offsets, base, limits);
  }
  void write_keys(In x, KeyList const& keys, Out storage) { host::write_keys(context(), x, keys, storage); }
  /// @}

  /// @name Head
  /// @{
  void head_loss(In x, In weights, std::span<Token const> targets, Results losses) {
    host::head_loss(context(), x, weights, targets, losses);
  }
  void head_loss_backward(In x, In weights, std::span<Token const> targets, double weight, Results losses, Out d_x,
                          Out d_weights) {
    host::head_loss_backward(context(), x, weights, targets, static_cast<T>(weight), losses, d_x, d_weights);
  }
  [[nodiscard]] double sum(Values values) {
    return parallel_sum(context(), static_cast<Index>(values.size()),
                        [&](Index i) { return static_cast<double>(values[static_cast<std::size_t>(i)]); });
  }
  /// @}

  /// @name Routing
  /// @{
  void select_top_k(Values scores, ActiveSet<T> const& candidates, Rows host_offsets, Selection selection) {
    host::select_top_k(context(), scores, candidates, host_offsets, selection);
  }
  void count_at_least(Values scores, ActiveSet<T> const& candidates, std::span<double const> thresholds,
                      std::span<Row> counts) {
    host::count_at_least(scores, candidates, thresholds, counts);
  }
  void select_at_least(Values scores, double threshold, ActiveSet<T> const& candidates, Rows host_offsets,
                       Selection selection) {
    host::select_at_least(scores, threshold, candidates, host_offsets, selection);
  }
  void random_scores(std::uint64_t key, std::uint64_t counter, Rows positions, Out out) {
    host::random_scores(context(), key, counter, positions, out);
  }
  void router_gate(Values logits, Rows slots, RouterActivation activation, double alpha, Results gate) {
    host::router_gate(context(), logits, slots, activation, static_cast<T>(alpha), gate);
  }
  void router_gate_backward(Values logits, Rows slots, RouterActivation activation, double alpha, Values d_gate,
                            Results d_logits) {
    host::router_gate_backward(context(), logits, slots, activation, static_cast<T>(alpha), d_gate, d_logits);
  }
  void router_bce(Values logits, Rows slots, double weight, Results statistics, Results d_logits) {
    host::router_bce(context(), logits, slots, static_cast<T>(weight), statistics, d_logits);
  }
  void z_loss(In logits, double weight, Results statistics, Out d_logits) {
    host::z_loss(context(), logits, static_cast<T>(weight), statistics, d_logits);
  }
  /// @}

  /// @name Token choice
  /// @{
  void token_choice(In logits, Values bias, RouterActivation activation, double alpha, bool full_depth, Out probabilities,
                    Results choice, Results gate) {
    host::token_choice(context(), logits, bias, activation, static_cast<T>(alpha), full_depth, probabilities, choice, gate);
  }
  void token_choice_backward(In probabilities, Values choice, RouterActivation activation, double alpha, Values d_gate,
                             In d_probabilities, Out d_logits) {
    host::token_choice_backward(context(), probabilities, choice, activation, static_cast<T>(alpha), d_gate,
                                d_probabilities, d_logits);
  }
  void token_choice_weights(Values choice, Values gate, Rows rows, Index step, bool gate_intermediate, bool additive,
                            Results scale, Results keep) {
    host::token_choice_weights(choice, gate, rows, step, gate_intermediate, additive, scale, keep);
  }
  void token_choice_weights_backward(Values choice, Rows rows, Index step, bool gate_intermediate, Values d_scale,
                                     Results d_gate) {
    host::token_choice_weights_backward(choice, rows, step, gate_intermediate, d_scale, d_gate);
  }
  void balance_loss(In probabilities, Values choice, double weight, Results statistics, Out d_probabilities) {
    host::balance_loss(context(), probabilities, choice, static_cast<T>(weight), statistics, d_probabilities);
  }
  /// @}

  /// @name Sampling
  /// @{
  void sample(In logits, std::span<SamplingRule const> rules, std::span<Token const> history, std::span<Token> tokens,
              Results log_probabilities) {
    host::sample(context(), logits, rules, history, tokens, log_probabilities);
  }
  /// @}

  /// @name Serving: layers of a few rows, composed of the verbs above
  /// @{
  void norm_linear(In x, Values norm_weights, double eps, In weights, Out out) {
    auto const mark = arena_.mark();
    linear(normed(x, norm_weights, eps), weights, out);
    arena_.release(mark);
  }
  void norm_logits(In x, Values norm_weights, double eps, In weights, Rows /*count*/, Out out) {
    auto const mark = arena_.mark();
    linear_logits(normed(x, norm_weights, eps), weights, 1.0, out);
    arena_.release(mark);
  }
  void norm_swiglu(In x, Values norm_weights, double eps, In gate_up_weights, Out out) {
    auto const mark = arena_.mark();
    auto const gate_up = arena_.matrix<T>(x.rows, gate_up_weights.rows);
    linear(normed(x, norm_weights, eps), gate_up_weights, gate_up);
    swiglu(gate_up, out);
    arena_.release(mark);
  }
  void project_keys(In x, Values norm_weights, double eps, In qkv_weights, Rows positions, Index head_dim, double theta,
                    KeyList const& write, Out q, Out plane_k, Out plane_v) {
    auto const mark = arena_.mark();
    auto const qkv = arena_.matrix<T>(x.rows, qkv_weights.rows);
    norm_linear(x, norm_weights, eps, qkv_weights, qkv);
    rope(positions, head_dim, theta, Rotation::Forward, qkv.columns(0, q.cols + plane_k.cols));
    copy(qkv.columns(0, q.cols), q);
    write_keys(qkv.columns(q.cols, plane_k.cols), write, plane_k);
    write_keys(qkv.columns(q.cols + plane_k.cols, plane_v.cols), write, plane_v);
    arena_.release(mark);
  }
  /// @}

  /// @name Serving: rows of mixed depth
  /// @{
  using Reports = host::Reports;
  using Replays = host::Replays;
  void scatter_values(Values values, Rows rows, Results out) { host::scatter_values(values, rows, out); }
  void move_rows(In x, Rows from, Rows to, Out out) { host::move_rows(context(), x, from, to, out); }
  void fill_values(double value, Results out) { std::fill(out.begin(), out.end(), static_cast<T>(value)); }
  void pick_columns(In x, Rows columns, Index shift, Results out) { host::pick_columns(x, columns, shift, out); }
  void limit_choice(In probabilities, Rows least, Rows most, Results choice, Results gate) {
    host::limit_choice(probabilities, least, most, choice, gate);
  }
  void choice_weights(Values choice, Values gate, Rows depths, bool gate_intermediate, bool additive, Results scale,
                      Results keep, Results scores) {
    host::choice_weights(choice, gate, depths, gate_intermediate, additive, scale, keep, scores);
  }
  void apply_edits(std::span<TableEdit const> edits, ServingTables const& tables) { host::apply_edits(edits, tables); }
  void start_recursion(ServingTables const& tables, TickRule const& rule, ServingRows const& rows) {
    host::start_recursion(tables, rule, rows);
  }
  void finish_recursion(ServingTables const& tables, ServingRows const& rows, Values scores, ServingReport const& report) {
    host::finish_recursion(tables, rows, scores, report);
  }
  void collect_finished(ServingTables const& tables, TickRule const& rule, ServingReport const& report, ServingRows const& rows,
                        SampledRows const& sampled) {
    host::collect_finished(tables, rule, report, rows, sampled);
  }
  void commit_samples(ServingTables const& tables, ServingRows const& rows, SampledRows const& sampled,
                      std::span<Token const> tokens, Values log_probabilities, ServingReport const& report) {
    host::commit_samples(tables, rows, sampled, tokens, log_probabilities, report);
  }
  void collect_entering(ServingTables const& tables, ServingRows const& rows, std::span<Token> tokens,
                        ServingReport const& report) {
    host::collect_entering(tables, rows, tokens, report);
  }
  void end_tick(ServingTables const& tables, ServingReport const& report, TickLog const& log, Replays::Loop const& loop) {
    bool const again = host::end_tick(tables, report, log, loop.again != nullptr);
    if (loop.again != nullptr) *loop.again = again;
  }
  /// @}

  /// @name Optimizer
  /// @{
  void add_squares(Values gradients, ParameterGroup group, Record record) {
    record[0].group(group).squares += host::squared_norm(context(), gradients);
  }
  void add_loss(Values losses, double weight, Record record) { record[0].collected_loss += weight * sum(losses); }
  void decide_update(AdamwSettings const& settings, Values learning_rate, Record record) {
    math::decide_update(settings, learning_rate[0], record[0]);
  }
  void adamw(Values gradients, AdamwSettings const& settings, ParameterGroup group, Records record, Results weights,
             Results first_moment, Results second_moment, Results) {
    host::adamw(context(), gradients, settings, group, record[0], weights, first_moment, second_moment);
  }
  void cast_weights(Values master, Results weights) { std::copy(master.begin(), master.end(), weights.begin()); }
  /// @}

 private:
  [[nodiscard]] Context context() { return {arena_, threads_}; }
  [[nodiscard]] In normed(In x, Values weights, double eps) {
    auto const out = arena_.matrix<T>(x.rows, x.cols);
    rms_norm(x, weights, eps, out, arena_.allocate<T>(x.rows));
    return out;
  }

  std::unique_ptr<HostMemory> memory_;  // first: everything below gives its memory back to it
  Arena arena_;
  RopeTable<T> rope_;
  int threads_;
};

static_assert(mor::Backend<Backend<float>>);
static_assert(mor::Backend<Backend<double>>);
static_assert(mor::ServingBackend<Backend<float>>);
static_assert(mor::ServingBackend<Backend<double>>);
static_assert(mor::PacesTicks<Backend<float>>);

}  // namespace mor::host
