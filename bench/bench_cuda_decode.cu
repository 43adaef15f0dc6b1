// SPDX-License-Identifier: Apache-2.0
// Decoding on the GPU: attention of single rows against keys in pages of 64 that lie in storage in no order, and writing a
// token's keys to its page. The floor is the bytes of the visible keys and values.
#include "support/gpu_data.cuh"
#include "support/gpu_measure.cuh"

#include "mor/backend/cuda/ops/attention.cuh"
#include "mor/backend/cuda/ops/key_list.cuh"

#include <numeric>
#include <vector>

namespace {

using namespace mor;

constexpr Index page_size = 64, heads = 15, kv_heads = 5, head_dim = 64;  // SmolLM-360M
constexpr Index width = heads * head_dim, key_width = kv_heads * head_dim;

/// `rows` sequences of `keys` tokens.
struct Problem {
  Problem(bench::Gpu& gpu, benchmark::State const& state)
      : rows(state.range(0)),
        keys(state.range(1)),
        pages_each((keys + page_size - 1) / page_size),
        q(gpu.random(rows, width, 1)),
        k(bench::random_matrix(gpu, rows * pages_each * page_size, key_width, 2)),
        v(bench::random_matrix(gpu, rows * pages_each * page_size, key_width, 3)),
        out(gpu.random(rows, width, 4)),
        lse(gpu.backend().memory(), rows * heads) {
    Index const pages = rows * pages_each;
    Index step = pages / 2 + 1;  // coprime to the number of pages: every page once, neighbours far apart
    while (std::gcd(step, pages) != 1) ++step;
    for (Index i = 0; i < pages; ++i) host_table.push_back(static_cast<Row>(i * step % pages));
    for (Index s = 0; s <= rows; ++s) host_offsets.push_back(static_cast<Row>(s));
    for (Index s = 0; s < rows; ++s) host_begin.push_back(static_cast<Row>(s * pages_each));
    host_limits.assign(static_cast<std::size_t>(rows), static_cast<Row>(keys));
    store(gpu, host_table, table);
    store(gpu, host_offsets, offsets);
    store(gpu, host_begin, begin);
    store(gpu, host_limits, limits);
    list = {rows, rows, keys, offsets.span(), host_offsets, begin.span(), limits.span(), page_size, table.span()};
  }
  static void store(bench::Gpu& gpu, std::vector<Row> const& from, Buffer<Row>& to) {
    to = Buffer<Row>(gpu.backend().memory(), static_cast<Index>(from.size()));
    gpu.backend().store(std::span<Row const>(from), to.span());
  }
  [[nodiscard]] View<bfloat16> storage(Buffer<bfloat16> const& of) const {
    return {of.data(), rows * pages_each * page_size, key_width};
  }

  Index rows, keys, pages_each;
  Buffer<bfloat16> q, k, v, out;
  Buffer<float> lse;
  std::vector<Row> host_table, host_offsets, host_begin, host_limits;
  Buffer<Row> table, offsets, begin, limits;
  KeyList list;
};

void paged_attention(benchmark::State& state) {
  auto& gpu = *bench::Gpu::instance();
  Problem const p(gpu, state);
  double const pairs = static_cast<double>(p.rows * p.keys);
  bench::measure(state, gpu, {4.0 * pairs * width, 2.0 * pairs * key_width * sizeof(bfloat16)}, [&] {
    cuda::attention<cuda::Sm90, bfloat16>(gpu.context(), {p.q.data(), p.rows, width}, p.storage(p.k), p.storage(p.v), p.list,
                                          {heads, kv_heads, head_dim, 0.125}, {p.out.data(), p.rows, width},
                                          {p.lse.data(), p.rows, heads});
  });
}

void write_keys(benchmark::State& state) {
  auto& gpu = *bench::Gpu::instance();
  Problem const p(gpu, state);
  bench::measure(state, gpu, {0.0, 2.0 * static_cast<double>(p.rows * key_width) * sizeof(bfloat16)}, [&] {
    cuda::write_keys<bfloat16>(gpu.context(), {p.q.data(), p.rows, key_width, width}, p.list, p.storage(p.k));
  });
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "keys"})->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(20);
  for (Index const rows : {1, 32, 128, 512}) {
    for (Index const keys : {128, 1024}) b->Args({rows, keys});
  }
  b->Args({1, 8192});
  b->Args({32, 8192});
}

BENCHMARK(paged_attention)->Apply(shapes);
BENCHMARK(write_keys)->ArgNames({"rows", "keys"})->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(20)->Args({32, 1024});

}  // namespace

int main(int argc, char** argv) { return mor::bench::run_gpu_benchmarks(argc, argv); }
