// SPDX-License-Identifier: Apache-2.0
// Dense layers of decoding on the GPU: single products, and all kernels of SmolLM-360M's layers, in CUDA graphs that go
// through so many different weights that none are left in a cache. The floor is the bytes of the weights (and of the
// visible keys); `overlap` lets each kernel read its weights while the one before it runs.
#include "support/gpu_data.cuh"
#include "support/gpu_graph.cuh"

#include "mor/backend/cuda/ops/attention.cuh"
#include "mor/backend/cuda/ops/few_rows.cuh"
#include "mor/backend/cuda/ops/stack.cuh"

#include <algorithm>
#include <memory>
#include <vector>

namespace {

using namespace mor;
using cuda::Sm90;

enum class Verb { Linear, Residual, NormLogits, Swiglu };

/// `copies` weights [out, in], together several times as large as the second-level cache.
struct Weights {
  Weights(bench::Gpu& gpu, Index out_, Index in_)
      : out(out_), in(in_), copies(std::clamp<Index>((Index{400} << 20) / (out * in * 2), 4, 128)),
        all(bench::random_matrix(gpu, copies * out, in, 1)) {}
  [[nodiscard]] View<bfloat16 const> copy(Index i) const { return {all.data() + i * out * in, out, in}; }
  Index out, in, copies;
  Buffer<bfloat16> all;
};

void product(benchmark::State& state, Verb verb) {
  auto& gpu = *bench::Gpu::instance();
  Index const rows = state.range(0), in = state.range(1), out = state.range(2);
  Weights const weights(gpu, out, in);
  auto const x = gpu.random(rows, in, 2), norm = gpu.random(1, in, 3), residual = gpu.random(rows, out, 4);
  auto const to = gpu.random(rows, out, 5);
  Buffer<float> const logits = bench::zeros(gpu, verb == Verb::NormLogits ? rows * out : 1);
  auto context = gpu.context();
  context.overlaps = state.range(3) != 0;
  View<bfloat16 const> const from(x.data(), rows, in);
  std::span<bfloat16 const> const norm_weights(norm.data(), static_cast<std::size_t>(in));
  double const bytes = 2.0 * static_cast<double>(out * in) + (verb == Verb::NormLogits ? 4.0 * static_cast<double>(rows * out) : 0.0);
  bench::measure_graph(state, gpu, static_cast<int>(weights.copies), bytes, [&] {
    for (Index i = 0; i < weights.copies; ++i) {
      auto const w = weights.copy(i);
      switch (verb) {
        case Verb::Linear:
          cuda::few_rows_linear<Sm90, bfloat16, bfloat16>(context, from, w, 1.0F, {to.data(), rows, out});
          break;
        case Verb::Residual:
          cuda::few_rows_linear_residual<Sm90, bfloat16>(context, from, w, {residual.data(), rows, out}, {to.data(), rows, out});
          break;
        case Verb::NormLogits:
          cuda::few_rows_norm_linear<Sm90, bfloat16, float>(context, from, norm_weights, 1e-5, w, {logits.data(), rows, out});
          break;
        case Verb::Swiglu:
          cuda::few_rows_norm_swiglu<Sm90, bfloat16>(context, from, norm_weights, 1e-5, w, {to.data(), rows, out / 2});
          break;
      }
    }
  });
}

/// The weights and activations of a stack of layers, and the keys of `rows` sequences of `keys` tokens.
struct Stack {
  static constexpr Index layers = 32, width = 960, heads = 15, kv_heads = 5, head_dim = 64, inner = 2560, page = 64, keys = 128;
  static constexpr Index key_width = kv_heads * head_dim, pages_each = keys / page;

  Stack(bench::Gpu& gpu, Index rows_)
      : rows(rows_), qkv(bench::random_matrix(gpu, layers * (width + 2 * key_width), width, 1)),
        o(bench::random_matrix(gpu, layers * width, width, 2)), gate_up(bench::random_matrix(gpu, layers * 2 * inner, width, 3)),
        down(bench::random_matrix(gpu, layers * width, inner, 4)), norm(gpu.random(1, width, 5)), x(gpu.random(rows, width, 6)),
        q(gpu.random(rows, width, 7)), attended(gpu.random(rows, width, 8)), gated(gpu.random(rows, inner, 9)),
        k(bench::random_matrix(gpu, layers * rows * keys, key_width, 10)),
        v(bench::random_matrix(gpu, layers * rows * keys, key_width, 11)), lse(bench::zeros(gpu, rows * heads)) {
    std::vector<Row> begin, limits, table, positions;
    for (Index i = 0; i < rows; ++i) {
      host_offsets.push_back(static_cast<Row>(i));
      begin.push_back(static_cast<Row>(i * pages_each));
      limits.push_back(static_cast<Row>(keys));
      positions.push_back(static_cast<Row>(keys - 1));
    }
    host_offsets.push_back(static_cast<Row>(rows));
    for (Index i = rows * pages_each; i > 0; --i) table.push_back(static_cast<Row>(i - 1));
    for (auto const& list : {host_offsets, begin, limits, table, positions}) lists.push_back(bench::on_device(gpu, list));
    list = {rows, rows, keys, lists[0].span(), host_offsets, lists[1].span(), lists[2].span(), page, lists[3].span()};
  }
  [[nodiscard]] static View<bfloat16> layer(Buffer<bfloat16> const& of, Index layer, Index layer_rows, Index cols) {
    return {of.data() + layer * layer_rows * cols, layer_rows, cols};
  }
  /// Bytes that a layer must read.
  [[nodiscard]] double bytes() const {
    Index const elements = (2 * width + 2 * key_width) * width + 3 * inner * width + 2 * rows * keys * key_width;
    return 2.0 * static_cast<double>(elements);
  }
  void run(cuda::Context const& context) const {
    std::span<bfloat16 const> const norm_weights = norm.span();
    View<bfloat16> const hidden(x.data(), rows, width), query(q.data(), rows, width), result(attended.data(), rows, width);
    View<bfloat16> const activation(gated.data(), rows, inner);
    for (Index i = 0; i < layers; ++i) {
      auto const plane_k = layer(k, i, rows * keys, key_width), plane_v = layer(v, i, rows * keys, key_width);
      cuda::few_rows_project_keys<Sm90, bfloat16>(context, hidden, norm_weights, 1e-5,
                                                  layer(qkv, i, width + 2 * key_width, width), lists[4].span(), head_dim,
                                                  10000.0, list, query, plane_k, plane_v);
      cuda::attention<Sm90, bfloat16>(context, query, plane_k, plane_v, list, {heads, kv_heads, head_dim, 0.125}, result,
                                      {lse.data(), rows, heads});
      cuda::few_rows_linear_residual<Sm90, bfloat16>(context, result, layer(o, i, width, width), hidden, hidden);
      cuda::few_rows_norm_swiglu<Sm90, bfloat16>(context, hidden, norm_weights, 1e-5, layer(gate_up, i, 2 * inner, width),
                                                 activation);
      cuda::few_rows_linear_residual<Sm90, bfloat16>(context, activation, layer(down, i, width, inner), hidden, hidden);
    }
  }

