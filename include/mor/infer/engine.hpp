// SPDX-License-Identifier: Apache-2.0
/// @file
/// `Engine`: serves many requests at once with continuous depth-wise batching (docs/inference.md). The unit of work is a
/// row, (slot, position, depth); a token that needs no further recursion leaves at once and another takes its place.
#pragma once

#include "mor/contract/device_pacing.hpp"
#include "mor/infer/coda_forecast.hpp"
#include "mor/infer/engine_options.hpp"
#include "mor/infer/engine_setup.hpp"
#include "mor/infer/launch_sizes.hpp"
#include "mor/infer/list_rules.hpp"
#include "mor/infer/planner.hpp"
#include "mor/infer/scheduler.hpp"
#include "mor/infer/serving_state.hpp"
#include "mor/infer/stages.hpp"

#include <algorithm>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace mor::infer {

/// The caller drives it: no thread is hidden in it, and one thread may call it at a time. It uses its model's backend and
/// keeps the model busy: do not run the model in between.
///
/// @tparam Model  a `RecursiveTransformer` on a backend that can serve, with a router that can be served
/// @tparam S      who works when (infer/scheduler.hpp)
template <class Model, class S = TickScheduler>
class Engine {
 public:
  using B = typename Model::backend_type;
  using Router = typename Model::router_type;
  static_assert(ServingBackend<B>, "Engine: this backend cannot serve (contract/serving.hpp).");
  static_assert(ServedRouter<Router, B>,
                "Engine: this router has no serve_enter and serve_step for rows of mixed depth (contract/serving_router.hpp).");
  static_assert(Scheduler<S>, "Engine: the second argument is not a scheduler (infer/scheduler.hpp).");
  static_assert(S::lock_step || model_reuses_block<Model>(),
                "Engine: with Sequence and MiddleSequence sharing every recursion runs layers of its own, so rows of different "
                "depths cannot share a launch. Use FullDepthScheduler, or a model with Cycle or MiddleCycle.");

  explicit Engine(Model& model, EngineOptions options = {}, S const& scheduler = {})
      : model_(&model),
        options_(checked(model, std::move(options))),
        rule_(checked(model, scheduler.rule())),
        rules_(ListRules::of<Router, typename Model::cache_type>(model.schedule())),
        alike_(ListRules::all_alike(model.schedule())),
        setup_(planner_setup(model, options_, rules_, S::full_depth)),
        sizes_{*options_.pad_rows, options_.few_rows},
        planner_(setup_),
        forecast_(rule_, setup_.shape.recursions),
        state_(model.backend(), setup_.shape, rooms(), model.config().transformer.hidden_size, Router::keeps_entry,
               options_.ticks_per_launch),
        stages_(model, state_, rules_, rule_, setup_.block_pages, setup_.end_pages, options_.mode,
                !options_.row_invariant),
        reports_(model.backend(), static_cast<Index>(std::max(state_.report_words().size(), state_.log().words.size())),
                 options_.ticks_in_flight + 1),
        replays_(model.backend()) {
    set_serving(true);
    try {
      if (B::Replays::captures) reserve();
    } catch (...) {
      set_serving(false);
      throw;
    }
  }
  Engine(Engine const&) = delete;
  Engine& operator=(Engine const&) = delete;
  ~Engine() { set_serving(false); }

  /// Queues a request. Throws InvalidArgument where it can never be served, OutOfMemory where the queue is full or the text
  /// would not fit the key storage alone.
  RequestId submit(Request request) {
    check_works("Engine::submit");
    return planner_.submit(std::move(request));
  }
  /// @param prompt  at least one token; the text may have `EngineOptions::context` tokens in all
  RequestId submit(std::vector<Token> prompt, SamplingParams const& sampling) {
    Request request;
    request.prompt = std::move(prompt);
    request.sampling = sampling;
    return submit(std::move(request));
  }

  /// Ends a request wherever it is; false where it is unknown or has ended. `Finished` comes with the next `step`.
  bool cancel(RequestId id) {
    check_works("Engine::cancel");
    return planner_.cancel(id);
  }

  /// One tick: admission, one recursion, coda, sampling, prelude; or up to `ticks_per_launch` ticks after one
  /// admission. @return what happened since the last call, valid until the next one; `submit` and `cancel` are allowed
  /// meanwhile. Where the device is not the host, or goes on by itself, tokens come some ticks after they were launched.
  /// Where it throws (no memory, a device's failure), the tables hold half a tick: every later call that would change
  /// something throws too (InvalidArgument), and the engine can only be destroyed.
  std::span<Event const> step() {
    check_works("Engine::step");
    failed_ = true;  // until all is well
    advance();
    failed_ = false;
    return planner_.hand_out_events();
  }

