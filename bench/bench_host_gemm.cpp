// SPDX-License-Identifier: Apache-2.0
// Dense layers of the host backend, in the shapes of a training step and of decoding, and the same products by Eigen where
// it is installed.
#include "support/machine_peak.hpp"

#include "mor/backend/host/backend.hpp"

#if __has_include(<Eigen/Core>)
#include <Eigen/Core>
#endif

#include <array>
#include <vector>

namespace {

using namespace mor;

struct Layer {
  Layer(benchmark::State const& state)
      : rows(state.range(0)),
        inputs(state.range(1)),
        outputs(state.range(2)),
        backend(static_cast<int>(state.range(3))),
        x(fill(rows * inputs)),
        w(fill(outputs * inputs)),
        y(fill(rows * outputs)) {}

  static std::vector<float> fill(Index count) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 17) - 8.0F;
    return values;
  }
  [[nodiscard]] bench::Work work() const {
    auto const product = static_cast<double>(rows) * static_cast<double>(inputs) * static_cast<double>(outputs);
    auto const elements = static_cast<double>(rows * inputs + inputs * outputs + rows * outputs);
    return rows <= 16 ? bench::Work{2.0 * product, 4.0 * elements} : bench::Work{2.0 * product, 0.0};
  }

  Index rows, inputs, outputs;
  host::Backend<float> backend;
  std::vector<float> x, w, y;
};

void forward(benchmark::State& state) {
  Layer l(state);
  bench::measure(state, l.backend.threads(), l.work(), [&] {
    l.backend.linear(View<float const>(l.x.data(), l.rows, l.inputs), View<float const>(l.w.data(), l.outputs, l.inputs),
                     View<float>(l.y.data(), l.rows, l.outputs));
    l.backend.arena().reset();
  });
}

void backward_input(benchmark::State& state) {
  Layer l(state);
  bench::measure(state, l.backend.threads(), l.work(), [&] {
    l.backend.linear_backward_input(View<float const>(l.y.data(), l.rows, l.outputs),
                                    View<float const>(l.w.data(), l.outputs, l.inputs), false,
                                    View<float>(l.x.data(), l.rows, l.inputs));
    l.backend.arena().reset();
  });
}

void backward_weight(benchmark::State& state) {
  Layer l(state);
  bench::measure(state, l.backend.threads(), l.work(), [&] {
    l.backend.linear_backward_weight(View<float const>(l.y.data(), l.rows, l.outputs),
                                     View<float const>(l.x.data(), l.rows, l.inputs),
                                     View<float>(l.w.data(), l.outputs, l.inputs));
    l.backend.arena().reset();
  });
}

void training_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "in", "out", "threads"})->UseManualTime()->Unit(benchmark::kMicrosecond);
  for (int const threads : {1, 0}) {
    for (auto const& [rows, in, out] : std::vector<std::array<Index, 3>>{
             {2048, 256, 512}, {2048, 256, 256}, {2048, 256, 1376}, {2048, 688, 256}, {2048, 576, 3072}, {384, 576, 1536}}) {
      b->Args({rows, in, out, threads});
    }
  }
}

void decode_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "in", "out", "threads"})->UseManualTime()->Unit(benchmark::kMicrosecond);
  for (int const threads : {1, 0}) {
    for (Index const rows : {1, 2, 4, 8, 16, 32, 64}) {
      b->Args({rows, 256, 1376, threads});
      b->Args({rows, 4096, 4096, threads});
    }
  }
}

#if __has_include(<Eigen/Core>)
/// The product of `forward` by Eigen, with its own threads.
void eigen_forward(benchmark::State& state) {
  using Matrix = Eigen::Map<Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
  Layer l(state);
  Eigen::setNbThreads(l.backend.threads());
  Matrix const x(l.x.data(), l.rows, l.inputs), w(l.w.data(), l.outputs, l.inputs);
  Matrix y(l.y.data(), l.rows, l.outputs);
  bench::measure(state, l.backend.threads(), l.work(), [&] { y.noalias() = x * w.transpose(); });
}
BENCHMARK(eigen_forward)->Apply(training_shapes)->Apply(decode_shapes);
#endif

BENCHMARK(forward)->Apply(training_shapes)->Apply(decode_shapes);
BENCHMARK(backward_input)->Apply(training_shapes);
BENCHMARK(backward_weight)->Apply(training_shapes);

}  // namespace
