// SPDX-License-Identifier: Apache-2.0
// Decoding on the GPU: attention of single rows against keys in pages of 64 that lie in storage in no order, and writing a
// token's keys to its page. The floor is the bytes of the visible keys and values.
//
// `paged_attention` is one call between two events, cold, with the host's launch in it. `paged_attention_in_graph` is the share
// of a call in a graph of several, as the layers of a decoding step are: each has keys of its own, and the second-level cache
// holds something else, clean, when the graph starts.
#include "support/gpu_data.cuh"
#include "support/gpu_measure.cuh"

#include "mor/backend/cuda/graph.cuh"
#include "mor/backend/cuda/ops/attention_paged.cuh"
#include "mor/backend/cuda/ops/key_list.cuh"

#include <algorithm>
#include <numeric>
#include <vector>

namespace {

using namespace mor;

constexpr Index page_size = 64, heads = 15, kv_heads = 5, head_dim = 64;  // SmolLM-360M
constexpr Index width = heads * head_dim, key_width = kv_heads * head_dim;

/// `rows` sequences of `keys` tokens in each of `layers` layers.
struct Problem {
  Problem(bench::Gpu& gpu, Index rows_, Index keys_, Index layers_)
      : rows(rows_),
        keys(keys_),
        layers(layers_),
        pages_each((keys + page_size - 1) / page_size),
        q(gpu.random(rows, width, 1)),
        k(bench::random_matrix(gpu, layers * rows * pages_each * page_size, key_width, 2)),
        v(bench::random_matrix(gpu, layers * rows * pages_each * page_size, key_width, 3)),
        out(gpu.random(rows, width, 4)),
        lse(gpu.backend().memory(), rows * heads) {
    Index const pages = layers * rows * pages_each;
    Index step = pages / 2 + 1;  // coprime to the number of pages: every page once, neighbours far apart
    while (std::gcd(step, pages) != 1) ++step;
    std::vector<Row> host_table, host_begin;
    for (Index i = 0; i < pages; ++i) host_table.push_back(static_cast<Row>(i * step % pages));
    for (Index s = 0; s <= rows; ++s) host_offsets.push_back(static_cast<Row>(s));
    for (Index s = 0; s < layers * rows; ++s) host_begin.push_back(static_cast<Row>(s * pages_each));
    table = bench::on_device(gpu, host_table);
    offsets = bench::on_device(gpu, host_offsets);
    begin = bench::on_device(gpu, host_begin);
    limits = bench::on_device(gpu, std::vector<Row>(static_cast<std::size_t>(rows), static_cast<Row>(keys)));
  }
  /// The list of a layer, on a device that provides for lists of `max_limit` keys.
  [[nodiscard]] KeyList list(Index layer, Index max_limit) const {
    auto const first = static_cast<std::size_t>(layer * rows), count = static_cast<std::size_t>(rows);
    return {rows,          rows,      max_limit,   offsets.span(), host_offsets, begin.span().subspan(first, count),
            limits.span(), page_size, table.span()};
  }
  [[nodiscard]] View<bfloat16> storage(Buffer<bfloat16> const& of) const {
    return {of.data(), layers * rows * pages_each * page_size, key_width};
  }
  void attend(bench::Gpu& gpu, Index layer, Index max_limit) const {
    cuda::attention_paged<cuda::Sm90, bfloat16>(gpu.context(), {q.data(), rows, width}, storage(k), storage(v),
                                                list(layer, max_limit), {heads, kv_heads, head_dim, 0.125},
                                                {out.data(), rows, width}, {lse.data(), rows, heads});
  }
  [[nodiscard]] double bytes() const {
    return 2.0 * static_cast<double>(rows * keys * key_width) * sizeof(bfloat16);
  }

