// SPDX-License-Identifier: Apache-2.0
/// @file
/// The forward pass, written once for every router, cache, sharing strategy and backend.
#pragma once

#include "mor/contract/router.hpp"
#include "mor/model/key_lists.hpp"
#include "mor/model/model_parameters.hpp"
#include "mor/model/pass_record.hpp"

#include <algorithm>
#include <tuple>
#include <utility>

namespace mor::detail {

/// Runs one pass. `keep` is true where a backward pass follows or no cache holds the keys: then every activation stays in
/// the arena. Otherwise a recursion's memory is released as soon as its output has joined the residual stream.
template <class Router, class B>
class ForwardPass {
 public:
  using Scalar = typename B::scalar_type;
  using Real = typename B::real_type;
  using RouterState = typename Router::template State<B>;

  ForwardPass(RouterContext<B>& context, Router const& router, RouterState& state, LayerSchedule const& schedule,
              PlaneMap const& planes, ModelParameters const& parameters, Recompute recompute, PassRecord<B>& record,
              KvCache<B>* cache)
      : context_(context), router_(router), state_(state), schedule_(schedule), planes_(planes), parameters_(parameters),
        record_(record), cache_(cache), keys_(context.backend, context.batch, cache),
        keep_(context.training || cache == nullptr),
        recompute_(context.training ? recompute : Recompute::Mlp),  // without a backward pass nobody reads it
        overlays_(any_source(KeySource::Overlay)) {}

  /// Leaves the final hidden rows in `record.last_hidden` and, normalised, in `record.normed`.
  void run() {
    B& b = context_.backend;
    Arena& arena = b.arena();
    auto const& t = context_.transformer;
    Index const rows = context_.batch.num_rows;
    View<Scalar> hidden = arena.matrix<Scalar>(rows, t.hidden_size);
    b.embed(record_.tokens, context_.parameters.weight(parameters_.embedding), hidden);
    record_.depths = arena.allocate<Row>(rows);
    b.fill(record_.depths, Row{0});

    hidden = run_ends(record_.prelude, schedule_.prelude, hidden, planes_.prelude(0));
    context_.hidden = hidden;
    run_recursions();
    record_.last_hidden = run_ends(record_.coda, schedule_.coda, context_.hidden, planes_.coda(0));
    record_.normed = arena.matrix<Scalar>(rows, t.hidden_size);
    record_.final_rstd = arena.allocate<Real>(rows);
    b.rms_norm(record_.last_hidden, context_.parameters.weight_vector(parameters_.final_norm), t.rms_norm_eps,
               record_.normed, record_.final_rstd);
    if (cache_ != nullptr) cache_->advance(0, context_.batch.host_offsets);
  }

 private:
  /// Prelude or coda: unique layers on every row.
  View<Scalar> run_ends(std::vector<LayerRecord<B>>& records, std::vector<Index> const& sets, View<Scalar> hidden,
                        Index first_plane) {
    records.resize(sets.size());
    for (std::size_t l = 0; l < sets.size(); ++l) {
      LayerKeys<B> keys;
      keys.list = keys_.whole_batch();
      if (cache_ != nullptr) {
        keys.plane_k = cache_->k(first_plane + static_cast<Index>(l));
        keys.plane_v = cache_->v(first_plane + static_cast<Index>(l));
      }
      hidden = run_layer(records[l], sets[l], hidden, context_.batch.positions, keys);
    }
    return hidden;
  }

  void run_recursions() {
    B& b = context_.backend;
    router_.begin(context_, state_);
    ActiveSet<Real> candidates = context_.batch;
    record_.steps.resize(static_cast<std::size_t>(schedule_.num_recursions()));
    View<Scalar> const stream = context_.hidden;
    for (Index r = 0; r < schedule_.num_recursions(); ++r) {
      auto& step = record_.steps[static_cast<std::size_t>(r)];
      step.num_candidates = candidates.num_rows;
      step.active = router_.select(context_, state_, r, candidates);
      check_first_step(step, r);
      b.count_rows(step.active.rows, record_.depths);
      auto const mark = b.arena().mark();
      run_block(step, r);
      router_.combine(context_, state_, r, step.active, step.output);
      // Released memory must hold nothing that is still read: keys under a later overlay, or the stream itself.
      if (!keep_ && !overlays_) {
        if (context_.hidden.data != stream.data) {
          b.copy(context_.hidden, stream);
          context_.hidden = stream;
        }
        b.arena().release(mark);
      }
      if (cache_ != nullptr) cache_->advance(r + 1, step.active.host_offsets);
      candidates = step.active;
    }
  }

  void check_first_step(StepRecord<B> const& step, Index r) const {
    if (r != 0 || step.active.num_rows == context_.batch.num_rows) return;
    if (any_source(KeySource::FirstUse) || overlays_) {
      fail(ErrorCode::InvalidConfig, "a shared cache needs every token in the first recursion", "router",
           text_of(context_.batch.num_rows) + " rows", text_of(step.active.num_rows));
    }
  }

