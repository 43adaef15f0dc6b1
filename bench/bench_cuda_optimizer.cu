// SPDX-License-Identifier: Apache-2.0
// AdamW, the squares for its norm and whole steps over all parameters of SmolLM-360M as a vanilla stack (361.8 million) and with three recursions
// (165.2 million). Bytes counted an element: adamw 28 (gradient, weight and two moments read, weight and moments written),
// with the copy of the weights in bf16 from the same launch 30; adamw and then cast_weights 34 (28, and 4 read and 2
// written); cast_weights 6; add_squares 4; a whole step with that copy 34. Nothing is zeroed: the gradient is not written. bench/peers/torch_pointwise.py
// measures PyTorch's fused AdamW.
#include "support/gpu_data.cuh"
#include "support/model_shapes.hpp"

#include "mor/backend/cuda/ops/optimizer.cuh"

namespace {

using namespace mor;
using bench::Gpu;

/// Parameters of SmolLM-360M: layers of their own, the embedding (also the head) and the last norm.
Index parameters(Index recursions) {
  auto const config = bench::smollm("360m", recursions, 2048);
  auto const& t = config.transformer;
  Index const queries = t.num_attention_heads * t.head_dim, keys = t.num_key_value_heads * t.head_dim;
  Index const layer = 2 * t.hidden_size * (queries + keys) + 3 * t.hidden_size * t.intermediate_size + 2 * t.hidden_size;
  Index const layers = recursions == 1 ? config.num_hidden_layers : 2 + (config.num_hidden_layers - 2) / recursions;
  return layers * layer + t.vocab_size * t.hidden_size + t.hidden_size;
}

/// Parameters and their state for one update after another.
struct State {
  State(Gpu& gpu_, benchmark::State const& state)
      : gpu(gpu_),
        count(parameters(state.range(0))),
        gradients(bench::random_floats(gpu, count, 1)),
        weights(bench::random_floats(gpu, count, 2)),
        first(bench::random_floats(gpu, count, 3)),
        second(bench::random_floats(gpu, count, 4)),
        narrow(gpu.backend().memory(), count),
        learning_rate(gpu.backend().memory(), 1),
        record(gpu.backend().memory(), 1) {
    float const rate = 1e-4F;
    gpu.backend().store(std::span<float const>(&rate, 1), learning_rate.span());
    UpdateRecord<float> start;
    start.updates = 99;
    gpu.backend().store(std::span<UpdateRecord<float> const>(&start, 1), record.span());
    decide();
  }
  void decide() const { cuda::decide_update(gpu.context(), settings, learning_rate.data(), record.data()); }
  void add_squares() const {
    cuda::add_squares(gpu.context(), gradients.span(), ParameterGroup::Main, record.data());
  }
  void update(bfloat16* copy) const {
    cuda::adamw(gpu.context(), gradients.span(), settings, ParameterGroup::Main, record.data(), weights.span(),
                first.span(), second.span(), copy);
  }
  [[nodiscard]] bench::GpuWork work(double bytes_of_element) const {
    return {0.0, bytes_of_element * static_cast<double>(count)};
  }

  Gpu& gpu;
  Index count;
  Buffer<float> gradients, weights, first, second;
  Buffer<bfloat16> narrow;
  Buffer<float> learning_rate;
  Buffer<UpdateRecord<float>> record;
  AdamwSettings settings;
};

void adamw(benchmark::State& state) {
  State const x(*Gpu::instance(), state);
  bench::measure(state, x.gpu, x.work(28.0), [&] { x.update(nullptr); });
}

void adamw_with_copy(benchmark::State& state) {
  State const x(*Gpu::instance(), state);
  bench::measure(state, x.gpu, x.work(30.0), [&] { x.update(x.narrow.data()); });
}

void adamw_then_cast(benchmark::State& state) {
  State const x(*Gpu::instance(), state);
  bench::measure(state, x.gpu, x.work(34.0), [&] {
    x.update(nullptr);
    x.gpu.backend().cast_weights(x.weights.span(), x.narrow.span());
  });
}

void cast_weights(benchmark::State& state) {
  State const x(*Gpu::instance(), state);
  bench::measure(state, x.gpu, x.work(6.0), [&] { x.gpu.backend().cast_weights(x.weights.span(), x.narrow.span()); });
}

void add_squares(benchmark::State& state) {
  State const x(*Gpu::instance(), state);
  bench::measure(state, x.gpu, x.work(4.0), [&] { x.add_squares(); });
}

// Norm, decision, update and the copy for the verbs: what an optimizer's step asks for where all parameters are alike.
void whole_step(benchmark::State& state) {
  State const x(*Gpu::instance(), state);
  bench::measure(state, x.gpu, x.work(34.0), [&] {
    x.add_squares();
    x.decide();
    x.update(x.narrow.data());
  });
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgName("recursions")->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(20)->Arg(1)->Arg(3);
}

BENCHMARK(adamw)->Apply(shapes);
BENCHMARK(adamw_with_copy)->Apply(shapes);
BENCHMARK(adamw_then_cast)->Apply(shapes);
BENCHMARK(cast_weights)->Apply(shapes);
BENCHMARK(add_squares)->Apply(shapes);
BENCHMARK(whole_step)->Apply(shapes);

}  // namespace

int main(int argc, char** argv) { return mor::bench::run_gpu_benchmarks(argc, argv); }