  /// Nothing runs, nothing waits, and every event has been given out.
  [[nodiscard]] bool idle() const { return planner_.idle() && reports_.pending() == 0 && !planner_.has_events(); }

  [[nodiscard]] EngineStatistics statistics() const { return planner_.statistics(); }
  [[nodiscard]] EngineOptions const& options() const { return options_; }
  /// Bytes of keys and values that were allocated.
  [[nodiscard]] Index cache_bytes() const { return stages_.cache_bytes(); }
  /// Forgets the keys that were kept for later requests.
  void drop_prefixes() { planner_.drop_prefixes(); }

 private:
  void check_works(char const* where) const { require(!failed_, "an earlier step has failed: make a new engine", where); }
  static EngineOptions checked(Model const& model, EngineOptions options) {
    options.check();
    auto const& config = model.config();
    Index const longest = config.transformer.max_position_embeddings;
    if (options.context == 0) options.context = longest;
    require(options.context >= 2 && options.context <= longest, "texts cannot be longer than the model's context, nor shorter than 2",
            "EngineOptions, context");
    options.prefill_chunk = std::min(options.prefill_chunk, options.prefill_rows);
    if (config.recursion.random_router) {
      fail(ErrorCode::InvalidArgument, "the random router is a control of experiments and is not served", "Engine",
           "a model whose router decides", "random_router");
    }
    if constexpr (requires { Router::kind; }) {
      if (Router::kind == RouterKind::ExpertChoice && options.mode == RoutingMode::AuxRouter &&
          config.recursion.sampling != RouterSampling::AuxRouter) {
        fail(ErrorCode::InvalidArgument, "this model has no auxiliary router", "EngineOptions, mode",
             "threshold or full_depth", "aux_router");
      }
    }
    if (!options.pad_rows) options.pad_rows = B::Replays::captures;
    if (!PacesTicks<B> || !ListRules::all_alike(model.schedule())) options.ticks_per_launch = 1;
    return options;
  }
  static TickRule checked(Model const& model, TickRule rule) {
    require(rule.most_rows >= 0 && rule.least_finished >= 0, "a scheduler counts rows from 0", "Engine, scheduler");
    require(rule.most_rows == 0 || !(rule.in_step || rule.one_depth), "a recursion of so many rows at most takes them at any depth",
            "Engine, scheduler");
    if (model.schedule().num_recursions() == 1) rule.in_step = false;  // rows cannot be otherwise
    if (rule.in_step || ListRules::all_alike(model.schedule())) return rule;
    fail(ErrorCode::InvalidConfig, "recursions of different layers cannot share a launch", "Engine",
         "a schedule whose recursions run the same layers, or FullDepthScheduler", "another schedule");
  }

  [[nodiscard]] StageRooms rooms() const {
    Index const cells = launch_size(setup_.shape.cells()), slots = launch_size(setup_.shape.slots);
    return {cells, cells, slots, cells};
  }

  /// Backends may have kernels for few rows that only serving asks for.
  void set_serving(bool on) {
    B& b = model_->backend();
    if constexpr (requires { b.set_serving(on); }) b.set_serving(on);
    if constexpr (requires { b.set_row_invariant(on); }) b.set_row_invariant(on && options_.row_invariant);
  }

  /// Runs the largest launches on empty tables, so that no memory moves once work has been captured.
  void reserve() {
    StageRooms const& most = state_.rooms();
    Index const longest = launch_keys(options_.context);
    stages_.recursion(most.recursion, 0, longest, false);
    stages_.finish(most.finished, most.sampled, longest, false);
    stages_.enter(most.entering, longest, false);
    model_->backend().arena().reset();
  }

  /// The work of `step`.
  void advance() {
    while (reports_.pending() > 0 && reports_.arrived()) absorb_oldest();
    while (reports_.pending() >= (counted_ ? 1 : options_.ticks_in_flight)) {
      reports_.wait();
      absorb_oldest();
    }
    Index const ticks = options_.ticks_per_launch;
    TickDemand demand = planner_.plan(tick_ + 1, reports_.pending() * ticks, ticks);
    bool const exact = !alike_ || (!replays_.captures && ticks == 1) || asks(demand);
    counted_ = exact || sizes_.too_loose(most_rows(demand), demand.decoding, demand.loose_rows);
    if (counted_) {
      wait_for_all();
      ++planner_.counters().counted_ticks;
    }
    apply_edits();
    if (demand.rows() == 0) {
      if (reports_.pending() > 0) wait_for_all();
      return;
    }
    ++tick_;
    exact ? exact_tick(demand) : tick(demand);
  }