  Index rows, keys, layers, pages_each;
  Buffer<bfloat16> q, k, v, out;
  Buffer<float> lse;
  std::vector<Row> host_offsets;
  Buffer<Row> table, offsets, begin, limits;
};

/// Reads everything, so that the cache holds it and has nothing to write back.
template <int Threads>
__global__ void read_kernel(float4 const* from, Index count, float* sink) {
  float sum = 0.0F;
  for (Index i = Index{blockIdx.x} * Threads + threadIdx.x; i < count; i += Index{gridDim.x} * Threads) {
    float4 const value = from[i];
    sum += value.x + value.y + value.z + value.w;
  }
  if (sum == 0.5F) *sink = sum;  // never: the buffer holds zeros
}

void paged_attention(benchmark::State& state) {
  auto& gpu = *bench::Gpu::instance();
  Problem const p(gpu, state.range(0), state.range(1), 1);
  double const pairs = static_cast<double>(p.rows * p.keys);
  bench::measure(state, gpu, {4.0 * pairs * width, p.bytes()}, [&] { p.attend(gpu, 0, p.keys); });
}

void in_graph(benchmark::State& state, Index rows, Index keys, Index max_limit) {
  auto& gpu = *bench::Gpu::instance();
  cudaStream_t const stream = gpu.context().stream;
  double const bytes = 2.0 * static_cast<double>(rows * keys * key_width) * sizeof(bfloat16);
  auto const calls = static_cast<Index>(std::clamp(0x1p31 / bytes, 4.0, 32.0));
  Problem const p(gpu, rows, keys, bytes > 0x1p28 ? 1 : calls);  // a large one leaves nothing of itself in the cache
  Index const flush = Index{gpu.backend().device().l2_bytes} / 2;  // floats: twice the cache
  Buffer<float> const other = bench::zeros(gpu, flush);
  p.attend(gpu, 0, max_limit);
  cuda::Graph graph;
  auto const attend_often = [&] {
    for (Index i = 0; i < calls; ++i) p.attend(gpu, i % p.layers, max_limit);
  };
  require(graph.capture(stream, attend_often), "attention cannot be captured", "paged_attention_in_graph");
  bench::EventPair events;
  std::vector<double> times;
  for (auto _ : state) {
    for (int i = 0; i < 2; ++i) {  // while the device reads, the host enqueues the graph
      cuda::launch(gpu.context(), "read", {dim3(1024), 256}, &read_kernel<256>, reinterpret_cast<float4 const*>(other.data()),
                   flush / 4, other.data());
    }
    events.begin(stream);
    graph.launch(stream);
    times.push_back(events.end(stream) / static_cast<double>(calls));
    state.SetIterationTime(times.back());
  }
  double const time = bench::median(times);
  state.counters["median_us"] = 1e6 * time;
  state.counters["GB/s"] = 1e-9 * bytes / time;
  state.counters["copy_share"] = bytes / time / gpu.copy_bandwidth();
}

void paged_attention_in_graph(benchmark::State& state) { in_graph(state, state.range(0), state.range(1), state.range(1)); }
/// Launches that provide for lists far longer than they are.
void paged_attention_loose_bound(benchmark::State& state) { in_graph(state, state.range(0), state.range(1), 8192); }

void write_keys(benchmark::State& state) {
  auto& gpu = *bench::Gpu::instance();
  Problem const p(gpu, state.range(0), state.range(1), 1);
  KeyList const list = p.list(0, p.keys);
  bench::measure(state, gpu, {0.0, 2.0 * static_cast<double>(p.rows * key_width) * sizeof(bfloat16)}, [&] {
    cuda::write_keys<bfloat16>(gpu.context(), {p.q.data(), p.rows, key_width, width}, list, p.storage(p.k));
  });
}

void manual(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "keys"})->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(20);
}
void shapes(benchmark::internal::Benchmark* b) {
  manual(b);
  for (Index const rows : {1, 8, 32, 128, 512}) {
    for (Index const keys : {128, 1024, 2048, 8192}) b->Args({rows, keys});
  }
}
void few_shapes(benchmark::internal::Benchmark* b) {
  manual(b);
  b->Args({1, 128})->Args({32, 128})->Args({32, 1024})->Args({512, 1024});
}

BENCHMARK(paged_attention)->Apply(few_shapes);
BENCHMARK(paged_attention_in_graph)->Apply(shapes);
BENCHMARK(paged_attention_loose_bound)->Apply(few_shapes);
BENCHMARK(write_keys)->Apply(manual)->Args({32, 1024});

}  // namespace

int main(int argc, char** argv) { return mor::bench::run_gpu_benchmarks(argc, argv); }
