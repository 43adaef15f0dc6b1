// SPDX-License-Identifier: Apache-2.0
// The serving engine on the host, end to end: vanilla and MoR-2/3/4 with routers trained at the start, every scheduler, one
// seeded list of requests. The small models are those of the other host benchmarks; bench_cuda_engine.cu runs the sizes of
// published measurements.
#include "support/engine_workload.hpp"
#include "support/machine_peak.hpp"

#include "mor/backend/host/backend.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/all_tokens.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/expert_choice.hpp"
#include "mor/policy/sharing.hpp"

#include <map>
#include <memory>

namespace {

using namespace mor;
using B = host::Backend<float>;
using Vanilla = RecursiveTransformer<AllTokens, RecursionWiseCache, NoSharing, B>;
using Mixture = RecursiveTransformer<ExpertChoice<>, RecursionWiseCache, MiddleCycle, B>;

constexpr Index context = 512;

/// A model of its own backend, trained once and kept for all schedulers.
template <class Model>
struct Served {
  explicit Served(Index recursions) : model(backend, config(recursions)) {
    model.initialize(3);
    if (recursions > 1) bench::train_router(model, backend, 40, 4, 96);
  }
  static ModelConfig config(Index recursions) {
    auto config = bench::small_model(recursions, context);
    if (recursions > 1) config.recursion.aux_coefficient = 0.1;
    return config;
  }
  B backend;
  Model model;
};

template <class Model>
Served<Model>& served(Index recursions) {
  static std::map<Index, std::unique_ptr<Served<Model>>> models;
  auto& model = models[recursions];
  if (model == nullptr) model = std::make_unique<Served<Model>>(recursions);
  return *model;
}

/// Arguments: recursions, slots, requests, mean of the new tokens.
template <class Model, class Scheduler>
void engine(benchmark::State& state) {
  auto& subject = served<Model>(state.range(0));
  static bench::Bandwidth memory;
  double const bandwidth = memory.measure(subject.backend.threads());
  bench::WorkloadShape shape;
  shape.requests = state.range(2);
  shape.new_tokens_mean = static_cast<double>(state.range(3));
  shape.new_tokens_deviation = shape.new_tokens_mean / 4.0;
  shape.longest = context - 1;
  auto const requests = bench::make_workload(shape, subject.model.config().transformer.vocab_size);
  infer::EngineOptions options;
  options.slots = state.range(1);
  for (auto _ : state) {
    infer::Engine<Model, Scheduler> engine(subject.model, options);
    bench::report_run(state, bench::serve(engine, subject.model, requests, options.slots, bandwidth));
  }
}

void sizes(benchmark::internal::Benchmark* b, std::initializer_list<Index> recursions) {
  b->ArgNames({"recursions", "slots", "requests", "tokens"})->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(1);
  for (Index const nr : recursions) {
    for (Index const slots : {8, 32}) b->Args({nr, slots, 48, 32});
  }
}
void one(benchmark::internal::Benchmark* b) { sizes(b, {1}); }
void several(benchmark::internal::Benchmark* b) { sizes(b, {2, 3, 4}); }

void vanilla(benchmark::State& state) { engine<Vanilla, infer::TickScheduler>(state); }
void tick(benchmark::State& state) { engine<Mixture, infer::TickScheduler>(state); }
void homogeneous(benchmark::State& state) { engine<Mixture, infer::HomogeneousScheduler>(state); }
void no_refill(benchmark::State& state) { engine<Mixture, infer::NoRefillScheduler>(state); }
void full_depth(benchmark::State& state) { engine<Mixture, infer::FullDepthScheduler>(state); }

BENCHMARK(vanilla)->Apply(one);
BENCHMARK(tick)->Apply(several);
BENCHMARK(homogeneous)->Apply(several);
BENCHMARK(no_refill)->Apply(several);
BENCHMARK(full_depth)->Apply(several);

}  // namespace