  void apply_edits() {
    B& b = model_->backend();
    b.arena().reset();
    if (!planner_.edits().clears().empty()) b.apply_edits(planner_.edits().clears(), state_.tables());
    if (!planner_.edits().sets().empty()) b.apply_edits(planner_.edits().sets(), state_.tables());
    if (!planner_.edits().copies().empty()) stages_.copy_pages(planner_.edits().copies());
    planner_.edits_made();
  }

  /// The report of a tick, or the log of a launch of several.
  void absorb_oldest() {
    auto const words = reports_.front();
    if (launched_.empty()) {
      absorb(words);
    } else {
      absorb_log(words, launched_.front());
      launched_.pop_front();
    }
    ++first_reported_;
    reports_.pop();
  }
  void absorb(std::span<Row const> words) {
    auto const at = [&](ServingReport::Header word) { return Index{words[static_cast<std::size_t>(word)]}; };
    sampled_lately_ = std::max(at(ServingReport::SampledRows), sampled_lately_ * 7 / 8);
    ready_ = at(ServingReport::ReadyRows) + at(ServingReport::EnteredRows);
    waiting_ = std::max<Index>(0, at(ServingReport::WaitingRows) - at(ServingReport::FinishedRows));
    samples_ = std::max<Index>(0, at(ServingReport::WaitingSamples) - at(ServingReport::SampledRows));
    if (at(ServingReport::FinishedRows) > 0) {
      ++planner_.counters().coda_ticks;
      left_behind_ = waiting_ > 0;
    }
    forecast_.reported(words);
    planner_.absorb(first_reported_, words, state_.rooms().finished);
  }
  void absorb_log(std::span<Row const> words, Index rows) {
    TickLog const log = state_.log();
    Index const ticks = words[TickLog::Ticks];
    for (Index i = 0; i < ticks; ++i) absorb(words.subspan(static_cast<std::size_t>(log.report(i))));
    planner_.called(words[TickLog::Calls]);
    count_ticks(ticks, rows);
  }
  void count_ticks(Index ticks, Index rows) {
    auto& counters = planner_.counters();
    counters.ticks += ticks;
    counters.launched_rows += ticks * rows;
  }
  void wait_for_all() {
    while (reports_.pending() > 0) {
      reports_.wait();
      absorb_oldest();
    }
  }
  void post() { reports_.post(std::span<Row const>(state_.report_words())); }

  void run_recursion(Index rows, Index longest, bool rows_apart) {
    Index const phase = alike_ ? 0 : phase_;
    replays_.run(launch_key(LaunchKind::Recursion, rows, phase, longest, rows_apart),
                 [&] { stages_.recursion(rows, phase, longest, rows_apart); });
    ++phase_;
    planner_.counters().launched_rows += rows;
  }
  /// No text has two rows at work.
  [[nodiscard]] static bool apart(TickDemand const& demand) { return demand.rows_of_text <= 1; }
  /// Rows of a recursion at most.
  [[nodiscard]] Index most_rows(TickDemand const& demand) const {
    Index const all = demand.rows();
    return rule_.most_rows > 0 ? std::min(all, std::max(rule_.most_rows, rule_.most_decoding(demand.prompt_rows) + demand.prompt_rows)) : all;
  }
  /// Whether the host waits for what the rule decides. Where rows wait for others, many fewer may take part than a bound says, and
  /// only launches of few rows take their time by what there is. Prompts come into step by the host. And where a coda had no room for
  /// rows, which are always those of the last cells, the next one takes all.
  [[nodiscard]] bool asks(TickDemand const& demand) const {
    if (!rule_.holds_back()) return false;
    return most_rows(demand) > options_.few_rows || (rule_.in_step && demand.entering_prompt > 0) || (rule_.most_rows > 0 && left_behind_);
  }

