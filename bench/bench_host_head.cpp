// SPDX-License-Identifier: Apache-2.0
// The language-model head of the host backend: loss alone, and loss with gradients.
#include "support/machine_peak.hpp"

#include "mor/backend/host/backend.hpp"

#include <vector>

namespace {

using namespace mor;

struct Head {
  explicit Head(benchmark::State const& state)
      : rows(state.range(0)),
        inputs(state.range(1)),
        vocabulary(state.range(2)),
        backend(static_cast<int>(state.range(3))),
        x(static_cast<std::size_t>(rows * inputs)),
        w(static_cast<std::size_t>(vocabulary * inputs)),
        d_x(x),
        d_w(w),
        losses(static_cast<std::size_t>(rows)),
        targets(static_cast<std::size_t>(rows)) {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 31 % 101) / 50.0F - 1.0F;
    for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(i * 37 % 103) / 500.0F - 0.1F;
    for (std::size_t i = 0; i < targets.size(); ++i) targets[i] = static_cast<Token>(i * 17 % static_cast<std::size_t>(vocabulary));
  }
  [[nodiscard]] double product() const { return 2.0 * static_cast<double>(rows) * static_cast<double>(inputs * vocabulary); }

  Index rows, inputs, vocabulary;
  host::Backend<float> backend;
  std::vector<float> x, w, d_x, d_w, losses;
  std::vector<Token> targets;
};

void head_loss(benchmark::State& state) {
  Head h(state);
  bench::measure(state, h.backend.threads(), {h.product(), 0.0}, [&] {
    h.backend.head_loss(View<float const>(h.x.data(), h.rows, h.inputs),
                        View<float const>(h.w.data(), h.vocabulary, h.inputs), h.targets, h.losses);
    h.backend.arena().reset();
  });
}

void head_loss_backward(benchmark::State& state) {
  Head h(state);
  bench::measure(state, h.backend.threads(), {3.0 * h.product(), 0.0}, [&] {
    h.backend.head_loss_backward(View<float const>(h.x.data(), h.rows, h.inputs),
                                 View<float const>(h.w.data(), h.vocabulary, h.inputs), h.targets, 1e-3, h.losses,
                                 View<float>(h.d_x.data(), h.rows, h.inputs),
                                 View<float>(h.d_w.data(), h.vocabulary, h.inputs));
    h.backend.arena().reset();
  });
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "in", "vocabulary", "threads"})->UseManualTime()->Unit(benchmark::kMicrosecond);
  for (int const threads : {1, 0}) {
    b->Args({2048, 256, 512, threads});
    b->Args({2048, 256, 8192, threads});
    b->Args({256, 576, 49152, threads});
  }
}

BENCHMARK(head_loss)->Apply(shapes);
BENCHMARK(head_loss_backward)->Apply(shapes);

}  // namespace
