// SPDX-License-Identifier: Apache-2.0
/// @file
/// `RecursiveModel`: forward, loss and backward of a model whose sharing strategy is data. `RecursiveTransformer` adds the
/// strategy's name and the checks.
#pragma once

#include "mor/contract/cache.hpp"
#include "mor/contract/router.hpp"
#include "mor/core/batch.hpp"
#include "mor/model/backward_pass.hpp"
#include "mor/model/forward_pass.hpp"
#include "mor/model/loss_report.hpp"
#include "mor/model/parameter_set.hpp"

#include <span>
#include <utility>
#include <vector>

namespace mor {

/// The heavy part of the model. It knows a sharing strategy only as data, so that strategies add no instantiation.
/// Use `RecursiveTransformer`.
template <class Router, class Cache, class B>
class RecursiveModel {
 public:
  using Scalar = typename B::scalar_type;
  using Real = typename B::real_type;
  using RouterState = typename Router::template State<B>;
  using router_type = Router;
  using cache_type = Cache;
  using backend_type = B;

  RecursiveModel(B& backend, ModelConfig config, Router router, LayerSchedule schedule)
      : backend_(&backend),
        config_(std::move(config)),
        router_(std::move(router)),
        schedule_(std::move(schedule)),
        planes_(PlaneMap::make<Cache>(schedule_)),
        parameters_(backend, declare()),
        statistics_(backend.memory(), StatisticsLayout{config_.recursion.num_recursions}.size()) {
    backend.fill(statistics_view(), 0.0);
  }

  [[nodiscard]] ModelConfig const& config() const { return config_; }
  [[nodiscard]] LayerSchedule const& schedule() const { return schedule_; }
  [[nodiscard]] Router const& router() const { return router_; }
  [[nodiscard]] B& backend() const { return *backend_; }
  [[nodiscard]] ParameterSet<B>& parameters() { return parameters_; }
  [[nodiscard]] ParameterSet<B> const& parameters() const { return parameters_; }

  /// What the backward pass computes again, from the next `forward_backward` on; the gradients stay the same bits.
  void set_recompute(Recompute level) { recompute_ = level; }
  [[nodiscard]] Recompute recompute() const { return recompute_; }

  /// Random weights N(0, initializer_range^2) from a seed.
  void initialize(std::uint64_t seed) { parameters_.initialize(seed, config_.transformer.initializer_range); }

  /// Storage for incremental inference on `sequences` sequences of at most `capacity` tokens.
  [[nodiscard]] KvCache<B> make_cache(Index sequences, Index capacity) const {
    return KvCache<B>(*backend_, config_.transformer, planes_, config_.recursion.num_recursions, sequences, capacity);
  }

  /// One causal pass over whole sequences. @return logits [rows, V], valid until the next call of the model.
  View<Real const> forward(Batch const& batch, RoutingMode mode) {
    run_forward(batch, mode, false, {}, 1.0, nullptr);
    return logits_of(record_.normed);
  }

  /// As `forward`, with logits [rows.size(), V] of these rows only.
  View<Real const> forward(Batch const& batch, RoutingMode mode, std::span<Row const> rows) {
    check_rows(batch, rows);
    run_forward(batch, mode, false, {}, 1.0, nullptr);
    return logits_of(chosen_rows(rows));
  }

  /// Processes new tokens after those in `cache`, and stores their keys: prefill, chunked prefill and decode are this
  /// one call. @return logits [sequences, V] of the last row of each sequence, valid until the next call; every sequence
  /// must have at least one row.
  View<Real const> advance(Batch const& batch, KvCache<B>& cache, RoutingMode mode) {
    check_advance(batch, cache);
    run_forward(batch, mode, false, {}, 1.0, &cache);
    last_rows_.clear();
    for (Index s = 0; s < batch.sequences(); ++s) {
      last_rows_.push_back(batch.sequence_offsets[static_cast<std::size_t>(s) + 1] - 1);
    }
    return logits_of(chosen_rows(last_rows_));
  }

  /// As `advance`, with logits [rows, V] of every new row.
  View<Real const> advance_all(Batch const& batch, KvCache<B>& cache, RoutingMode mode) {
    check_advance(batch, cache);
    run_forward(batch, mode, false, {}, 1.0, &cache);
    return logits_of(record_.normed);
  }

  /// Negative log-likelihood of `targets` [rows] (a negative target is ignored). @return one value a row, in nats.
  std::span<Real const> loss(Batch const& batch, std::span<Token const> targets, RoutingMode mode) {
    check_targets(batch.rows(), targets);
    run_forward(batch, mode, false, {}, 1.0, nullptr);
    record_.losses = backend_->arena().template allocate<Real>(batch.rows());
    backend_->head_loss(record_.normed, views().weight(indices_.head), backend_->upload(targets), record_.losses);
    return record_.losses;
  }