  /// A tick whose sizes are upper bounds, or several: the host does not wait for what the device decides. Where no report is
  /// missing it knows how many rows are ready.
  void tick(TickDemand const& demand) {
    bool const single = options_.ticks_per_launch == 1 || counted_;
    Index const most = most_rows(demand), longest = sizes_.keys(demand.longest);
    bool const known = single && reports_.pending() == 0 && most > options_.few_rows;
    Index const rows = sizes_.rows(known ? std::clamp<Index>(ready_, 1, most) : most);
    // For the prelude too, which takes all rows of prompts; others that find no room enter with the next tick.
    Index const end_rows = std::max(most, rule_.most_rows > 0 ? std::min(demand.rows(), options_.few_rows) : most);
    Index const coda = sizes_.coda(sizes_.rows(end_rows), sampled_lately_ + std::max(demand.due_prompt, demand.entering_prompt));
    bool const rows_apart = apart(demand), ends = !single || !rule_.waits_to_finish() || demand.entering_prompt > 0 || forecast_.likely();
    auto const work = [&](auto const& reported) {  // which writes every word of the report's header
      if (ends) return stages_.all(rows, coda, std::min(coda, state_.rooms().sampled), longest, rows_apart, reported);
      stages_.recursion(rows, 0, longest, rows_apart);
      reported();
    };
    if (single) {
      std::span<Row const> const report = state_.report_words();
      replays_.run(launch_key(ends ? LaunchKind::Tick : LaunchKind::TickOfNone, rows, ends ? coda : 0, longest, rows_apart), [&] {
        work([&] { reports_.send(report); });
        reports_.settle();
      });
      forecast_.launched(ends);
      reports_.expect(static_cast<Index>(report.size()));
      count_ticks(1, rows);
    } else if constexpr (PacesTicks<B>) {
      auto const key = launch_key(LaunchKind::Ticks, rows, coda, longest, rows_apart);
      replays_.run_while(key, [&](typename B::Replays::Loop const& loop) {
        work([] {});
        model_->backend().end_tick(state_.tables(), state_.report(), state_.log(), loop);
      });
      reports_.post(std::span<Row const>(state_.log().words));
      launched_.push_back(rows);
    }
    ++planner_.counters().launches;
    if (ends) planner_.prelude_ran();
  }

  /// A tick in two parts: what the recursion has decided is known before the rest is launched.
  void exact_tick(TickDemand const& demand) {
    Index const longest = sizes_.keys(demand.longest);
    bool const rows_apart = apart(demand);
    auto& counters = planner_.counters();
    ++counters.ticks;
    ++counters.launches;
    model_->backend().fill(state_.report_words().first(ServingReport::HeaderWords), Row{0});  // stages may not run
    if (Index const rows = std::min(ready_, most_rows(demand)); rows > 0) {
      run_recursion(sizes_.rows(rows), longest, rows_apart);
      post();
      reports_.wait();
      auto const words = reports_.front();
      ready_ = words[ServingReport::ReadyRows];
      waiting_ = words[ServingReport::WaitingRows];
      samples_ = words[ServingReport::WaitingSamples];
      reports_.pop();
    }
    bool const finishes = rule_.finishes(ready_, waiting_);
    Index const finished = finishes ? waiting_ : 0, samples = finishes ? samples_ : 0;
    Index const entering = samples + (finishes || !rule_.in_step ? demand.entering_prompt : 0);
    if (finished > 0) {
      Index const rows = sizes_.rows(finished), drawn = sizes_.drawn(rows, samples, state_.rooms().sampled);
      replays_.run(launch_key(LaunchKind::Finish, rows, drawn, longest, rows_apart), [&] { stages_.finish(rows, drawn, longest, rows_apart); });
    }
    if (entering > 0) {
      Index const rows = sizes_.rows(entering);
      replays_.run(launch_key(LaunchKind::Enter, rows, 0, longest, rows_apart), [&] { stages_.enter(rows, longest, rows_apart); });
      planner_.prelude_ran();
    }
    post();
    reports_.wait();
    if (reports_.front()[ServingReport::EnteredRows] > 0) phase_ = 0;
    first_reported_ = tick_;
    absorb_oldest();
  }

  Model* model_;
  EngineOptions options_;
  TickRule rule_;
  ListRules rules_;
  bool alike_;
  PlannerSetup setup_;
  LaunchSizes sizes_;
  Planner planner_;
  CodaForecast forecast_;
  ServingState<B> state_;
  Stages<Model> stages_;
  typename B::Reports reports_;
  typename B::Replays replays_;
  std::deque<Index> launched_;  ///< rows of launches of several ticks that have not reported
  Index tick_ = 0;            ///< launched: a tick, or several in one launch
  Index first_reported_ = 1;  ///< the one whose report comes next
  Index ready_ = 0, waiting_ = 0, samples_ = 0;  ///< after the tick that was reported last; upper bounds after edits
  Index phase_ = 0;           ///< recursions since rows entered
  Index sampled_lately_ = 0;  ///< the most rows of a tick that made a token, fading
  bool left_behind_ = false;  ///< the last coda that was reported had no room for all rows that waited
  bool counted_ = false;      ///< the last tick was planned with all reports at hand
  bool failed_ = false;       ///< a step threw
};

}  // namespace mor::infer
