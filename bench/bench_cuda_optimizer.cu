// SPDX-License-Identifier: Apache-2.0
// AdamW and the squared norm over all parameters of SmolLM-360M as a vanilla stack (361.8 million) and with three recursions
// (165.2 million). Bytes counted an element: adamw 28 (gradient, weight and two moments read, weight and moments written),
// with the copy of the weights in bf16 from the same launch 30; adamw and then cast_weights 34 (28, and 4 read and 2
// written); cast_weights 6; squared_norm 4. Nothing is zeroed: the gradient is not written. bench/peers/torch_pointwise.py
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
        narrow(gpu.backend().memory(), count) {
    step.learning_rate = 1e-4;
    step.weight_decay = 0.1;
    step.step = 100;
  }
  void update(cuda::AdamwExtras const& extras) const {
    cuda::adamw(gpu.context(), gradients.span(), step, weights.span(), first.span(), second.span(), extras);
  }
  [[nodiscard]] bench::GpuWork work(double bytes_of_element) const {
    return {0.0, bytes_of_element * static_cast<double>(count)};
  }

  Gpu& gpu;
  Index count;
  Buffer<float> gradients, weights, first, second;
  Buffer<bfloat16> narrow;
  AdamwStep step;
};

void adamw(benchmark::State& state) {
  State const x(*Gpu::instance(), state);
  bench::measure(state, x.gpu, x.work(28.0), [&] { x.update({}); });
}

void adamw_with_copy(benchmark::State& state) {
  State const x(*Gpu::instance(), state);
  cuda::AdamwExtras extras;
  extras.narrow_weights = x.narrow.data();
  bench::measure(state, x.gpu, x.work(30.0), [&] { x.update(extras); });
}

void adamw_then_cast(benchmark::State& state) {
  State const x(*Gpu::instance(), state);
  bench::measure(state, x.gpu, x.work(34.0), [&] {
    x.update({});
    x.gpu.backend().cast_weights(x.weights.span(), x.narrow.span());
  });
}

void cast_weights(benchmark::State& state) {
  State const x(*Gpu::instance(), state);
  bench::measure(state, x.gpu, x.work(6.0), [&] { x.gpu.backend().cast_weights(x.weights.span(), x.narrow.span()); });
}

// The result stays on the device: what waits for it is not part of the kernel.
void squared_norm(benchmark::State& state) {
  auto& gpu = *Gpu::instance();
  auto const gradients = bench::random_floats(gpu, parameters(state.range(0)), 1);
  Buffer<double> const result(gpu.backend().memory(), 1);
  bench::measure(state, gpu, {0.0, 4.0 * static_cast<double>(gradients.size())},
                 [&] { cuda::squared_norm(gpu.context(), gradients.span(), result.data()); });
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgName("recursions")->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(20)->Arg(1)->Arg(3);
}

BENCHMARK(adamw)->Apply(shapes);
BENCHMARK(adamw_with_copy)->Apply(shapes);
BENCHMARK(adamw_then_cast)->Apply(shapes);
BENCHMARK(cast_weights)->Apply(shapes);
BENCHMARK(squared_norm)->Apply(shapes);

}  // namespace

int main(int argc, char** argv) { return mor::bench::run_gpu_benchmarks(argc, argv); }
