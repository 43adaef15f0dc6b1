// SPDX-License-Identifier: Apache-2.0
// The optimizer of the host backend: one pass over gradients, weights and moments.
#include "support/machine_peak.hpp"

#include "mor/backend/host/backend.hpp"

#include <span>
#include <vector>

namespace {

using namespace mor;

struct Parameters {
  explicit Parameters(benchmark::State const& state)
      : backend(static_cast<int>(state.range(1))),
        gradients(static_cast<std::size_t>(state.range(0)), 0.01F),
        weights(gradients),
        first(gradients),
        second(gradients) {}
  [[nodiscard]] bench::Work traffic(double vectors) const { return {0.0, vectors * 4.0 * static_cast<double>(weights.size())}; }

  host::Backend<float> backend;
  std::vector<float> gradients, weights, first, second;
};

void adamw(benchmark::State& state) {
  Parameters p(state);
  UpdateRecord<float> record;
  record.main.learning_rate = 1e-6F;
  record.applied = 1;
  std::span<UpdateRecord<float> const> const records(&record, 1);
  bench::measure(state, p.backend.threads(), p.traffic(7.0), [&] {
    p.backend.adamw(p.gradients, {}, ParameterGroup::Main, records, p.weights, p.first, p.second, {});
  });
}

void add_squares(benchmark::State& state) {
  Parameters p(state);
  UpdateRecord<float> record;
  bench::measure(state, p.backend.threads(), p.traffic(1.0), [&] {
    p.backend.add_squares(p.gradients, ParameterGroup::Main, std::span(&record, 1));
    benchmark::DoNotOptimize(record);
    p.backend.arena().reset();
  });
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"parameters", "threads"})->UseManualTime()->Unit(benchmark::kMicrosecond);
  for (int const threads : {1, 0}) {
    b->Args({1 << 20, threads});
    b->Args({1 << 24, threads});
  }
}

BENCHMARK(adamw)->Apply(shapes);
BENCHMARK(add_squares)->Apply(shapes);

}  // namespace