  /// As `loss`, of these rows only: targets and result [rows.size()].
  std::span<Real const> loss(Batch const& batch, std::span<Token const> targets, RoutingMode mode,
                             std::span<Row const> rows) {
    check_targets(static_cast<Index>(rows.size()), targets);
    check_rows(batch, rows);
    run_forward(batch, mode, false, {}, 1.0, nullptr);
    record_.losses = backend_->arena().template allocate<Real>(static_cast<Index>(rows.size()));
    backend_->head_loss(chosen_rows(rows), views().weight(indices_.head), backend_->upload(targets), record_.losses);
    return record_.losses;
  }

  /// One micro-batch of training: forward, loss, backward; gradients accumulate until `zero_gradients`. Nothing is read
  /// back from the device: call `report` when a number is wanted.
  void forward_backward(Batch const& batch, std::span<Token const> targets, TrainingProgress const& progress,
                        LossWeights const& weights) {
    check_targets(batch.rows(), targets);
    require(!parameters_.gradients().empty(), "call parameters().enable_gradients() first", "forward_backward");
    RouterContext<B> context = run_forward(batch, RoutingMode::TopK, true, progress, weights.router, nullptr);
    record_.losses = backend_->arena().template allocate<Real>(batch.rows());
    auto d_normed = backend_->arena().template matrix<Scalar>(batch.rows(), config_.transformer.hidden_size);
    backend_->head_loss_backward(record_.normed, views().weight(indices_.head), backend_->upload(targets),
                                 weights.language_model, record_.losses, d_normed, views().gradient(indices_.head));
    detail::BackwardPass<Router, B>(context, router_, router_state_, schedule_, planes_, indices_, record_,
                                    key_gradients_)
        .run(d_normed);
  }

  /// Losses and routing figures of the last `loss` or `forward_backward`; waits for the device.
  [[nodiscard]] LossReport report() {
    LossReport report;
    report.loss_sum = backend_->sum(record_.losses);
    report.num_rows = record_.batch.num_rows;
    statistics_host_.resize(static_cast<std::size_t>(statistics_.size()));
    backend_->download(statistics_.span(), statistics_host_);
    StatisticsLayout const layout{config_.recursion.num_recursions};
    auto const at = [&](Index i) { return static_cast<double>(statistics_host_[static_cast<std::size_t>(i)]); };
    double candidates = 0.0, correct = 0.0;
    for (Index r = 0; r < config_.recursion.num_recursions; ++r) {
      auto const& step = record_.steps[static_cast<std::size_t>(r)];
      report.active_rows.push_back(step.active.num_rows);
      report.aux_loss += at(layout.aux(r));
      report.z_loss += at(layout.z(r));
      if (step.num_candidates > 0) {
        correct += at(layout.aux(r) + 1) / static_cast<double>(step.num_candidates);
        candidates += 1.0;
      }
      report.load.push_back(at(layout.load(r)));
    }
    report.balance_loss = at(layout.balance());
    report.sampling_accuracy = candidates > 0.0 ? correct / candidates : 0.0;
    return report;
  }

  /// Negative log-likelihoods of the last `loss` or `forward_backward`, one a row; in the backend's memory, until the next
  /// call of the model.
  [[nodiscard]] std::span<Real const> losses() const { return record_.losses; }

  /// Recursions that each row of the last call took; host copy of [rows].
  [[nodiscard]] std::vector<Row> depths() const {
    std::vector<Row> host(record_.depths.size());
    backend_->download(std::span<Row const>(record_.depths), host);
    return host;
  }

  /// Rows that entered recursion `step` in the last call, as indices into the batch; host copy.
  [[nodiscard]] std::vector<Row> active_rows(Index step) const {
    auto const& rows = record_.steps[static_cast<std::size_t>(step)].active.rows;
    std::vector<Row> host(rows.size());
    backend_->download(rows, host);
    return host;
  }

  /// For engines that run the layers themselves.
  [[nodiscard]] ModelParameters const& parameter_indices() const { return indices_; }
  [[nodiscard]] PlaneMap const& planes() const { return planes_; }
  [[nodiscard]] RouterState& serving_router_state() { return router_state_; }

  /// The router's buffers of the last call (logits, gates); for tests and tools.
  [[nodiscard]] RouterState const& router_state() const { return router_state_; }

