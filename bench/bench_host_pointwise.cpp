// SPDX-License-Identifier: Apache-2.0
// Norms, rotary embedding, activations and row moves of the host backend: their time is memory traffic.
#include "support/machine_peak.hpp"

#include "mor/backend/host/backend.hpp"

#include <numeric>
#include <vector>

namespace {

using namespace mor;

/// Some matrices of one size, and the vectors that go with them.
struct Arrays {
  explicit Arrays(benchmark::State const& state)
      : rows(state.range(0)),
        cols(state.range(1)),
        backend(static_cast<int>(state.range(2))),
        a(static_cast<std::size_t>(2 * rows * cols), 0.5F),
        b(a),
        c(a),
        weights(static_cast<std::size_t>(cols), 1.0F),
        d_weights(weights),
        values(static_cast<std::size_t>(rows), 1.0F),
        indices(static_cast<std::size_t>(rows)) {
    std::iota(indices.begin(), indices.end(), 0);
    for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i % 13) / 6.0F - 1.0F;
  }
  [[nodiscard]] View<float const> in(std::vector<float> const& x, Index width = 1) const { return {x.data(), rows, width * cols}; }
  [[nodiscard]] View<float> out(std::vector<float>& x, Index width = 1) const { return {x.data(), rows, width * cols}; }
  /// Work that moves `times` matrices.
  [[nodiscard]] bench::Work traffic(double times) const { return {0.0, times * 4.0 * static_cast<double>(rows * cols)}; }

  Index rows, cols;
  host::Backend<float> backend;
  std::vector<float> a, b, c, weights, d_weights, values;
  std::vector<Row> indices;
};

template <class F>
void run(benchmark::State& state, double matrices, F const& call) {
  Arrays x(state);
  bench::measure(state, x.backend.threads(), x.traffic(matrices), [&] {
    call(x);
    x.backend.arena().reset();
  });
}

void rms_norm(benchmark::State& state) {
  run(state, 2.0, [](Arrays& x) { x.backend.rms_norm(x.in(x.a), x.weights, 1e-5, x.out(x.b), x.values); });
}
void rms_norm_backward(benchmark::State& state) {
  run(state, 4.0, [](Arrays& x) {
    x.backend.rms_norm_backward(x.in(x.a), x.in(x.b), x.weights, x.values, x.out(x.c), x.d_weights);
  });
}
void rope(benchmark::State& state) {
  run(state, 2.0, [](Arrays& x) { x.backend.rope(x.indices, 64, 1e4, Rotation::Forward, x.out(x.a)); });
}
void swiglu(benchmark::State& state) {
  run(state, 3.0, [](Arrays& x) { x.backend.swiglu(x.in(x.a, 2), x.out(x.b)); });
}
void swiglu_backward(benchmark::State& state) {
  run(state, 5.0, [](Arrays& x) { x.backend.swiglu_backward(x.in(x.b), x.in(x.a, 2), x.out(x.c, 2), {}); });
}
void gelu(benchmark::State& state) {
  run(state, 2.0, [](Arrays& x) { x.backend.gelu(x.in(x.a), 1.0, x.out(x.b)); });
}
void add(benchmark::State& state) {
  run(state, 3.0, [](Arrays& x) { x.backend.add(x.in(x.a), x.out(x.b)); });
}
void gather_rows(benchmark::State& state) {
  run(state, 2.0, [](Arrays& x) { x.backend.gather_rows(x.in(x.a), x.indices, x.out(x.b)); });
}
void combine(benchmark::State& state) {
  run(state, 3.0, [](Arrays& x) { x.backend.combine(x.in(x.a), x.values, {}, x.indices, x.in(x.b), x.out(x.b)); });
}
void embed_backward(benchmark::State& state) {
  run(state, 3.0, [](Arrays& x) { x.backend.embed_backward(x.indices, x.in(x.a), x.out(x.b)); });
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "cols", "threads"})->UseManualTime()->Unit(benchmark::kMicrosecond);
  for (int const threads : {1, 0}) {
    b->Args({2048, 256, threads});
    b->Args({16384, 704, threads});
  }
}

BENCHMARK(rms_norm)->Apply(shapes);
BENCHMARK(rms_norm_backward)->Apply(shapes);
BENCHMARK(rope)->Apply(shapes);
BENCHMARK(swiglu)->Apply(shapes);
BENCHMARK(swiglu_backward)->Apply(shapes);
BENCHMARK(gelu)->Apply(shapes);
BENCHMARK(add)->Apply(shapes);
BENCHMARK(gather_rows)->Apply(shapes);
BENCHMARK(combine)->Apply(shapes);
BENCHMARK(embed_backward)->Apply(shapes);

}  // namespace
