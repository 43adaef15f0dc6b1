// SPDX-License-Identifier: Apache-2.0
// The serving engine on the GPU, end to end, at the shapes of SmolLM-360M in bf16: vanilla and MoR-2/3/4 with routers trained
// at the start, every scheduler, the seeded list of 1,000 requests of mor-spec 7.4. Everything is timed: keys written,
// routing, sampling, admission. Slots 32 is the fixed batch of the published figure; 42, 48 and 51 are its "maximal" batches,
// which take vanilla's key storage at 32; larger ones show where the weights no longer matter. `full_memory` has as many
// slots as a budget of key storage holds. Vanilla has 32 layers, and 34 for MoR-4, which unrolls to as many.
#include "support/engine_benchmark.hpp"
#include "support/gpu_measure.cuh"

#include "mor/mor.cuh"

#include <chrono>
#include <initializer_list>
#include <utility>

namespace {

using namespace mor;
using B = cuda::Backend<bfloat16>;
using Vanilla = bench::VanillaOn<B>;
using Mixture = bench::MixtureOn<B>;

struct Program {
  static constexpr Index context = 2048, calibration_requests = 128;
  static ModelConfig shape(Index recursions) { return bench::smollm("360m", recursions, context); }
  static bench::RouterTraining training() { return {250, 16, 512, 2e-3}; }
  static double bandwidth(B const&) { return bench::Gpu::instance()->copy_bandwidth(); }
  static auto clock(B const&) {
    return [] { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); };
  }
};

constexpr Index prompt = 1, tokens = 256;            // of the published figure
constexpr Index long_prompt = 512, few_tokens = 128;

/// With few slots a run takes long, and a part of the list tells as much.
Index requests_for(Index slots) { return slots < 4 ? 8 : slots < 16 ? 250 : 1000; }

void add_slots(benchmark::internal::Benchmark* b, Index model, std::initializer_list<Index> slots, Index calibrated) {
  for (Index const s : slots) b->Args({model, s, requests_for(s), prompt, tokens, calibrated});
}
void vanilla_sizes(benchmark::internal::Benchmark* b) {
  bench::engine_arguments(b, "layers");
  add_slots(b, 32, {1, 8, 32, 64, 128, 512}, 0);
  add_slots(b, 34, {1, 32, 512}, 0);
}
void tick_sizes(benchmark::internal::Benchmark* b) {
  bench::engine_arguments(b, "recursions");
  add_slots(b, 2, {1, 32, 42, 128, 512}, 1);
  add_slots(b, 3, {1, 8, 32, 48, 64, 128, 512}, 1);
  add_slots(b, 4, {1, 32, 51, 128, 512}, 1);
  for (Index const recursions : {2, 3, 4}) add_slots(b, recursions, {32}, 0);
}
void scheduler_sizes(benchmark::internal::Benchmark* b) {
  add_slots(bench::engine_arguments(b, "recursions"), 3, {32, 128, 512}, 1);
}
void eight_ticks_sizes(benchmark::internal::Benchmark* b) {
  add_slots(bench::engine_arguments(b, "recursions"), 3, {1, 8, 32}, 1);
}
void full_depth_sizes(benchmark::internal::Benchmark* b) {
  add_slots(bench::engine_arguments(b, "recursions"), 3, {32, 128, 512}, 0);
}

void long_prompt_sizes(benchmark::internal::Benchmark* b, char const* name, Index model, Index calibrated) {
  bench::engine_arguments(b, name);
  for (Index const slots : {32, 128}) b->Args({model, slots, 500, long_prompt, few_tokens, calibrated});
}
void vanilla_long_prompts(benchmark::internal::Benchmark* b) { long_prompt_sizes(b, "layers", 32, 0); }
void mixture_long_prompts(benchmark::internal::Benchmark* b) { long_prompt_sizes(b, "recursions", 3, 1); }

/// The published batches: of vanilla, and of as many rows as have its key storage.
void full_batch_sizes(benchmark::internal::Benchmark* b) {
  bench::engine_arguments(b, "recursions", "batch");
  for (auto const& [recursions, batch] : {std::pair<Index, Index>{2, 42}, {3, 48}, {4, 51}}) add_slots(b, recursions, {32, batch}, 1);
}

/// Of an H100's 80 GB: a part, and what weights, logits and activations leave.
void budgets(benchmark::internal::Benchmark* b, char const* name, Index model, Index calibrated) {
  bench::engine_arguments(b, name, "GiB");
  b->Args({model, 16, 4000, prompt, tokens, calibrated});
  b->Args({model, 48, 12000, prompt, tokens, calibrated});
}
void vanilla_budgets(benchmark::internal::Benchmark* b) { budgets(b, "layers", 32, 0); }
void mixture_budgets(benchmark::internal::Benchmark* b) { budgets(b, "recursions", 3, 1); }

void vanilla(benchmark::State& state) { bench::engine<Program, Vanilla, infer::TickScheduler>(state); }
template <class Scheduler, Index ticks = 1>
void mixture_with(benchmark::State& state) {
  bench::engine<Program, Mixture, Scheduler, ticks>(state);
}
void eight_ticks(benchmark::State& state) { mixture_with<infer::TickScheduler, 8>(state); }
template <class Model>
void full_memory(benchmark::State& state) {
  bench::full_memory<Program, Model, infer::TickScheduler>(state);
}

BENCHMARK(vanilla)->Apply(vanilla_sizes);
BENCHMARK(mixture_with<infer::TickScheduler>)->Name("tick")->Apply(tick_sizes);
BENCHMARK(eight_ticks)->Apply(eight_ticks_sizes);  // in one launch, without the host
BENCHMARK(mixture_with<infer::LazyTickScheduler>)->Name("lazy_tick")->Apply(scheduler_sizes);
BENCHMARK(bench::full_batch<Program, Mixture>)->Name("full_batch")->Apply(full_batch_sizes);
BENCHMARK(mixture_with<infer::HomogeneousScheduler>)->Name("homogeneous")->Apply(scheduler_sizes);
BENCHMARK(mixture_with<infer::NoRefillScheduler>)->Name("no_refill")->Apply(scheduler_sizes);
BENCHMARK(mixture_with<infer::FullDepthScheduler>)->Name("full_depth")->Apply(full_depth_sizes);
BENCHMARK(vanilla)->Name("vanilla_long_prompt")->Apply(vanilla_long_prompts);
BENCHMARK(mixture_with<infer::TickScheduler>)->Name("tick_long_prompt")->Apply(mixture_long_prompts);
BENCHMARK(full_memory<Vanilla>)->Name("vanilla_full_memory")->Apply(vanilla_budgets);
BENCHMARK(full_memory<Mixture>)->Name("tick_full_memory")->Apply(mixture_budgets);

}  // namespace

int main(int argc, char** argv) { return mor::bench::run_gpu_benchmarks(argc, argv); }