  [[nodiscard]] bool any_source(KeySource wanted) const {
    for (auto const& sources : planes_.source) {
      if (std::find(sources.begin(), sources.end(), wanted) != sources.end()) return true;
    }
    return false;
  }

  /// The block on the active rows; keys as the cache policy says.
  void run_block(StepRecord<B>& step, Index r) {
    auto const recursion = static_cast<std::size_t>(r);
    auto const& sets = schedule_.recursions[recursion];
    auto const& active = step.active;
    step.layers.resize(sets.size());
    View<Scalar> x = block_input(active);
    KeyList const own = keys_.own_rows(active, r);
    KeyList const all = reads_batch(recursion) ? keys_.batch_rows(active) : KeyList{};
    for (std::size_t j = 0; j < sets.size(); ++j) {
      LayerKeys<B> keys = plane_keys(recursion, j);
      bool const own_rows = planes_.source[recursion][j] == KeySource::OwnRows;
      keys.list = own_rows ? own : all;
      x = run_layer(step.layers[j], sets[j], x, active.positions, keys);
    }
    step.output = x;
  }

  /// The rows that enter the block: the stream itself where `combine` will replace all of it, else a copy.
  View<Scalar> block_input(ActiveSet<Real> const& active) {
    if (active.everything && (active.gate.empty() || !keep_)) return context_.hidden;
    auto x = context_.backend.arena().template matrix<Scalar>(active.num_rows, context_.hidden.cols);
    context_.backend.gather_rows(context_.hidden, active.rows, x);
    return x;
  }

  bool reads_batch(std::size_t recursion) const {
    auto const& sources = planes_.source[recursion];
    return std::any_of(sources.begin(), sources.end(), [](KeySource s) { return s != KeySource::OwnRows; });
  }

  LayerKeys<B> plane_keys(std::size_t recursion, std::size_t j) {
    LayerKeys<B> keys;
    KeySource const source = planes_.source[recursion][j];
    keys.project = source != KeySource::FirstUse;
    if (cache_ != nullptr) {
      Index const plane = planes_.block[recursion][j];
      keys.plane_k = cache_->k(plane);
      keys.plane_v = cache_->v(plane);
      if (source == KeySource::Overlay) {
        auto const [base_k, base_v] = first_use_keys(recursion, j);
        context_.backend.write_keys(base_k, keys_.whole_batch(), keys.plane_k);
        context_.backend.write_keys(base_v, keys_.whole_batch(), keys.plane_v);
      }
    } else if (source == KeySource::FirstUse) {
      std::tie(keys.plane_k, keys.plane_v) = first_use_keys(recursion, j);
    } else if (source == KeySource::Overlay) {
      auto const [base_k, base_v] = first_use_keys(recursion, j);
      keys.plane_k = context_.backend.arena().template matrix<Scalar>(base_k.rows, base_k.cols);
      keys.plane_v = context_.backend.arena().template matrix<Scalar>(base_v.rows, base_v.cols);
      context_.backend.copy(base_k, keys.plane_k);
      context_.backend.copy(base_v, keys.plane_v);
    }
    return keys;
  }

  /// Keys and values (batch rows, K*E) that this call's first use of the same weights projected.
  std::pair<View<Scalar>, View<Scalar>> first_use_keys(std::size_t recursion, std::size_t j) {
    auto const place = schedule_.first_use(static_cast<Index>(recursion), static_cast<Index>(j));
    auto const& first =
        record_.steps[static_cast<std::size_t>(place.recursion)].layers[static_cast<std::size_t>(place.layer)].saved;
    Index const queries = context_.transformer.query_size();
    Index const kv = context_.transformer.key_value_size();
    return {first.qkv.columns(queries, kv), first.qkv.columns(queries + kv, kv)};
  }

  View<Scalar> run_layer(LayerRecord<B>& record, Index set, View<Scalar> x, std::span<Row const> positions,
                         LayerKeys<B> const& keys) {
    B& b = context_.backend;
    Arena& arena = b.arena();
    auto out = arena.matrix<Scalar>(x.rows, x.cols);
    record.keys = keys;
    record.saved = {};
    auto const& t = context_.transformer;
    if (!keep_ && overlays_) {  // an overlay of a later recursion reads these keys after the layer's memory is released
      record.saved.qkv = arena.matrix<Scalar>(x.rows, t.query_size() + (keys.project ? 2 * t.key_value_size() : 0));
    }
    auto const mark = arena.mark();
    DecoderLayer<B>::forward(b, t, context_.parameters, parameters_.layers[static_cast<std::size_t>(set)], x, positions,
                             keys, recompute_, out, record.saved);
    if (!keep_) arena.release(mark);
    return out;
  }

  RouterContext<B>& context_;
  Router const& router_;
  RouterState& state_;
  LayerSchedule const& schedule_;
  PlaneMap const& planes_;
  ModelParameters const& parameters_;
  PassRecord<B>& record_;
  KvCache<B>* cache_;
  KeyLists<B> keys_;
  bool keep_;
  Recompute recompute_;
  bool overlays_;
};

}  // namespace mor::detail
