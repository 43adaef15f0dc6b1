// SPDX-License-Identifier: Apache-2.0
/// @file
/// One benchmark of the serving engine, the same on every backend: bench_engine.cpp and bench_cuda_engine.cu say on what it
/// runs and with which arguments.
#pragma once

#include "depth_calibration.hpp"
#include "engine_workload.hpp"
#include "served_models.hpp"

#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/all_tokens.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/expert_choice.hpp"
#include "mor/policy/sharing.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <initializer_list>
#include <map>
#include <string>
#include <tuple>
#include <vector>

namespace mor::bench {

template <class B>
using VanillaOn = RecursiveTransformer<AllTokens, RecursionWiseCache, NoSharing, B>;
template <class B>
using MixtureOn = RecursiveTransformer<ExpertChoice<>, RecursionWiseCache, MiddleCycle, B>;

/// What a benchmark's arguments say.
struct EngineCase {
  Index model = 1;        ///< layers of vanilla; recursions of MoR
  Index slots = 32;
  Index batch = 32;       ///< rows of a launch; all slots but with `FullBatchScheduler`
  Index cache_bytes = 0;  ///< 0: what every slot can need
  Index ticks_per_launch = 1;
  Index prefill_rows = infer::EngineOptions{}.prefill_rows;
  WorkloadShape shape;
  bool calibrated = true;  ///< the threshold is the calibrated one; else 0, as the router was trained
};

/// A lazy coda waits for half of the slots, but for no more rows than make products of the coda efficient.
template <class Scheduler>
[[nodiscard]] Scheduler scheduler_for(EngineCase const& test) {
  if constexpr (requires(Scheduler scheduler) { scheduler.minimum; }) return {std::clamp<Index>(test.slots / 2, 1, 200)};
  if constexpr (requires(Scheduler scheduler) { scheduler.rows; }) return {test.batch};
  return {};
}

template <class Program>
[[nodiscard]] infer::EngineOptions engine_options(EngineCase const& test) {
  infer::EngineOptions options;
  options.slots = test.slots;
  options.cache_bytes = test.cache_bytes;
  options.ticks_per_launch = test.ticks_per_launch;
  options.prefill_rows = test.prefill_rows;
  auto const longest = 2.0 * (static_cast<double>(test.shape.prompt_tokens) + test.shape.new_tokens_mean);
  options.context = std::min(Program::context, static_cast<Index>(longest));
  options.prefix_cache = false;
  return options;
}

/// The threshold for texts of this kind, found once for each model on a list of requests of its own. It is the same for every
/// scheduler and number of slots, because what a request gets does not depend on them.
template <class Program, class Model>
[[nodiscard]] DepthCalibration const& calibration_of(Model& model, EngineCase const& test) {
  static std::map<std::tuple<Index, Index, double>, DepthCalibration> found;
  auto const [at, fresh] = found.try_emplace({test.model, test.shape.prompt_tokens, test.shape.new_tokens_mean});
  if (!fresh) return at->second;
  EngineCase run;
  run.slots = Program::calibration_requests;
  run.shape = test.shape;
  run.shape.requests = Program::calibration_requests;
  run.shape.series = 2;
  infer::Engine<Model> engine(model, engine_options<Program>(run));
  at->second = calibrate_depth(capacity_depth(model.config().recursion), [&](double threshold) {
    run.shape.threshold = threshold;
    auto const requests = make_workload(run.shape, model.config().transformer.vocab_size);
    return serve(engine, model, requests, run.slots, run.slots, 1.0, [] { return 0.0; }).mean_depth;
  });
  return at->second;
}

/// What the engine does before the clock starts, so that launches are captured and memory is in place: as many requests as
/// there are slots, short ones where these are many.
template <class Engine, class Model>
void warm_up(Engine& engine, Model const& model, std::vector<infer::Request> requests, Index slots) {
  requests.resize(std::min(requests.size(), static_cast<std::size_t>(slots)));
  for (auto& request : requests) {
    if (slots > 512) request.max_new_tokens = std::min<Index>(request.max_new_tokens, 16);
  }
  static_cast<void>(serve(engine, model, requests, slots, slots, 1.0, [] { return 0.0; }));
}

template <class Program, class Model, class Scheduler>
void run_engine(benchmark::State& state, EngineCase test) {
  auto& served = ServedModels<Program, Model>::instance().get(test.model);
  auto& model = served.model;
  if constexpr (Model::router_type::routes && !Scheduler::full_depth) {
    state.SetLabel("as trained");
    if (test.calibrated) {
      auto const& calibration = calibration_of<Program>(model, test);
      test.shape.threshold = calibration.threshold;
      state.SetLabel(calibration.reached ? "calibrated" : "not calibrated: " + calibration.remark);
      state.counters["own_depth"] = calibration.own_depth;
    }
    state.counters["threshold"] = test.shape.threshold;
    state.counters["agreed"] = served.sampling_accuracy;
  }
  double const bandwidth = Program::bandwidth(served.backend);
  auto const requests = make_workload(test.shape, model.config().transformer.vocab_size);
  for (auto _ : state) {
    infer::Engine<Model, Scheduler> engine(model, engine_options<Program>(test), scheduler_for<Scheduler>(test));
    warm_up(engine, model, requests, test.slots);
    report_run(state, serve(engine, model, requests, test.slots, test.batch, bandwidth, Program::clock(served.backend)));
    state.counters["cache_GiB"] = static_cast<double>(engine.cache_bytes()) / (1 << 30);
  }
}

/// Arguments: model, slots, requests, tokens of a prompt, mean of the new tokens, calibrated.
template <class Program>
[[nodiscard]] EngineCase engine_case(benchmark::State const& state) {
  EngineCase test;
  test.model = state.range(0);
  test.slots = test.batch = state.range(1);
  test.shape.requests = state.range(2);
  test.shape.prompt_tokens = state.range(3);
  test.shape.new_tokens_mean = static_cast<double>(state.range(4));
  test.shape.new_tokens_deviation = test.shape.new_tokens_mean / 4.0;
  test.shape.longest = Program::context - 1;
  test.calibrated = state.range(5) != 0;
  return test;
}

/// @tparam ticks  that a launch goes on for without the host
template <class Program, class Model, class Scheduler, Index ticks = 1>
void engine(benchmark::State& state) {
  auto test = engine_case<Program>(state);
  test.ticks_per_launch = ticks;
  run_engine<Program, Model, Scheduler>(state, test);
}

/// As `engine`, with rows of a full batch in place of the slots, and twice as many of these: beside the batch up to one waits for the
/// coda.
template <class Program, class Model>
void full_batch(benchmark::State& state) {
  auto test = engine_case<Program>(state);
  test.slots = 2 * test.batch;
  test.prefill_rows = 896;  // prompts are one token here; with up to 128 slots CUDA's lists are one pass
  run_engine<Program, Model, infer::FullBatchScheduler>(state, test);
}

/// Texts of this length that a budget of key storage holds, by the shares of tokens that the capacities keep; of the pages of
/// a list the last one is half full.
template <class Model>
[[nodiscard]] Index slots_of_budget(Model const& model, Index bytes, double tokens) {
  auto const& schedule = model.schedule();
  auto const page = static_cast<double>(infer::EngineOptions{}.page_size);
  auto const end_layers = static_cast<double>(schedule.prelude.size() + schedule.coda.size());
  double token_layers = end_layers * (tokens + page / 2.0);
  for (Index r = 0; r < schedule.num_recursions(); ++r) {
    double const share = Model::router_type::routes ? capacity(model.config().recursion, r) : 1.0;
    token_layers += static_cast<double>(schedule.block_layers()) * (share * tokens + page / 2.0);
  }
  return static_cast<Index>(static_cast<double>(bytes) / (token_layers * ServingBytes::of(model).keys));
}

/// As `engine`, with a budget of key storage in GiB in place of the slots, and as many of them as it holds.
template <class Program, class Model, class Scheduler>
void full_memory(benchmark::State& state) {
  auto test = engine_case<Program>(state);
  test.cache_bytes = state.range(1) << 30;
  auto const& model = ServedModels<Program, Model>::instance().get(test.model).model;
  double const tokens = static_cast<double>(test.shape.prompt_tokens) + test.shape.new_tokens_mean;
  test.slots = test.batch = slots_of_budget(model, test.cache_bytes, tokens);
  state.counters["slots"] = static_cast<double>(test.slots);
  run_engine<Program, Model, Scheduler>(state, test);
}

/// Names of the arguments, and one timed run a repetition. @param model  what the first one counts; @param size  the second
inline benchmark::internal::Benchmark* engine_arguments(benchmark::internal::Benchmark* b, char const* model,
                                                        char const* size = "slots") {
  return b->ArgNames({model, size, "requests", "prompt", "tokens", "calibrated"})
      ->UseManualTime()
      ->Unit(benchmark::kMillisecond)
      ->Iterations(1);
}

}  // namespace mor::bench
