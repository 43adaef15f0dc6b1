// SPDX-License-Identifier: Apache-2.0
// Attention of the host backend: training shapes forward and backward, and decoding against a long list of keys.
#include "support/machine_peak.hpp"

#include "mor/backend/host/backend.hpp"

#include <cmath>
#include <vector>

namespace {

using namespace mor;

/// `sequences` sequences of `length` tokens each; `queries` of them at the end of each sequence ask. With a `page_size` that
/// divides the length, keys lie in pages, no two neighbours of a list side by side.
struct Problem {
  Problem(Index sequences, Index length, Index queries, Index heads, Index kv_heads, Index dim, int threads,
          Index page_size_ = 0)
      : shape{heads, kv_heads, dim, 1.0 / std::sqrt(static_cast<double>(dim))},
        rows(sequences * queries),
        key_rows(sequences * length),
        page_size(page_size_),
        backend(threads),
        q(fill(rows * heads * dim)),
        k(fill(key_rows * kv_heads * dim)),
        v(k),
        out(q),
        d_out(q),
        d_q(q),
        d_k(k),
        d_v(k),
        lse(static_cast<std::size_t>(rows * heads)) {
    offsets.push_back(0);
    for (Index s = 0; s < sequences; ++s) {
      begins.push_back(static_cast<Row>(page_size > 0 ? s * (length / page_size) : s * length));
      offsets.push_back(static_cast<Row>((s + 1) * queries));
      for (Index i = 0; i < queries; ++i) {
        Index const limit = length - queries + i + 1;
        limits.push_back(static_cast<Row>(limit));
        pairs += static_cast<double>(limit * heads);
      }
    }
    for (Index page = page_size > 0 ? key_rows / page_size : 0; page > 0; --page) pages.push_back(static_cast<Row>(page - 1));
  }
  static std::vector<float> fill(Index count) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i * 7919 % 1013) / 512.0F - 1.0F;
    return values;
  }
  [[nodiscard]] KeyList keys() const {
    return {static_cast<Index>(begins.size()), rows, limits.back(), offsets, offsets, begins, limits, page_size, pages};
  }
  [[nodiscard]] View<float const> queries(std::vector<float> const& x) const {
    return {x.data(), rows, shape.num_heads * shape.head_dim};
  }
  [[nodiscard]] View<float const> stored(std::vector<float> const& x) const {
    return {x.data(), key_rows, shape.num_kv_heads * shape.head_dim};
  }
  void forward() {
    backend.attention(queries(q), stored(k), stored(v), keys(), shape, View<float>(out.data(), rows, shape.num_heads * shape.head_dim),
                      View<float>(lse.data(), rows, shape.num_heads));
    backend.arena().reset();
  }
  void backward() {
    Index const width = shape.num_heads * shape.head_dim, kv_width = shape.num_kv_heads * shape.head_dim;
    backend.attention_backward(queries(q), stored(k), stored(v), keys(), shape, queries(out),
                               View<float const>(lse.data(), rows, shape.num_heads), queries(d_out),
                               View<float>(d_q.data(), rows, width), View<float>(d_k.data(), key_rows, kv_width),
                               View<float>(d_v.data(), key_rows, kv_width));
    backend.arena().reset();
  }

  AttentionShape shape;
  Index rows, key_rows, page_size;
  host::Backend<float> backend;
  std::vector<float> q, k, v, out, d_out, d_q, d_k, d_v, lse;
  std::vector<Row> offsets, begins, limits, pages;
  double pairs = 0.0;  ///< (query, key, head) triples that are computed
};

Problem training_problem(benchmark::State const& state) {
  return {state.range(0), state.range(1), state.range(1), state.range(2), state.range(3), state.range(4),
          static_cast<int>(state.range(5))};
}

void forward(benchmark::State& state) {
  Problem p = training_problem(state);
  bench::measure(state, p.backend.threads(), {4.0 * p.pairs * static_cast<double>(p.shape.head_dim), 0.0}, [&] { p.forward(); });
}

void backward(benchmark::State& state) {
  Problem p = training_problem(state);
  p.forward();
  bench::measure(state, p.backend.threads(), {10.0 * p.pairs * static_cast<double>(p.shape.head_dim), 0.0},
                 [&] { p.backward(); });
}

void decode(benchmark::State& state) {
  Problem p(state.range(0), state.range(1), 1, state.range(2), state.range(3), state.range(4), static_cast<int>(state.range(5)),
            state.range(6));
  double const bytes = 8.0 * static_cast<double>(p.key_rows * p.shape.num_kv_heads * p.shape.head_dim);
  bench::measure(state, p.backend.threads(), {4.0 * p.pairs * static_cast<double>(p.shape.head_dim), bytes},
                 [&] { p.forward(); });
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"sequences", "length", "heads", "kv", "dim", "threads"})->UseManualTime()->Unit(benchmark::kMicrosecond);
  for (int const threads : {1, 0}) {
    b->Args({8, 256, 4, 2, 64, threads});
    b->Args({8, 256, 4, 4, 64, threads});
    b->Args({2, 2048, 9, 3, 64, threads});
    b->Args({8, 256, 8, 8, 32, threads});
  }
}

void decode_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"sequences", "length", "heads", "kv", "dim", "threads", "page"})->UseManualTime()->Unit(benchmark::kMicrosecond);
  for (int const threads : {1, 0}) {
    for (int const page : {0, 64}) {
      b->Args({1, 256, 4, 2, 64, threads, page});
      b->Args({1, 16384, 9, 3, 64, threads, page});
      b->Args({16, 2048, 9, 3, 64, threads, page});
      b->Args({16, 2048, 8, 8, 64, threads, page});
    }
  }
}

BENCHMARK(forward)->Apply(shapes);
BENCHMARK(backward)->Apply(shapes);
BENCHMARK(decode)->Apply(decode_shapes);

}  // namespace
