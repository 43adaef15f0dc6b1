// SPDX-License-Identifier: Apache-2.0
// A whole training step on the GPU (forward, backward, clipping, AdamW) in bf16 at the shapes of SmolLM: vanilla, recursive
// and expert-choice MoR, 2048 tokens a sequence, final capacities. bench/peers/torch_baseline.py runs the same in PyTorch.
#include "support/gpu_measure.cuh"
#include "support/model_shapes.hpp"

#include "mor/mor.cuh"

#include <cuda_profiler_api.h>

#include <chrono>
#include <string>

namespace {

using namespace mor;
using B = cuda::Backend<bfloat16>;
using Trace = trace::Backend<bfloat16, float>;

constexpr Index length = 2048;
constexpr double peak_flops = 989.4e12;  // bf16, dense, of H100 and H200 (SXM), from the data sheet
char const* const sizes[] = {"135m", "360m", "1.7b"};

/// What the trace knows of one forward and backward.
struct Prediction {
  double flops = 0.0;     ///< of the matrix products and attentions, without what recompute repeats
  Index arena_bytes = 0;  ///< of activations
};

template <class Router, class Sharing>
Prediction predict(ModelConfig const& config, bench::TrainingRows const& rows, LossWeights const& weights, Recompute level) {
  trace::Options options;
  options.upload_uses_arena = true;
  options.scratch_bytes = cuda::ScratchSize<bfloat16>{};
  Trace recorder(options);
  RecursiveTransformer<Router, RecursionWiseCache, Sharing, Trace> model(recorder, config);
  model.parameters().enable_gradients();
  model.set_recompute(level);
  model.forward_backward(rows.batch(), rows.targets, {}, weights);
  Prediction prediction;
  prediction.arena_bytes = recorder.arena().peak_bytes();
  recorder.clear();
  model.set_recompute(Recompute::None);
  model.forward_backward(rows.batch(), rows.targets, {}, weights);
  prediction.flops = static_cast<double>(recorder.matrix_flops());
  return prediction;
}

/// Arguments: index of the size, recursions, sequences of a batch, level of activation recompute (0 none, 1 pointwise, 2 mlp).
template <class Router, class Sharing>
void train_step(benchmark::State& state) {
  std::string const size = sizes[state.range(0)];
  auto config = bench::smollm(size, state.range(1), length);
  if constexpr (std::is_same_v<Router, ExpertChoice<>>) config.recursion.router = RouterKind::ExpertChoice;
  bench::TrainingRows const rows(state.range(2), length, 49000);
  auto const tokens = static_cast<double>(rows.tokens.size());
  LossWeights const weights{1.0 / tokens, 1.0};
  auto const level = static_cast<Recompute>(state.range(3));
  Prediction const prediction = predict<Router, Sharing>(config, rows, weights, level);

  cuda::BackendOptions options;
  options.blas.search = true;
  B backend(options);
  RecursiveTransformer<Router, RecursionWiseCache, Sharing, B> model(backend, config);
  model.initialize(1);
  model.set_recompute(level);
  backend.arena().reserve(prediction.arena_bytes);
  model.parameters().enable_gradients();
  train::Adamw<B> optimizer(backend, model.parameters(), {});
  cuda::Repetition repetition;
  auto const step = [&] {
    model.parameters().zero_gradients();
    backend.repeat(repetition, [&] {
      model.forward_backward(rows.batch(), rows.targets, {}, weights);
      optimizer.add_loss(model.losses(), weights.language_model);
      optimizer.step(1e-4);
    });
  };
  for (int i = 0; i < 4; ++i) step();
  backend.synchronize();
  // One step for a profiler: ncu --profile-from-start off sees this one only.
  cuda::check(cudaProfilerStart(), "cudaProfilerStart");
  step();
  backend.synchronize();
  cuda::check(cudaProfilerStop(), "cudaProfilerStop");
  std::vector<double> times;
  for (auto _ : state) {
    auto const start = std::chrono::steady_clock::now();
    step();
    backend.synchronize();
    times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    state.SetIterationTime(times.back());
  }
  double const time = bench::median(times);
  state.counters["tok/s"] = tokens / time;
  state.counters["median_ms"] = 1e3 * time;
  state.counters["MFU"] = prediction.flops / time / peak_flops;
  state.counters["GFLOP/tok"] = 1e-9 * prediction.flops / tokens;
  state.counters["peak_GiB"] = static_cast<double>(backend.memory_statistics().peak_bytes) / (1 << 30);
  state.SetLabel(size);
}

void shapes(benchmark::internal::Benchmark* b, std::initializer_list<Index> recursions) {
  b->ArgNames({"size", "recursions", "sequences", "recompute"})->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(20);
  for (Index const nr : recursions) {
    b->Args({0, nr, 16, 0});
    for (Index const recompute : {0, 1, 2}) b->Args({1, nr, 16, recompute});
    b->Args({2, nr, 4, 1});
  }
}
void one(benchmark::internal::Benchmark* b) { shapes(b, {1}); }
void several(benchmark::internal::Benchmark* b) { shapes(b, {2, 3, 4}); }
void three(benchmark::internal::Benchmark* b) { shapes(b, {3}); }

void vanilla(benchmark::State& state) { train_step<AllTokens, NoSharing>(state); }
void recursive(benchmark::State& state) { train_step<AllTokens, MiddleCycle>(state); }
void mixture_of_recursions(benchmark::State& state) { train_step<ExpertChoice<>, MiddleCycle>(state); }

BENCHMARK(vanilla)->Apply(one);
BENCHMARK(recursive)->Apply(three);
BENCHMARK(mixture_of_recursions)->Apply(several);

}  // namespace

int main(int argc, char** argv) { return mor::bench::run_gpu_benchmarks(argc, argv); }
