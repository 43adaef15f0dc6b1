// SPDX-License-Identifier: Apache-2.0
// Kernels that are bound by memory: norms, rotary embedding, gated activation, moves and updates of rows. bf16 at the
// shapes of SmolLM-360M, 32768 rows. Bytes are those of each operand read or written once; copy_share is the share of what
// a copy moves in the same run. linear_then_add and linear_residual compute the same, with the addition in a pass of its
// own or within the product. gather_rows stands for all maps where what loads tell the caches is compared.
// bench/peers/torch_pointwise.py measures PyTorch with the same counting.
#include "support/gpu_data.cuh"

#include <vector>

namespace {

using namespace mor;
using bench::Gpu;

constexpr Index sequences = 16, length = 2048, rows = sequences * length, hidden = 960, width = 2560;
constexpr double matrix = 2.0 * rows * hidden;   // bytes of [rows, hidden]
constexpr double wide_matrix = 2.0 * rows * width;

Gpu& gpu() { return *Gpu::instance(); }
Buffer<bfloat16> random(Index cols, std::uint64_t key) { return bench::random_matrix(gpu(), rows, cols, key); }
View<bfloat16> view(Buffer<bfloat16> const& x) { return Gpu::view(x, rows, x.size() / rows); }
bench::GpuWork bytes(double count) { return {0.0, count}; }

// What a copy of one matrix takes: the roof of the kernels below, whose calls are as short.
void device_copy(benchmark::State& state) {
  auto const x = random(hidden, 1), out = random(hidden, 2);
  bench::measure(state, gpu(), bytes(2 * matrix),
                 [&] { bench::copy_on_device(gpu(), x.data(), out.data(), x.size()); });
}

void rms_norm(benchmark::State& state) {
  auto const x = random(hidden, 1), out = random(hidden, 2), weights = gpu().random(1, hidden, 3);
  auto const rstd = bench::zeros(gpu(), rows);
  bench::measure(state, gpu(), bytes(2 * matrix + 4.0 * rows), [&] {
    gpu().backend().rms_norm(view(x), weights.span(), 1e-5, view(out), rstd.span());
  });
}

// Adds to d_x, as the residual stream needs it: three matrices read and one written.
void rms_norm_backward(benchmark::State& state) {
  auto const d_out = random(hidden, 1), x = random(hidden, 2), d_x = random(hidden, 3);
  auto const weights = gpu().random(1, hidden, 4);
  auto const rstd = bench::random_floats(gpu(), rows, 5), d_weights = bench::zeros(gpu(), hidden);
  bench::measure(state, gpu(), bytes(4 * matrix + 4.0 * rows), [&] {
    gpu().backend().rms_norm_backward(view(d_out), view(x), weights.span(), rstd.span(), view(d_x), d_weights.span());
  });
}

// Arguments: columns that turn, and columns from one row to the next. A layer turns queries and keys within rows that hold
// values too.
void rope(benchmark::State& state) {
  Index const cols = state.range(0), stride = state.range(1);
  auto const x = random(stride, 1);
  std::vector<Row> host_positions;
  for (Index i = 0; i < rows; ++i) host_positions.push_back(static_cast<Row>(i % length));
  auto const positions = bench::on_device(gpu(), host_positions);
  bench::measure(state, gpu(), bytes(4.0 * rows * static_cast<double>(cols) + 4.0 * rows), [&] {
    gpu().backend().rope(positions.span(), 64, 10000.0, Rotation::Forward, view(x).columns(0, cols));
  });
}

void swiglu(benchmark::State& state) {
  auto const gate_up = random(2 * width, 1), out = random(width, 2);
  bench::measure(state, gpu(), bytes(3 * wide_matrix), [&] { gpu().backend().swiglu(view(gate_up), view(out)); });
}

void swiglu_backward(benchmark::State& state) {
  auto const d_out = random(width, 1), gate_up = random(2 * width, 2), d_gate_up = random(2 * width, 3);
  bench::measure(state, gpu(), bytes(5 * wide_matrix),
                 [&] { gpu().backend().swiglu_backward(view(d_out), view(gate_up), view(d_gate_up), {}); });
}

/// Rows of the stream, `state.range(0)` evenly spread ones of every sequence, and factors for them.
struct Listed {
  explicit Listed(benchmark::State const& state)
      : kept(state.range(0)),
        count(sequences * kept),
        part(2.0 * static_cast<double>(count * hidden)),
        stream(random(hidden, 1)),
        update(random(hidden, 2)),
        out(random(hidden, 3)),
        scale(bench::random_floats(gpu(), count, 4)),
        keep(bench::random_floats(gpu(), count, 5)),
        d_scale(bench::zeros(gpu(), count)) {
    std::vector<Row> list;
    for (Index i = 0; i < count; ++i) list.push_back(static_cast<Row>(i / kept * length + i % kept * length / kept));
    indices = bench::on_device(gpu(), list);
  }
  /// The first `count` rows of a buffer.
  [[nodiscard]] View<bfloat16> packed(Buffer<bfloat16> const& x) const { return view(x).row_range(0, count); }
  /// Bytes of `matrices` such matrices, and of `words` lists of four bytes a row.
  [[nodiscard]] bench::GpuWork work(int matrices, int words) const {
    return bytes(matrices * part + 4.0 * words * static_cast<double>(count));
  }