  /// After an optimizer step: lets a router adapt what no gradient trains. `load` [Nr] is the share of tokens that chose
  /// each depth, averaged over the micro-batches of the step.
  void finish_step(std::span<double const> load) {
    if constexpr (requires(RouterState const& s, std::span<double> bias) { s.bias; router_.update_bias(bias, load); }) {
      if (router_state_.bias < 0) return;
      auto const& name = parameters_.layout()[router_state_.bias].name;
      auto const values = parameters_.read(name);
      std::vector<double> bias(values.begin(), values.end());
      router_.update_bias(bias, load);
      std::vector<Real> const updated(bias.begin(), bias.end());
      parameters_.write(name, updated);
      parameters_.publish(name);
    }
  }

 private:
  ParameterLayout declare() {
    ParameterLayout layout;
    indices_ = ModelParameters::declare(config_, schedule_, Router::naming, layout);
    router_.template declare<B>(router_state_, config_, router_names(Router::naming, schedule_), layout);
    return layout;
  }

  [[nodiscard]] ParameterViews<Scalar, Real> views() const { return parameters_.views(); }
  [[nodiscard]] View<Real> statistics_view() const { return {statistics_.data(), 1, statistics_.size()}; }

  void check_targets(Index rows, std::span<Token const> targets) const {
    if (static_cast<Index>(targets.size()) != rows) {
      fail(ErrorCode::InvalidArgument, "targets do not match tokens", "loss", text_of(rows) + " targets",
           text_of(targets.size()));
    }
    for (Token const target : targets) {
      if (target >= config_.transformer.vocab_size) {
        fail(ErrorCode::InvalidArgument, "a target is outside the vocabulary", "loss",
             "at most " + text_of(config_.transformer.vocab_size - 1), text_of(target));
      }
    }
  }

  static void check_rows(Batch const& batch, std::span<Row const> rows) {
    for (Row const row : rows) require(row >= 0 && row < batch.rows(), "no such row in the batch", "forward, loss");
  }

  void check_advance(Batch const& batch, KvCache<B> const& cache) const {
    batch.check(config_.transformer.vocab_size, "advance");
    for (Index s = 0; s < batch.sequences(); ++s) {
      auto const i = static_cast<std::size_t>(s);
      require(batch.sequence_offsets[i + 1] > batch.sequence_offsets[i], "every sequence needs at least one new token",
              "advance");
    }
    cache.check_room(batch);
  }

  RouterContext<B> run_forward(Batch const& batch, RoutingMode mode, bool training, TrainingProgress const& progress,
                               double router_weight, KvCache<B>* cache) {
    batch.check(config_.transformer.vocab_size, "RecursiveTransformer");
    B& b = *backend_;
    b.arena().reset();
    b.fill(statistics_view(), 0.0);
    set_batch(batch);
    RouterContext<B> context{b,    config_.transformer, config_.recursion, views(), mode, training, progress,
                             router_weight, record_.batch, {}, {}, statistics_.span()};
    detail::ForwardPass<Router, B>(context, router_, router_state_, schedule_, planes_, indices_, recompute_, record_,
                                   cache)
        .run();
    return context;
  }

  void set_batch(Batch const& batch) {
    auto const rows = static_cast<std::size_t>(batch.rows());
    for (std::size_t i = record_.iota.size(); i < rows; ++i) record_.iota.push_back(static_cast<Row>(i));
    ActiveSet<Real> set;
    set.num_rows = batch.rows();
    set.num_sequences = batch.sequences();
    set.everything = true;
    set.rows = backend_->upload(std::span<Row const>(record_.iota).first(rows));
    set.slots = set.rows;
    set.positions = backend_->upload(batch.positions);
    set.sequence_offsets = backend_->upload(batch.sequence_offsets);
    set.host_offsets = batch.sequence_offsets;
    record_.batch = set;
    record_.tokens = backend_->upload(batch.tokens);
    record_.losses = {};
  }

  View<Real const> logits_of(View<Scalar const> normed) {
    auto logits = backend_->arena().template matrix<Real>(normed.rows, config_.transformer.vocab_size);
    backend_->linear_logits(normed, views().weight(indices_.head), 1.0, logits);
    return logits;
  }

  View<Scalar const> chosen_rows(std::span<Row const> rows) {
    auto chosen =
        backend_->arena().template matrix<Scalar>(static_cast<Index>(rows.size()), config_.transformer.hidden_size);
    backend_->gather_rows(record_.normed, backend_->upload(rows), chosen);
    return chosen;
  }

  B* backend_;
  ModelConfig config_;
  Router router_;
  LayerSchedule schedule_;
  PlaneMap planes_;
  ModelParameters indices_;
  Recompute recompute_ = Recompute::None;
  RouterState router_state_;
  ParameterSet<B> parameters_;
  Buffer<Real> statistics_;
  detail::PassRecord<B> record_;
  std::vector<KeyGradients<B>> key_gradients_;
  std::vector<Row> last_rows_;
  std::vector<Real> statistics_host_;
};

}  // namespace mor
