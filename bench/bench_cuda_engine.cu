// SPDX-License-Identifier: Apache-2.0
// The serving engine on the GPU, end to end, at the shapes of SmolLM-360M in bf16: vanilla and MoR-2/3/4 with routers trained
// at the start, every scheduler, the seeded list of 1,000 requests of mor-spec 7.4. Everything is timed: keys written,
// routing, sampling, admission. Slots 32 is the fixed batch of the published figure; 42, 48 and 51 are its "maximal" batches,
// which take vanilla's key storage at 32; larger ones show where the weights no longer matter.
#include "support/engine_workload.hpp"
#include "support/gpu_measure.cuh"

#include "mor/mor.cuh"

#include <map>
#include <memory>

namespace {

using namespace mor;
using B = cuda::Backend<bfloat16>;
using Vanilla = RecursiveTransformer<AllTokens, RecursionWiseCache, NoSharing, B>;
using Mixture = RecursiveTransformer<ExpertChoice<>, RecursionWiseCache, MiddleCycle, B>;

constexpr Index context = 2048;

/// A model trained once and kept for all schedulers and batch sizes; the last one only, for the memory.
template <class Model>
struct Served {
  explicit Served(Index recursions) : model(backend, config(recursions)) {
    model.initialize(3);
    if (recursions > 1) bench::train_router(model, backend, 150, 8, 1024);
  }
  static ModelConfig config(Index recursions) {
    auto config = bench::smollm("360m", recursions, context);
    if (recursions > 1) config.recursion.aux_coefficient = 0.1;
    return config;
  }
  B backend;
  Model model;
};

template <class Model>
Served<Model>& served(Index recursions) {
  static std::unique_ptr<Served<Model>> model;
  static Index held = 0;
  if (held != recursions) {
    model.reset();
    model = std::make_unique<Served<Model>>(recursions);
    held = recursions;
  }
  return *model;
}

/// Arguments: recursions, slots, requests, tokens of a prompt, mean of the new tokens.
template <class Model, class Scheduler>
void engine(benchmark::State& state) {
  auto& subject = served<Model>(state.range(0));
  double const bandwidth = bench::Gpu::instance()->copy_bandwidth();
  bench::WorkloadShape shape;
  shape.requests = state.range(2);
  shape.prompt_tokens = state.range(3);
  shape.new_tokens_mean = static_cast<double>(state.range(4));
  shape.new_tokens_deviation = shape.new_tokens_mean / 4.0;
  shape.longest = context - 1;
  auto const requests = bench::make_workload(shape, subject.model.config().transformer.vocab_size);
  infer::EngineOptions options;
  options.slots = state.range(1);
  options.context = std::min<Index>(context, 2 * (shape.prompt_tokens + state.range(4)));
  options.prefix_cache = false;
  for (auto _ : state) {
    infer::Engine<Model, Scheduler> engine(subject.model, options);
    auto const warm = std::vector<infer::Request>(requests.begin(), requests.begin() + std::min<std::ptrdiff_t>(std::ssize(requests), options.slots));
    static_cast<void>(bench::serve(engine, subject.model, warm, options.slots, bandwidth));  // graphs are captured
    bench::report_run(state, bench::serve(engine, subject.model, requests, options.slots, bandwidth));
    state.counters["cache_GiB"] = static_cast<double>(engine.cache_bytes()) / (1 << 30);
  }
}

void lists(benchmark::internal::Benchmark* b, Index recursions, std::initializer_list<Index> slots) {
  b->ArgNames({"recursions", "slots", "requests", "prompt", "tokens"})->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(1);
  for (Index const s : slots) b->Args({recursions, s, s < 4 ? 8 : 1000, 1, 256});
}
void one(benchmark::internal::Benchmark* b) { lists(b, 1, {1, 8, 32, 128, 512}); }
void several(benchmark::internal::Benchmark* b) {
  lists(b, 2, {1, 32, 42, 128, 512});
  lists(b, 3, {1, 8, 32, 48, 128, 512});
  lists(b, 4, {1, 32, 51, 128, 512});
}
void baseline(benchmark::internal::Benchmark* b) { lists(b, 3, {32, 128, 512}); }

void vanilla(benchmark::State& state) { engine<Vanilla, infer::TickScheduler>(state); }
void tick(benchmark::State& state) { engine<Mixture, infer::TickScheduler>(state); }
void homogeneous(benchmark::State& state) { engine<Mixture, infer::HomogeneousScheduler>(state); }
void no_refill(benchmark::State& state) { engine<Mixture, infer::NoRefillScheduler>(state); }
void full_depth(benchmark::State& state) { engine<Mixture, infer::FullDepthScheduler>(state); }

BENCHMARK(vanilla)->Apply(one);
BENCHMARK(tick)->Apply(several);
BENCHMARK(homogeneous)->Apply(baseline);
BENCHMARK(no_refill)->Apply(baseline);
BENCHMARK(full_depth)->Apply(baseline);

}  // namespace

int main(int argc, char** argv) { return mor::bench::run_gpu_benchmarks(argc, argv); }
