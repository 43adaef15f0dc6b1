// SPDX-License-Identifier: Apache-2.0
// Sampling on the GPU: rows of normally distributed logits (standard deviation 3), under rules from the likeliest token to
// all knobs at once. copy_share is 4 bytes a logit, read once, over the time. Then the end of a token, from the rows of the
// last layer on: their gathering, head and sampling, as kernels of their own or in one launch, in a graph of weights that no
// cache holds.
#include "support/gpu_data.cuh"
#include "support/gpu_graph.cuh"

#include "mor/backend/cuda/ops/elementwise.cuh"
#include "mor/backend/cuda/ops/few_rows.cuh"
#include "mor/backend/cuda/ops/head_sampling.cuh"
#include "mor/backend/cuda/ops/sampling.cuh"
#include "mor/core/sampling.hpp"

#include <algorithm>
#include <random>
#include <span>
#include <vector>

namespace {

using namespace mor;
using bench::Gpu;

/// Rules of all rows, which differ in their seeds; each with a history of 1000 tokens.
struct Batch {
  Batch(Gpu& gpu_, benchmark::State const& state, SamplingRule rule)
      : gpu(gpu_), rows(state.range(0)), vocabulary(state.range(1)), logits(gpu.backend().memory(), rows * vocabulary),
        rules(gpu.backend().memory(), rows), log_probabilities(bench::zeros(gpu, rows)) {
    std::mt19937 engine(1);
    std::normal_distribution<float> normal(0.0F, 3.0F);
    std::vector<float> values(static_cast<std::size_t>(std::min(rows, Index{8}) * vocabulary));
    for (float& value : values) value = normal(engine);
    Buffer<float> const some = bench::on_device(gpu, values);
    bench::copy_on_device(gpu, some.data(), logits.data(), some.size());
    bench::repeat_to_end(gpu, logits, some.size());
    std::vector<Row> seen;
    for (Index i = 0; i < 1000; ++i) seen.push_back(static_cast<Row>(engine() % static_cast<unsigned>(vocabulary)));
    history = bench::on_device(gpu, seen);
    tokens = bench::on_device(gpu, std::vector<Row>(static_cast<std::size_t>(rows)));
    rule.history_length = 1000;
    std::vector<SamplingRule> host_rules(static_cast<std::size_t>(rows), rule);
    for (SamplingRule& each : host_rules) each.seed = engine();
    auto& b = gpu.backend();
    bench::copy_on_device(gpu, b.upload(std::span<SamplingRule const>(host_rules)).data(), rules.data(), rows);
    b.synchronize();
    b.arena().reset();
  }

