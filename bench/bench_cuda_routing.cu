// SPDX-License-Identifier: Apache-2.0
// Routers on the GPU. Most calls take a few microseconds, less than two events resolve, so 20 are timed together, with
// their operands in the second-level cache; what the table says is microseconds a call. Scores are normally distributed.
// select_top_k is the kernel alone, select_top_k_verb the backend's verb, which also uploads the offsets of the chosen rows.
// linear_logits reads all of hidden: one call at a time, with a cold cache, and GB/s.
#include "support/gpu_data.cuh"

#include "mor/backend/cuda/ops/routing.cuh"

#include <random>
#include <span>
#include <vector>

namespace {

using namespace mor;
using bench::Gpu;

constexpr Index hidden = 960, depths = 3;

[[nodiscard]] std::vector<float> normal_numbers(Index count, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(engine);
  return values;
}

/// `state.range(0)` sequences of `state.range(1)` tokens, of each of which `state.range(2)` are chosen.
struct Batch {
  Batch(Gpu& gpu_, benchmark::State const& state)
      : gpu(gpu_), sequences(state.range(0)), length(state.range(1)), kept(state.range(2)), rows(sequences * length) {
    std::vector<Row> all, places, some;
    for (Index i = 0; i < rows; ++i) {
      all.push_back(static_cast<Row>(i));
      places.push_back(static_cast<Row>(i % length));
    }
    for (Index i = 0; i < sequences * kept; ++i) {
      some.push_back(static_cast<Row>(i / kept * length + i % kept * length / kept));
    }
    for (Index s = 0; s <= sequences; ++s) {
      host_offsets.push_back(static_cast<Row>(s * length));
      host_kept.push_back(static_cast<Row>(s * kept));
    }
    scores = bench::on_device(gpu, normal_numbers(rows * depths, 1));
    values = bench::on_device(gpu, normal_numbers(rows * depths, 2));
    gradients = bench::zeros(gpu, rows * depths);
    choice = bench::zeros(gpu, rows);
    statistics = bench::zeros(gpu, 8);
    indices = bench::on_device(gpu, all);
    positions = bench::on_device(gpu, places);
    slots = bench::on_device(gpu, some);
    offsets = bench::on_device(gpu, host_offsets);
    kept_offsets = bench::on_device(gpu, host_kept);
    chosen_rows = bench::on_device(gpu, some);
    chosen_positions = bench::on_device(gpu, some);
    chosen_slots = bench::on_device(gpu, some);
    set.num_rows = rows;
    set.num_sequences = sequences;
    set.everything = true;
    set.rows = indices.span();
    set.positions = positions.span();
    set.sequence_offsets = offsets.span();
    set.host_offsets = host_offsets;
  }
  [[nodiscard]] std::span<float> first(Buffer<float> const& x) const {
    return x.span().first(static_cast<std::size_t>(rows));
  }
  [[nodiscard]] View<float> table(Buffer<float> const& x) const { return {x.data(), rows, depths}; }
  [[nodiscard]] Selection selection() const {
    return {chosen_rows.span(), chosen_positions.span(), chosen_slots.span()};
  }

