// SPDX-License-Identifier: Apache-2.0
// Row-limited attention on the GPU, forward and backward, by each architecture's kernels: training shapes, the active rows
// of later recursions, and few queries against all keys (shared cache). FLOPs count visible pairs only, the backward pass as
// 2.5 times the forward pass. bench/peers/torch_attention.py measures PyTorch's kernels on the same shapes.
#include "support/gpu_measure.cuh"

#include "mor/backend/cuda/ops/attention.cuh"
#include "mor/backend/cuda/ops/attention_backward.cuh"

#include <algorithm>
#include <numeric>
#include <vector>

namespace {

using namespace mor;

/// Sequences of `keys` tokens of which `queries`, evenly spread, are active. `shared`: they see every token before them;
/// else only one another.
struct Problem {
  Problem(bench::Gpu& gpu, benchmark::State const& state)
      : sequences(state.range(0)),
        queries(state.range(1)),
        keys(state.range(2)),
        shape{state.range(3), state.range(4), state.range(5), 1.0 / std::sqrt(static_cast<double>(state.range(5)))},
        rows(sequences * queries),
        key_rows(sequences * keys),
        width(shape.num_heads * shape.head_dim),
        key_width(shape.num_kv_heads * shape.head_dim),
        q(gpu.random(rows, width, 1)),
        k(gpu.random(key_rows, key_width, 2)),
        v(gpu.random(key_rows, key_width, 3)),
        d_out(gpu.random(rows, width, 4)),
        out(gpu.random(rows, width, 5)),
        d_q(gpu.random(rows, width, 6)),
        d_k(gpu.random(key_rows, key_width, 7)),
        d_v(gpu.random(key_rows, key_width, 8)),
        lse(gpu.backend().memory(), rows * shape.num_heads) {
    for (Index s = 0; s <= sequences; ++s) {
      host_offsets.push_back(static_cast<Row>(s * queries));
      if (s < sequences) host_begin.push_back(static_cast<Row>(s * keys));
    }
    for (Index s = 0; s < sequences; ++s) {
      for (Index i = 0; i < queries; ++i) {
        Index const limit = (i + 1) * keys / queries;
        host_limits.push_back(static_cast<Row>(limit));
        pairs += static_cast<double>(limit);
      }
    }
    auto& b = gpu.backend();
    offsets = Buffer<Row>(b.memory(), static_cast<Index>(host_offsets.size()));
    begin = Buffer<Row>(b.memory(), sequences);
    limits = Buffer<Row>(b.memory(), rows);
    b.store(std::span<Row const>(host_offsets), offsets.span());
    b.store(std::span<Row const>(host_begin), begin.span());
    b.store(std::span<Row const>(host_limits), limits.span());
    list = {sequences, rows, keys, offsets.span(), host_offsets, begin.span(), limits.span()};
  }
  [[nodiscard]] double forward_flops() const {
    return 4.0 * pairs * static_cast<double>(shape.num_heads * shape.head_dim);
  }
  static View<bfloat16> view(Buffer<bfloat16> const& buffer, Index rows, Index cols) { return {buffer.data(), rows, cols}; }

  Index sequences, queries, keys;
  AttentionShape shape;
  Index rows, key_rows, width, key_width;
  Buffer<bfloat16> q, k, v, d_out, out, d_q, d_k, d_v;
  Buffer<float> lse;
  std::vector<Row> host_offsets, host_begin, host_limits;
  Buffer<Row> offsets, begin, limits;
  KeyList list;
  double pairs = 0.0;
};

template <class Arch>
void run_forward(cuda::Context const& context, Problem const& p) {
  cuda::attention<Arch, bfloat16>(context, Problem::view(p.q, p.rows, p.width), Problem::view(p.k, p.key_rows, p.key_width),
                                  Problem::view(p.v, p.key_rows, p.key_width), p.list, p.shape,
                                  Problem::view(p.out, p.rows, p.width), {p.lse.data(), p.rows, p.shape.num_heads});
}

template <class Arch>
void forward(benchmark::State& state) {
  auto& gpu = *bench::Gpu::instance();
  Problem const p(gpu, state);
  bench::measure(state, gpu, {p.forward_flops(), 0.0}, [&] { run_forward<Arch>(gpu.context(), p); });
}

template <class Arch>
void backward(benchmark::State& state) {
  auto& gpu = *bench::Gpu::instance();
  Problem const p(gpu, state);
  run_forward<Arch>(gpu.context(), p);
  bench::measure(state, gpu, {2.5 * p.forward_flops(), 0.0}, [&] {
    cuda::attention_backward<Arch, bfloat16>(
        gpu.context(), Problem::view(p.q, p.rows, p.width), Problem::view(p.k, p.key_rows, p.key_width),
        Problem::view(p.v, p.key_rows, p.key_width), p.list, p.shape, Problem::view(p.out, p.rows, p.width),
        {p.lse.data(), p.rows, p.shape.num_heads}, Problem::view(p.d_out, p.rows, p.width),
        Problem::view(p.d_q, p.rows, p.width), Problem::view(p.d_k, p.key_rows, p.key_width),
        Problem::view(p.d_v, p.key_rows, p.key_width));
  });
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"sequences", "queries", "keys", "heads", "kv_heads", "dim"});
  b->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(20);
  for (Index const length : {2048, 1365, 682}) b->Args({16, length, length, 15, 5, 64});
  b->Args({16, 682, 2048, 15, 5, 64});  // the third recursion of MoR-3 with a shared cache
  b->Args({16, 2048, 2048, 9, 3, 64});
  b->Args({8, 2048, 2048, 32, 32, 64});
  b->Args({16, 2048, 2048, 16, 16, 128});
  b->Args({4, 8192, 8192, 16, 16, 128});
}

BENCHMARK_TEMPLATE(forward, cuda::Sm80)->Apply(shapes);
BENCHMARK_TEMPLATE(backward, cuda::Sm80)->Apply(shapes);
BENCHMARK_TEMPLATE(forward, cuda::Sm90)->Apply(shapes);
BENCHMARK_TEMPLATE(backward, cuda::Sm90)->Apply(shapes);

}  // namespace

int main(int argc, char** argv) { return mor::bench::run_gpu_benchmarks(argc, argv); }
