// SPDX-License-Identifier: Apache-2.0
/// @file
/// Depth-wise batching as it was published (Bae et al., 2507.10524, appendix "throughput"; mor-spec 7.3): the block always has a full
/// batch of rows at any depths, tokens that leave wait outside until they are a full batch too, and other texts take their
/// places. So a token of mean depth d costs a batch's share of d times one recursion and once everything else. Both are timed in the engine,
/// with keys written, routing, sampling and the host's answer to each, which the published figure left out.
#pragma once

#include "engine_benchmark.hpp"

#include "mor/infer/scheduler.hpp"

#include <functional>
#include <vector>

namespace mor::bench {

/// When recursions of a full batch begin and end, and what follows them.
struct PhaseTimes {
  Index batch = 0;
  std::function<double()> clock;  ///< seconds, once the backend has nothing left to do
  std::vector<double> recursions, ends;
  double mark = 0.0;
  bool full = false, ending = false;
};

/// Every token takes every recursion, in step (so deeper key lists are longer than a routed model's), and times are kept.
struct PhasedScheduler {
  static constexpr bool lock_step = true;
  static constexpr bool exact = true;
  static constexpr bool full_depth = true;
  PhaseTimes* times = nullptr;

  [[nodiscard]] infer::RecursionPlan recursion(infer::TickCounts const& counts) const {
    double const now = times->clock();
    if (times->ending) times->ends.push_back(now - times->mark);
    times->ending = false;
    times->full = counts.ready == times->batch;
    times->mark = now;
    return {};
  }
  [[nodiscard]] bool finish(infer::TickCounts const& counts) const {
    double const now = times->clock();
    if (times->full) times->recursions.push_back(now - times->mark);
    times->ending = counts.ready == 0 && counts.finished == times->batch;
    times->mark = now;
    return counts.ready == 0;
  }
};
static_assert(infer::Scheduler<PhasedScheduler>);

/// Arguments as of `engine`; the slots are the batch. The mean depth is that of the capacities.
template <class Program, class Model>
void paper_style(benchmark::State& state) {
  auto const test = engine_case<Program>(state);
  auto& served = ServedModels<Program, Model>::instance().get(test.model);
  auto& model = served.model;
  auto const requests = make_workload(test.shape, model.config().transformer.vocab_size);
  double const depth = Model::router_type::routes ? capacity_depth(model.config().recursion) : 1.0;
  for (auto _ : state) {
    PhaseTimes times;
    times.batch = test.slots;
    times.clock = [&, seconds = Program::clock(served.backend)] {
      served.backend.synchronize();
      return seconds();
    };
    infer::Engine<Model, PhasedScheduler> engine(model, engine_options<Program>(test), PhasedScheduler{&times});
    warm_up(engine, model, requests, test.slots);
    times.recursions.clear();
    times.ends.clear();
    static_cast<void>(serve(engine, model, requests, test.slots, 1.0, [] { return 0.0; }));
    if (times.recursions.empty() || times.ends.empty()) return state.SkipWithError("no full batch");
    double const recursion = percentile(times.recursions, 0.5), rest = percentile(times.ends, 0.5);
    double const batch = depth * recursion + rest;
    state.SetIterationTime(batch);
    state.counters["tok/s"] = static_cast<double>(test.slots) / batch;
    state.counters["depth"] = depth;
    state.counters["recursion_us"] = 1e6 * recursion;
    state.counters["ends_us"] = 1e6 * rest;
  }
}

}  // namespace mor::bench
