// SPDX-License-Identifier: Apache-2.0
/// @file
/// `Stages`: the device's half of a serving engine. R takes rows once round the block at any mix of depths, C takes
/// finished rows through coda, head and sampling, P takes new tokens through embedding and prelude.
#pragma once

#include "mor/infer/launch_sizes.hpp"
#include "mor/infer/list_rules.hpp"
#include "mor/infer/planner.hpp"
#include "mor/infer/serving_head.hpp"
#include "mor/infer/serving_layer.hpp"
#include "mor/infer/serving_stack.hpp"
#include "mor/infer/serving_state.hpp"
#include "mor/model/kv_cache.hpp"

#include <span>
#include <utility>
#include <vector>

namespace mor::infer {

template <class Model>
class Stages {
 public:
  using B = typename Model::backend_type;
  using Router = typename Model::router_type;
  using Scalar = typename B::scalar_type;
  using Real = typename B::real_type;

  /// @param stacks  layers may run in one launch, and head and sampling in one, where the backend can do that: other kernels, with
  /// other last bits
  Stages(Model& model, ServingState<B>& state, ListRules const& rules, TickRule const& rule, Index block_pages, Index end_pages, RoutingMode mode, bool stacks)
      : model_(&model), state_(&state), rules_(rules), rule_(rule), mode_(mode), stack_(model.backend(), model.config().transformer, stacks),
        head_(model.backend(), model.config().transformer.hidden_size, model.config().transformer.vocab_size, stacks) {
    auto const& schedule = model.schedule();
    auto const& t = model.config().transformer;
    Index const page = state.tables().shape.page_size;
    for (Index j = 0; j < schedule.block_layers(); ++j) block_.emplace_back(backend(), block_pages * page, t.key_value_size());
    for (std::size_t l = 0; l < schedule.prelude.size() + schedule.coda.size(); ++l) {
      ends_.emplace_back(backend(), end_pages * page, t.key_value_size());
    }
  }

  [[nodiscard]] Index cache_bytes() const {
    Index bytes = 0;
    for (auto const* const planes : {&block_, &ends_}) {
      for (auto const& plane : *planes) bytes += 2 * plane.k().size() * static_cast<Index>(sizeof(Scalar));
    }
    return bytes;
  }

  /// Copies the first keys of pages, one after the other, before a tick. Few rows at a time: the arena, where captured work
  /// lives, must not grow.
  void copy_pages(std::span<PageCopy const> copies) {
    Row const page = static_cast<Row>(state_->tables().shape.page_size);
    for (bool const ends : {false, true}) {
      for (PageCopy const& copy : copies) {
        if (copy.ends != ends) continue;
        for (Row i = 0; i < static_cast<Row>(copy.keys); ++i) {
          from_.push_back(copy.from * page + i);
          to_.push_back(copy.to * page + i);
          if (static_cast<Index>(from_.size()) == state_->rooms().largest()) copy_keys(ends ? ends_ : block_);
        }
      }
      if (!from_.empty()) copy_keys(ends ? ends_ : block_);
    }
  }

  /// R. @param longest  keys of a list at most  @param rows_apart  no text has more than one of the rows
  /// @param phase  the recursion that all rows take, where recursions run different layers; else 0
  void recursion(Index rows, Index phase, Index longest, bool rows_apart) {
    B& b = begin();
    auto const list = state_->recursion_rows(rows);
    auto const scores = take_recursion(list, phase, longest, rows_apart);
    b.finish_recursion(state_->tables(), list, scores, state_->report());
  }

  /// C, of all rows that there are.
  void finish(Index rows, Index samples, Index longest, bool rows_apart) {
    B& b = begin();
    auto const list = state_->finished_rows(rows);
    auto const drawn = state_->sampled_rows(samples);
    b.collect_finished(state_->tables(), TickRule{}, state_->report(), list, drawn);
    auto const tokens = state_->tokens(samples);
    auto const log_probabilities = draw(list, drawn, tokens, longest, rows_apart);
    b.commit_samples(state_->tables(), list, drawn, std::span<Token const>(tokens), log_probabilities, state_->report());
  }

  /// P.
  void enter(Index rows, Index longest, bool rows_apart) {
    B& b = begin();
    auto const list = state_->entering_rows(rows);
    auto const tokens = state_->tokens(rows);
    b.collect_entering(state_->tables(), list, tokens, state_->report());
    take_prelude(list, tokens, longest, rows_apart);
  }