  Gpu& gpu;
  Index rows, vocabulary;
  Buffer<float> logits;
  Buffer<SamplingRule> rules;
  Buffer<float> log_probabilities;
  Buffer<Row> history, tokens;
};

/// Which kernels follow the gathering of rows.
enum class Ending { None, Pair, OneLaunch };

void sample(benchmark::State& state, SamplingRule const& rule) {
  Batch const x(*Gpu::instance(), state, rule);
  bench::measure(state, x.gpu, {0.0, 4.0 * static_cast<double>(x.rows * x.vocabulary)}, [&] {
    x.gpu.backend().sample(View<float const>(x.logits.data(), x.rows, x.vocabulary), x.rules.span(), x.history.span(),
                           x.tokens.span(), x.log_probabilities.span());
  });
}

void token_end(benchmark::State& state, SamplingRule const& rule, Ending ending) {
  using cuda::Sm90;
  constexpr Index width = 960, copies = 4;
  auto& gpu = *Gpu::instance();
  Batch const batch(gpu, state, rule);
  Index const rows = batch.rows, vocabulary = batch.vocabulary;
  auto const weights = bench::random_matrix(gpu, copies * vocabulary, width, 1);
  auto const x = gpu.random(rows, width, 2), last = gpu.random(rows, width, 2), norm = gpu.random(1, width, 3);
  std::vector<Row> order;
  for (Index i = 0; i < rows; ++i) order.push_back(static_cast<Row>(i));
  auto const sources = bench::on_device(gpu, order);
  std::span<bfloat16 const> const norm_weights(norm.data(), static_cast<std::size_t>(width));
  View<float> const logits(batch.logits.data(), rows, vocabulary);
  View<bfloat16> const gathered(last.data(), rows, width);
  cuda::HeadSampler<Sm90> const sampler(gpu.backend(), width, vocabulary);
  double const bytes = ending == Ending::None ? 0.0 : 2.0 * static_cast<double>(vocabulary * width);
  bench::measure_graph(state, gpu, copies, bytes, [&] {
    auto const context = gpu.context();
    for (Index i = 0; i < copies; ++i) {
      View<bfloat16 const> const head(weights.data() + i * vocabulary * width, vocabulary, width), from(gathered);
      cuda::gather_rows(context, View<bfloat16 const>(x.data(), rows, width), std::span<Row const>(sources.span()), gathered);
      if (ending == Ending::Pair) {
        cuda::few_rows_norm_linear<Sm90, bfloat16, float>(context, from, norm_weights, 1e-5, head, logits);
        cuda::sample<Sm90>(context, View<float const>(logits), batch.rules.span(), batch.history.span(), batch.tokens.span(), batch.log_probabilities.span());
      } else if (ending == Ending::OneLaunch) {
        sampler.run(context, {from}, norm_weights, 1e-5, head, {}, batch.rules.span(), batch.history.span(), logits, batch.tokens.span(),
                    batch.log_probabilities.span());
      }
    }
  });
}

[[nodiscard]] SamplingRule rule(float temperature, Row top_k = 0, float top_p = 1.0F, float penalty = 1.0F,
                                float min_p = 0.0F) {
  SamplingRule result;
  result.temperature = temperature;
  result.top_k = top_k;
  result.top_p = top_p;
  result.repetition_penalty = penalty;
  result.min_p = min_p;
  return result;
}

void batches(benchmark::internal::Benchmark* b) {
  b->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(20)->ArgNames({"rows", "vocabulary"});
  for (Index const vocabulary : {49152, 151936}) {
    for (Index const rows : {1, 32, 256}) b->Args({rows, vocabulary});
  }
}

void few_rows(benchmark::internal::Benchmark* b) {
  b->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(20)->ArgNames({"rows", "vocabulary"});
  for (Index const rows : {1, 8, 32, 64}) b->Args({rows, 49152});
}

BENCHMARK_CAPTURE(token_end, gather_only, rule(0.8F), Ending::None)->Apply(few_rows);
BENCHMARK_CAPTURE(token_end, pair, rule(0.8F), Ending::Pair)->Apply(few_rows);
BENCHMARK_CAPTURE(token_end, one_launch, rule(0.8F), Ending::OneLaunch)->Apply(few_rows);
BENCHMARK_CAPTURE(token_end, pair_likeliest, rule(0.0F), Ending::Pair)->Apply(few_rows);
BENCHMARK_CAPTURE(token_end, one_launch_likeliest, rule(0.0F), Ending::OneLaunch)->Apply(few_rows);
BENCHMARK_CAPTURE(token_end, pair_all_knobs, rule(0.8F, 50, 0.9F, 1.1F), Ending::Pair)->Apply(few_rows);
BENCHMARK_CAPTURE(token_end, one_launch_all_knobs, rule(0.8F, 50, 0.9F, 1.1F), Ending::OneLaunch)->Apply(few_rows);
BENCHMARK_CAPTURE(sample, likeliest, rule(0.0F))->Apply(batches);
BENCHMARK_CAPTURE(sample, temperature_1, rule(1.0F))->Apply(batches);
BENCHMARK_CAPTURE(sample, temperature, rule(0.8F))->Apply(batches);
BENCHMARK_CAPTURE(sample, min_p, rule(0.8F, 0, 1.0F, 1.0F, 0.05F))->Apply(batches);
BENCHMARK_CAPTURE(sample, penalty, rule(0.8F, 0, 1.0F, 1.1F))->Apply(batches);
BENCHMARK_CAPTURE(sample, top_k, rule(0.8F, 50))->Apply(batches);
BENCHMARK_CAPTURE(sample, top_p, rule(0.8F, 0, 0.9F))->Apply(batches);
BENCHMARK_CAPTURE(sample, top_p_of_few, rule(0.5F, 0, 0.9F))->Apply(batches);
BENCHMARK_CAPTURE(sample, all_knobs, rule(0.8F, 50, 0.9F, 1.1F))->Apply(batches);

}  // namespace

int main(int argc, char** argv) { return mor::bench::run_gpu_benchmarks(argc, argv); }
