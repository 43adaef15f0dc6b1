// SPDX-License-Identifier: Apache-2.0
// The serving engine on the host, end to end: vanilla and MoR-2/3/4 with routers trained at the start, every scheduler, one
// seeded list of requests. The small models are those of the other host benchmarks; bench_cuda_engine.cu runs the sizes of
// published measurements.
#include "support/engine_benchmark.hpp"
#include "support/machine_peak.hpp"

#include "mor/backend/host/backend.hpp"

#include <initializer_list>

namespace {

using namespace mor;
using Vanilla = bench::VanillaOn<host::Backend<float>>;
using Mixture = bench::MixtureOn<host::Backend<float>>;

struct Program {
  static constexpr Index context = 512, calibration_requests = 48;
  static ModelConfig shape(Index recursions) { return bench::small_model(recursions, context); }
  static bench::RouterTraining training() { return {}; }
  static double bandwidth(host::Backend<float> const& backend) {
    static double const measured = bench::Bandwidth().measure(backend.threads());
    return measured;
  }
  static auto clock(host::Backend<float> const& backend) {
    return [watch = bench::Stopwatch(backend.threads())] { return watch.seconds(); };
  }
};

/// Enough of them that most of a run has its slots filled.
Index requests_for(Index slots) { return 4 * slots + 16; }

/// MoR-2 and MoR-3 have 8 unrolled layers, MoR-4 has 10.
void add_slots(benchmark::internal::Benchmark* b, Index model, std::initializer_list<Index> slots, Index calibrated) {
  for (Index const s : slots) b->Args({model, s, requests_for(s), 1, 32, calibrated});
}
void vanilla_sizes(benchmark::internal::Benchmark* b) {
  bench::engine_arguments(b, "layers");
  add_slots(b, 8, {8, 32}, 0);
  add_slots(b, 10, {8, 32}, 0);
}
void all_models(benchmark::internal::Benchmark* b) {
  bench::engine_arguments(b, "recursions");
  for (Index const recursions : {2, 3, 4}) add_slots(b, recursions, {8, 32}, 1);
  for (Index const recursions : {2, 3, 4}) add_slots(b, recursions, {8}, 0);
}
void one_model(benchmark::internal::Benchmark* b) { add_slots(bench::engine_arguments(b, "recursions"), 3, {8, 32}, 1); }
void one_model_in_full(benchmark::internal::Benchmark* b) { add_slots(bench::engine_arguments(b, "recursions"), 3, {8, 32}, 0); }

void full_batch_sizes(benchmark::internal::Benchmark* b) { add_slots(bench::engine_arguments(b, "recursions", "batch"), 3, {8, 32}, 1); }

void vanilla(benchmark::State& state) { bench::engine<Program, Vanilla, infer::TickScheduler>(state); }
template <class Scheduler>
void mixture_with(benchmark::State& state) {
  bench::engine<Program, Mixture, Scheduler>(state);
}

BENCHMARK(vanilla)->Apply(vanilla_sizes);
BENCHMARK(mixture_with<infer::TickScheduler>)->Name("tick")->Apply(all_models);
BENCHMARK(mixture_with<infer::LazyTickScheduler>)->Name("lazy_tick")->Apply(one_model);
BENCHMARK(bench::full_batch<Program, Mixture>)->Name("full_batch")->Apply(full_batch_sizes);
BENCHMARK(mixture_with<infer::HomogeneousScheduler>)->Name("homogeneous")->Apply(one_model);
BENCHMARK(mixture_with<infer::NoRefillScheduler>)->Name("no_refill")->Apply(one_model);
BENCHMARK(mixture_with<infer::FullDepthScheduler>)->Name("full_depth")->Apply(one_model_in_full);

}  // namespace