  Gpu& gpu;
  Index sequences, length, kept, rows;
  std::vector<Row> host_offsets, host_kept;
  Buffer<float> scores, values, gradients, choice, statistics;
  Buffer<Row> indices, positions, slots, offsets, kept_offsets, chosen_rows, chosen_positions, chosen_slots;
  ActiveSet<float> set;
};

template <class F>
void run(benchmark::State& state, F const& call) {
  Batch const batch(*Gpu::instance(), state);
  bench::measure_many(state, batch.gpu, [&] { call(batch, batch.gpu.backend()); });
}

void select_top_k(benchmark::State& state) {
  run(state, [](Batch const& x, Gpu::B&) {
    cuda::select_top_k(x.gpu.context(), x.first(x.scores), x.set, x.host_kept, x.kept_offsets.span(), x.selection());
  });
}
void select_top_k_verb(benchmark::State& state) {
  run(state, [](Batch const& x, Gpu::B& b) { b.select_top_k(x.first(x.scores), x.set, x.host_kept, x.selection()); });
}
void router_gate(benchmark::State& state) {
  run(state, [](Batch const& x, Gpu::B& b) {
    b.router_gate(x.first(x.scores), x.slots.span(), RouterActivation::Sigmoid, 0.1, x.values.span());
  });
}
void router_gate_backward(benchmark::State& state) {
  run(state, [](Batch const& x, Gpu::B& b) {
    b.router_gate_backward(x.first(x.scores), x.slots.span(), RouterActivation::Sigmoid, 0.1, x.values.span(),
                           x.first(x.gradients));
  });
}
void router_bce(benchmark::State& state) {
  run(state, [](Batch const& x, Gpu::B& b) {
    b.router_bce(x.first(x.scores), x.slots.span(), 1.0, x.statistics.span(), x.first(x.gradients));
  });
}
void token_choice(benchmark::State& state) {
  run(state, [](Batch const& x, Gpu::B& b) {
    b.token_choice(x.table(x.scores), {}, RouterActivation::Softmax, 1.0, false, x.table(x.values), x.choice.span(),
                   x.first(x.gradients));
  });
}
void causal_limits(benchmark::State& state) {
  run(state, [](Batch const& x, Gpu::B& b) {
    b.causal_limits(x.kept_offsets.span(), x.slots.span(), x.offsets.span(), {}, x.chosen_rows.span());
  });
}

/// A router's logits: hidden [rows, 960] by `state.range(2)` rows of weights.
struct Logits {
  Logits(Gpu& gpu_, benchmark::State const& state)
      : gpu(gpu_),
        rows(state.range(0) * state.range(1)),
        outputs(state.range(2)),
        x(bench::random_matrix(gpu, rows, hidden, 1)),
        d_x(bench::random_matrix(gpu, rows, hidden, 2)),
        weights(gpu.random(outputs, hidden, 3)),
        out(bench::random_floats(gpu, rows * outputs, 4)),
        d_weights(bench::zeros(gpu, outputs * hidden)) {}
  /// Bytes of `matrices` matrices of hidden's size, and the logits.
  [[nodiscard]] bench::GpuWork work(double matrices) const {
    return {0.0, 2.0 * matrices * static_cast<double>(rows * hidden) + 4.0 * static_cast<double>(rows * outputs)};
  }
  [[nodiscard]] View<bfloat16 const> hidden_view() const { return Gpu::view(x, rows, hidden); }
  [[nodiscard]] View<bfloat16 const> weights_view() const { return Gpu::view(weights, outputs, hidden); }

  Gpu& gpu;
  Index rows, outputs;
  Buffer<bfloat16> x, d_x, weights;
  Buffer<float> out, d_weights;
};

void linear_logits(benchmark::State& state) {
  Logits const p(*Gpu::instance(), state);
  bench::measure(state, p.gpu, p.work(1), [&] {
    p.gpu.backend().linear_logits(p.hidden_view(), p.weights_view(), 1.0, {p.out.data(), p.rows, p.outputs});
  });
}
void linear_logits_backward(benchmark::State& state) {
  Logits const p(*Gpu::instance(), state);
  bench::measure(state, p.gpu, p.work(3), [&] {
    p.gpu.backend().linear_logits_backward(View<float const>(p.out.data(), p.rows, p.outputs), p.hidden_view(),
                                           p.weights_view(), 1.0, Gpu::view(p.d_x, p.rows, hidden),
                                           {p.d_weights.data(), p.outputs, hidden});
  });
}

void batches(benchmark::internal::Benchmark* b) {
  b->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(20)->ArgNames({"sequences", "length", "kept"});
  for (Index const sequences : {16, 64}) {
    for (Index const kept : {1365, 682}) b->Args({sequences, 2048, kept});
  }
  b->Args({16, 8192, 5461});
}
void matrices(benchmark::internal::Benchmark* b) {
  b->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(50)->ArgNames({"sequences", "length", "outputs"});
  b->Args({16, 2048, 1})->Args({64, 2048, 1})->Args({16, 2048, 3});
}

BENCHMARK(select_top_k)->Apply(batches);
BENCHMARK(select_top_k_verb)->Apply(batches);
BENCHMARK(router_gate)->Apply(batches);
BENCHMARK(router_gate_backward)->Apply(batches);
BENCHMARK(router_bce)->Apply(batches);
BENCHMARK(token_choice)->Apply(batches);
BENCHMARK(causal_limits)->Apply(batches);
BENCHMARK(linear_logits)->Apply(matrices);
BENCHMARK(linear_logits_backward)->Apply(matrices);

}  // namespace

int main(int argc, char** argv) { return mor::bench::run_gpu_benchmarks(argc, argv); }