  /// The first `count` layers in one launch.
  void run(cuda::Context const& context, cuda::LayerStack<Sm90> const& stack, bool rows_apart, Index count) const {
    std::span<bfloat16 const> const norm_weights = norm.span();
    std::vector<StackedLayer<bfloat16>> all;
    for (Index i = 0; i < count; ++i) {
      all.push_back({layer(qkv, i, width + 2 * key_width, width), layer(o, i, width, width), layer(gate_up, i, 2 * inner, width),
                     layer(down, i, width, inner), norm_weights, norm_weights, layer(k, i, rows * keys, key_width),
                     layer(v, i, rows * keys, key_width)});
    }
    View<bfloat16> const hidden(x.data(), rows, width);
    stack.run(context, all, {{hidden}, lists[4].span(), {}, rows_apart, {q.data(), rows, width}}, list, list);
  }
  [[nodiscard]] static LayerSizes sizes() { return {width, inner, {heads, kv_heads, head_dim, 0.125}, 1e-5, 10000.0}; }

  Index rows;
  Buffer<bfloat16> qkv, o, gate_up, down, norm, x, q, attended, gated, k, v;
  Buffer<float> lse;
  std::vector<Row> host_offsets;
  std::vector<Buffer<Row>> lists;
  KeyList list;
};

void linear(benchmark::State& state) { product(state, Verb::Linear); }
void linear_residual(benchmark::State& state) { product(state, Verb::Residual); }
void norm_logits(benchmark::State& state) { product(state, Verb::NormLogits); }
void norm_swiglu(benchmark::State& state) { product(state, Verb::Swiglu); }

void layers(benchmark::State& state) {
  auto& gpu = *bench::Gpu::instance();
  Stack const stack(gpu, state.range(0));
  auto context = gpu.context();
  context.overlaps = state.range(1) != 0;
  bench::measure_graph(state, gpu, Stack::layers, stack.bytes(), [&] { stack.run(context); });
}

/// The same layers in one launch, or one of them.
void stack(benchmark::State& state) {
  auto& gpu = *bench::Gpu::instance();
  Stack const layers(gpu, state.range(0));
  cuda::LayerStack<Sm90> const one_launch(gpu.backend(), Stack::sizes());
  Index const count = state.range(2);
  bench::measure_graph(state, gpu, count, layers.bytes() / Stack::layers * count,
                [&] { layers.run(gpu.context(), one_launch, state.range(1) != 0, count); });
}

void settings(benchmark::internal::Benchmark* b) { b->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(15); }

/// One shape of weights at several numbers of rows.
template <int In, int Out>
void shape(benchmark::internal::Benchmark* b) {
  settings(b);
  b->ArgNames({"rows", "in", "out", "overlap"});
  for (Index const rows : {1, 8, 32, 64}) b->Args({rows, In, Out, 1});
  b->Args({1, In, Out, 0});
  b->Args({64, In, Out, 0});
}

void layer_shapes(benchmark::internal::Benchmark* b) {
  settings(b);
  b->ArgNames({"rows", "overlap"});
  for (Index const rows : {1, 8, 32, 64}) {
    for (Index const overlap : {0, 1}) b->Args({rows, overlap});
  }
}

void stack_shapes(benchmark::internal::Benchmark* b) {
  settings(b);
  b->ArgNames({"rows", "apart", "layers"});
  for (Index const rows : {1, 8, 16, 32, 48, 64}) {
    for (Index const apart : {1, 0}) b->Args({rows, apart, Stack::layers});
    b->Args({rows, 1, 1});
  }
}

BENCHMARK(layers)->Apply(layer_shapes);
BENCHMARK(stack)->Apply(stack_shapes);
BENCHMARK(linear)->Apply(shape<960, 1600>);
BENCHMARK(linear_residual)->Apply(shape<960, 960>)->Apply(shape<2560, 960>)->Apply(shape<1536, 576>)->Apply(shape<8192, 2048>);
BENCHMARK(norm_swiglu)->Apply(shape<960, 5120>)->Apply(shape<576, 3072>)->Apply(shape<2048, 16384>);
BENCHMARK(norm_logits)->Apply(shape<960, 49152>);

}  // namespace

int main(int argc, char** argv) { return mor::bench::run_gpu_benchmarks(argc, argv); }