  /// R, C and P, one after the other. @param ends  rows of C and of P  @param reported  called when nothing is missing from the report
  template <class Reported>
  void all(Index rows, Index ends, Index samples, Index longest, bool rows_apart, Reported const& reported) {
    B& b = begin();
    auto const list = state_->recursion_rows(rows), finished = state_->finished_rows(ends), entering = state_->entering_rows(ends);
    auto const drawn = state_->sampled_rows(samples);
    auto const tokens = state_->tokens(samples), entering_tokens = state_->tokens(ends);
    auto const scores = take_recursion(list, 0, longest, rows_apart);
    if constexpr (JoinsLists<B>) {
      b.finish_and_collect(state_->tables(), rule_, list, scores, state_->report(), finished, drawn);
    } else {
      b.finish_recursion(state_->tables(), list, scores, state_->report());
      b.collect_finished(state_->tables(), rule_, state_->report(), finished, drawn);
    }
    begin();
    auto const log_probabilities = draw(finished, drawn, tokens, longest, rows_apart);
    std::span<Token const> const made = tokens;
    if constexpr (JoinsLists<B>) {
      b.commit_and_collect(state_->tables(), finished, drawn, made, log_probabilities, state_->report(), entering, entering_tokens);
    } else {
      b.commit_samples(state_->tables(), finished, drawn, made, log_probabilities, state_->report());
      b.collect_entering(state_->tables(), entering, entering_tokens, state_->report());
    }
    reported();
    begin();
    take_prelude(entering, entering_tokens, longest, rows_apart);
  }

 private:
  /// Rows that are ready, once round the block. @return each one's score, in the arena; none where all go on
  std::span<Real const> take_recursion(ServingRows const& list, Index phase, Index longest, bool rows_apart) {
    B& b = backend();
    b.start_recursion(state_->tables(), rule_, list);
    auto const& schedule = model_->schedule();
    auto const& sets = schedule.recursions[static_cast<std::size_t>(phase)];
    copies_.clear();
    if (rules_.overlay) {
      for (Index r = 1; r < schedule.num_recursions(); ++r) copies_.push_back(block_list(list.base_begins, list.first_limits, r, longest));
    }
    TableRows<Scalar> const stream{state_->bank().hidden, list.cells};
    TableRows<Scalar> const kept = PassesAll<Router> ? stream : TableRows<Scalar>{};
    auto const x = layers(sets, {stream.table, stream.rows}, kept, list, rows_apart,
                          [&](std::size_t j) { return block_keys(list, phase, static_cast<Index>(j), longest); });
    if constexpr (PassesAll<Router>) {
      return {};
    } else {
      auto context = router_context();
      auto const rows = static_cast<Index>(list.cells.size());
      auto const scores = b.arena().template allocate<Real>(rows);
      model_->router().serve_step(context, model_->serving_router_state(), list,
                                  state_->order().first(static_cast<std::size_t>(rows)), x, state_->bank(), scores);
      return scores;
    }
  }

  /// Finished rows through the coda, and tokens drawn from those of them that make one. @return log-probabilities, in the arena
  std::span<Real const> draw(ServingRows const& list, SampledRows const& drawn, std::span<Token> tokens, Index longest, bool rows_apart) {
    B& b = backend();
    auto const& schedule = model_->schedule();
    TableRows<Scalar const> ends{state_->bank().hidden, drawn.cells};
    if (!schedule.coda.empty()) {
      auto const x = layers(schedule.coda, {state_->bank().hidden, list.cells}, {}, list, rows_apart,
                            [&](std::size_t l) { return end_keys(list, schedule.prelude.size() + l, longest); });
      ends = {x, drawn.sources};
    }
    auto const samples = static_cast<Index>(drawn.cells.size());
    auto const log_probabilities = b.arena().template allocate<Real>(samples);
    if (samples > 0) {
      auto const& t = model_->config().transformer;
      auto const views = model_->parameters().views();
      auto const& indices = model_->parameter_indices();
      auto const logits = b.arena().template matrix<Real>(samples, t.vocab_size);
      head_.sample(b, {views.weight_vector(indices.final_norm), t.rms_norm_eps, views.weight(indices.head)},
                   {ends, drawn.count, drawn.rules, state_->tables().texts(), logits, tokens, log_probabilities});
    }
    return log_probabilities;
  }

  /// New tokens through embedding and prelude.
  void take_prelude(ServingRows const& list, std::span<Token const> tokens, Index longest, bool rows_apart) {
    B& b = backend();
    auto const& prelude = model_->schedule().prelude;
    auto const embedding = model_->parameters().views().weight(model_->parameter_indices().embedding);
    TableRows<Scalar> const stream{state_->bank().hidden, list.cells};
    if (PassesAll<Router> && prelude.empty()) return b.move_rows(embedding, tokens, stream.rows, stream.table);
    auto const x = layers(prelude, {embedding, tokens}, stream, list, rows_apart,
                          [&](std::size_t l) { return end_keys(list, l, longest); });
    if constexpr (!PassesAll<Router>) {
      auto context = router_context();
      model_->router().serve_enter(context, model_->serving_router_state(), list, state_->order().first(list.cells.size()), x, state_->bank());
    }
  }

  /// Copies rows `from_` to rows `to_` of storage.
  void copy_keys(std::vector<PagedPlane<B>> const& planes) {
    B& b = begin();
    auto const from = b.upload(std::span<Row const>(from_)), to = b.upload(std::span<Row const>(to_));
    for (auto const& plane : planes) {
      for (View<Scalar> const storage : {plane.k(), plane.v()}) {
        auto const mark = b.arena().mark();
        auto const rows = b.arena().template matrix<Scalar>(static_cast<Index>(from_.size()), storage.cols);
        b.gather_rows(storage, from, rows);
        b.scatter_rows(rows, to, storage);
        b.arena().release(mark);
      }
    }
    from_.clear();
    to_.clear();
  }