  Index kept, count;
  double part;  ///< bytes of the listed rows
  Buffer<bfloat16> stream, update, out;
  Buffer<float> scale, keep, d_scale;
  Buffer<Row> indices;
};

void gather_rows(benchmark::State& state) {
  Listed const x(state);
  bench::measure(state, gpu(), x.work(2, 1),
                 [&] { gpu().backend().gather_rows(view(x.stream), x.indices.span(), x.packed(x.out)); });
}
void combine(benchmark::State& state) {
  Listed const x(state);
  bench::measure(state, gpu(), x.work(3, 3), [&] {
    gpu().backend().combine(x.packed(x.update), x.scale.span(), x.keep.span(), x.indices.span(), view(x.stream), view(x.out));
  });
}
void combine_backward(benchmark::State& state) {
  Listed const x(state);
  bench::measure(state, gpu(), x.work(3, 3), [&] {
    gpu().backend().combine_backward(view(x.stream), x.packed(x.update), x.scale.span(), x.indices.span(), x.packed(x.out),
                                     x.d_scale.span());
  });
}
void scale_add_rows(benchmark::State& state) {
  Listed const x(state);
  bench::measure(state, gpu(), x.work(3, 2), [&] {
    gpu().backend().scale_add_rows(view(x.stream), x.scale.span(), x.indices.span(), view(x.out));
  });
}

void add(benchmark::State& state) {
  auto const x = random(hidden, 1), out = random(hidden, 2);
  bench::measure(state, gpu(), bytes(3 * matrix), [&] { gpu().backend().add(view(x), view(out)); });
}

void cast_weights(benchmark::State& state) {
  auto const master = bench::random_floats(gpu(), rows * hidden, 1);
  auto const weights = random(hidden, 2);
  bench::measure(state, gpu(), bytes(3 * matrix), [&] { gpu().backend().cast_weights(master.span(), weights.span()); });
}

/// out = residual + x w^T for x [rows, state.range(0)].
struct Residual {
  explicit Residual(benchmark::State const& state)
      : inputs(state.range(0)),
        x(random(inputs, 1)),
        weights(bench::random_matrix(gpu(), hidden, inputs, 2)),
        residual(random(hidden, 3)),
        out(random(hidden, 4)) {}
  [[nodiscard]] bench::GpuWork work() const { return {2.0 * rows * hidden * static_cast<double>(inputs), 0.0}; }
  [[nodiscard]] View<bfloat16> weights_view() const { return Gpu::view(weights, hidden, inputs); }

  Index inputs;
  Buffer<bfloat16> x, weights, residual, out;
};

void linear_then_add(benchmark::State& state) {
  Residual const p(state);
  bench::measure(state, gpu(), p.work(), [&] {
    gpu().backend().linear(view(p.x), p.weights_view(), view(p.out));
    gpu().backend().add(view(p.residual), view(p.out));
  });
}
void linear_residual(benchmark::State& state) {
  Residual const p(state);
  bench::measure(state, gpu(), p.work(), [&] {
    gpu().backend().linear_residual(view(p.x), p.weights_view(), view(p.residual), view(p.out));
  });
}

void plain(benchmark::internal::Benchmark* b) {
  b->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(50);
}
void listed(benchmark::internal::Benchmark* b) {
  plain(b);
  b->ArgName("rows_of_2048")->Arg(2048)->Arg(1365)->Arg(682);
}

BENCHMARK(device_copy)->Apply(plain);
BENCHMARK(rms_norm)->Apply(plain);
BENCHMARK(rms_norm_backward)->Apply(plain);
BENCHMARK(rope)->Apply(plain)->ArgNames({"columns", "stride"})->Args({960, 960})->Args({1280, 1600});
BENCHMARK(swiglu)->Apply(plain);
BENCHMARK(swiglu_backward)->Apply(plain);
BENCHMARK(gather_rows)->Apply(listed);
BENCHMARK(combine)->Apply(listed);
BENCHMARK(combine_backward)->Apply(listed);
BENCHMARK(scale_add_rows)->Apply(listed);
BENCHMARK(add)->Apply(plain);
BENCHMARK(cast_weights)->Apply(plain);
BENCHMARK(linear_then_add)->Apply(plain)->ArgName("inputs")->Arg(960)->Arg(2560);
BENCHMARK(linear_residual)->Apply(plain)->ArgName("inputs")->Arg(960)->Arg(2560);

}  // namespace

int main(int argc, char** argv) { return mor::bench::run_gpu_benchmarks(argc, argv); }
