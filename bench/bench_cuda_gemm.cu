// SPDX-License-Identifier: Apache-2.0
// Matrix products of one layer and of the head at the shapes of SmolLM, each in its three passes, with cuBLASLt's first
// proposal (searched 0) and with the fastest of its proposals (searched 1). bf16, gradients of weights added up in float;
// 32768 rows, 8192 for 1.7b. matmul_share is the share of an 8192^3 product in the same run.
#include "support/gpu_data.cuh"
#include "support/model_shapes.hpp"

#include "mor/backend/cuda/ops/blas.cuh"
#include "mor/backend/cuda/ops/linear.cuh"

#include <string>

namespace {

using namespace mor;
using bench::Gpu;

char const* const sizes[] = {"135m", "360m", "1.7b"};
char const* const products[] = {"qkv", "o", "gate+up", "down", "head"};

/// out [rows, outputs] = x [rows, inputs] w^T.
struct Product {
  Index rows, inputs, outputs;
  std::string label;

  explicit Product(benchmark::State const& state) {
    auto const config = bench::smollm(sizes[state.range(0)], 1, 2048).transformer;
    Index const hidden = config.hidden_size, width = config.intermediate_size;
    Index const queries = config.num_attention_heads * config.head_dim;
    Index const keys = config.num_key_value_heads * config.head_dim;
    Index const all_inputs[] = {hidden, queries, hidden, width, hidden};
    Index const all_outputs[] = {queries + 2 * keys, hidden, 2 * width, hidden, config.vocab_size};
    rows = state.range(0) == 2 ? 8192 : 32768;
    inputs = all_inputs[state.range(1)];
    outputs = all_outputs[state.range(1)];
    label = std::string(sizes[state.range(0)]) + " " + products[state.range(1)] + " " + std::to_string(rows) + " x " +
            std::to_string(inputs) + " x " + std::to_string(outputs) + (state.range(2) != 0 ? " searched" : " proposed");
  }
  [[nodiscard]] bench::GpuWork work() const {
    return {2.0 * static_cast<double>(rows) * static_cast<double>(inputs) * static_cast<double>(outputs), 0.0};
  }
};

/// What a benchmark multiplies, and with which choice of algorithms.
struct Operands {
  Operands(Gpu& gpu, benchmark::State& state)
      : product(state),
        x(bench::random_matrix(gpu, product.rows, product.inputs, 1)),
        weights(bench::random_matrix(gpu, product.outputs, product.inputs, 2)),
        out(bench::random_matrix(gpu, product.rows, product.outputs, 3)),
        proposed(gpu.backend().memory(), gpu.backend().device(), {}),
        context(gpu.context()) {
    if (state.range(2) == 0) context.blas = &proposed;
    state.SetLabel(product.label);
  }
  [[nodiscard]] View<bfloat16> x_view() const { return Gpu::view(x, product.rows, product.inputs); }
  [[nodiscard]] View<bfloat16> weights_view() const { return Gpu::view(weights, product.outputs, product.inputs); }
  [[nodiscard]] View<bfloat16> out_view() const { return Gpu::view(out, product.rows, product.outputs); }

  Product product;
  Buffer<bfloat16> x, weights, out;
  cuda::Blas proposed;
  cuda::Context context;
};

void forward(benchmark::State& state) {
  auto& gpu = *Gpu::instance();
  Operands const p(gpu, state);
  bench::measure(state, gpu, p.product.work(), [&] {
    cuda::linear<bfloat16, bfloat16>(p.context, p.x_view(), p.weights_view(), 1.0F, p.out_view());
  });
}

void backward_input(benchmark::State& state) {
  auto& gpu = *Gpu::instance();
  Operands const p(gpu, state);
  bench::measure(state, gpu, p.product.work(), [&] {
    cuda::linear_backward_input<bfloat16>(p.context, p.out_view(), p.weights_view(), false, p.x_view());
  });
}

void backward_weight(benchmark::State& state) {
  auto& gpu = *Gpu::instance();
  Operands const p(gpu, state);
  Buffer<float> const gradient = bench::zeros(gpu, p.product.outputs * p.product.inputs);
  View<float> const d_weights(gradient.data(), p.product.outputs, p.product.inputs);
  bench::measure(state, gpu, p.product.work(), [&] {
    cuda::linear_backward_weight<bfloat16>(p.context, p.out_view(), p.x_view(), d_weights);
  });
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"size", "product", "searched"})->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(20);
  for (Index size = 0; size < 3; ++size) {
    for (Index product = 0; product < 5; ++product) {
      for (Index const searched : {0, 1}) b->Args({size, product, searched});
    }
  }
}

BENCHMARK(forward)->Apply(shapes);
BENCHMARK(backward_input)->Apply(shapes);
BENCHMARK(backward_weight)->Apply(shapes);

}  // namespace

int main(int argc, char** argv) { return mor::bench::run_gpu_benchmarks(argc, argv); }