  [[nodiscard]] B& backend() const { return model_->backend(); }
  [[nodiscard]] Index hidden_size() const { return model_->config().transformer.hidden_size; }
  B& begin() {
    backend().arena().reset();
    return backend();
  }

  /// Layers of the parameter sets `sets`, one after the other. @param from  what goes in  @param kept  where there is a table, its
  /// rows get the results too  @param keys_of  the keys of the n-th
  template <class KeysOf>
  View<Scalar> layers(std::vector<Index> const& sets, TableRows<Scalar const> const& from, TableRows<Scalar> const& kept, ServingRows const& rows,
                      bool rows_apart, KeysOf const& keys_of) {
    B& b = backend();
    Index const count = static_cast<Index>(from.rows.size());
    auto const views = model_->parameters().views();
    auto const parameters = [&](std::size_t n) -> LayerParameters const& {
      return model_->parameter_indices().layers[static_cast<std::size_t>(sets[n])];
    };
    stack_.clear();
    for (std::size_t n = 0; n < sets.size() && stack_.add(count, views, parameters(n), keys_of(n)); ++n) {
    }
    auto x = b.arena().template matrix<Scalar>(count, hidden_size());
    if (!sets.empty() && stack_.size() == sets.size()) {
      stack_.run(b, {from, rows.positions, rows.count, rows_apart, x, kept});
      return x;
    }
    b.gather_rows(from.table, from.rows, x);
    for (std::size_t n = 0; n < sets.size(); ++n) {
      auto const out = b.arena().template matrix<Scalar>(count, hidden_size());
      serve_layer(b, model_->config().transformer, views, parameters(n), x, rows.positions, keys_of(n), out);
      x = out;
    }
    if (kept.table.data != nullptr) b.scatter_rows(x, kept.rows, kept.table);
    return x;
  }

  /// Each row is a sequence of its own.
  [[nodiscard]] KeyList rows_list(std::span<Row const> begins, std::span<Row const> limits, std::span<Row const> pages,
                                  Index longest) const {
    KeyList list;
    list.num_sequences = list.num_queries = static_cast<Index>(begins.size());
    list.max_limit = longest;
    list.query_offsets = state_->order().first(begins.size() + 1);
    list.host_query_offsets = state_->host_order().first(begins.size() + 1);
    list.key_begin = begins;
    list.limits = limits;
    list.page_size = state_->tables().shape.page_size;
    list.pages = pages;
    return list;
  }
  /// Lists of the block, `shift` recursions after those that `begins` names.
  [[nodiscard]] KeyList block_list(std::span<Row const> begins, std::span<Row const> limits, Index shift, Index longest) const {
    auto const& tables = state_->tables();
    return rows_list(begins, limits, tables.block_page_table().subspan(static_cast<std::size_t>(tables.list_begin(shift, 0))),
                     longest);
  }

  [[nodiscard]] ServedKeys<B> block_keys(ServingRows const& rows, Index phase, Index j, Index longest) const {
    ServedKeys<B> keys;
    auto const place = model_->schedule().first_use(phase, j);
    auto const* plane = &block_[static_cast<std::size_t>(j)];
    if (!rules_.shared) {
      keys.read = keys.write = block_list(rows.begins, rows.limits, 0, longest);
      keys.copies = copies_;
    } else if (rules_.lists == 1) {  // rows of the first recursion write, all read
      keys.read = block_list(rows.base_begins, rows.base_limits, 0, longest);
      keys.write = block_list(rows.base_begins, rows.first_limits, 0, longest);
    } else {  // recursions of layers of their own: all rows are in the same one
      plane = &block_[static_cast<std::size_t>(place.layer)];
      keys.read = keys.write = block_list(rows.base_begins, rows.base_limits, place.recursion, longest);
      keys.project = place == LayerSchedule::Place{phase, j};
    }
    keys.plane_k = plane->k();
    keys.plane_v = plane->v();
    return keys;
  }
  [[nodiscard]] ServedKeys<B> end_keys(ServingRows const& rows, std::size_t plane, Index longest) const {
    ServedKeys<B> keys;
    keys.read = keys.write = rows_list(rows.begins, rows.limits, state_->tables().end_page_table(), longest);
    keys.plane_k = ends_[plane].k();
    keys.plane_v = ends_[plane].v();
    return keys;
  }

  [[nodiscard]] RouterContext<B> router_context() const {
    return {backend(), model_->config().transformer, model_->config().recursion, model_->parameters().views(), mode_, false, {}, 1.0,
            {}, {}, {}, {}};
  }

  Model* model_;
  ServingState<B>* state_;
  ListRules rules_;
  TickRule rule_;
  RoutingMode mode_;
  ServingStack<B> stack_;
  ServingHead<B> head_;
  std::vector<PagedPlane<B>> block_, ends_;
  std::vector<KeyList> copies_;
  std::vector<Row> from_, to_;
};

}  // namespace mor::infer
