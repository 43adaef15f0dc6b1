// SPDX-License-Identifier: Apache-2.0
// Routers of the host backend: logits, selection, gates and auxiliary losses.
#include "support/machine_peak.hpp"

#include "mor/backend/host/backend.hpp"

#include <numeric>
#include <vector>

namespace {

using namespace mor;

struct Batch {
  explicit Batch(benchmark::State const& state)
      : sequences(state.range(0)),
        length(state.range(1)),
        rows(sequences * length),
        backend(static_cast<int>(state.range(2))),
        scores(static_cast<std::size_t>(3 * rows)),
        values(scores),
        gradients(scores),
        choice(static_cast<std::size_t>(rows)),
        statistics(8),
        indices(static_cast<std::size_t>(rows)) {
    std::iota(indices.begin(), indices.end(), 0);
    chosen = chosen_positions = chosen_slots = indices;
    for (Index s = 0; s <= sequences; ++s) {
      offsets.push_back(static_cast<Row>(s * length));
      kept.push_back(static_cast<Row>(s * (length * 2 / 3)));
    }
    backend.random_scores(1, 2, indices, View<float>(scores.data(), rows, 3));
    set.num_rows = rows;
    set.num_sequences = sequences;
    set.rows = set.positions = indices;
    set.host_offsets = set.sequence_offsets = offsets;
  }
  [[nodiscard]] std::span<float const> row_scores() const { return {scores.data(), static_cast<std::size_t>(rows)}; }
  [[nodiscard]] std::span<Row const> slots() const { return {chosen_slots.data(), static_cast<std::size_t>(kept.back())}; }

  Index sequences, length, rows;
  host::Backend<float> backend;
  std::vector<float> scores, values, gradients, choice, statistics;
  std::vector<Row> indices, offsets, kept, chosen, chosen_positions, chosen_slots;
  ActiveSet<float> set;
};

/// Reports rows handled per second as bytes of their scores.
template <class F>
void run(benchmark::State& state, F const& call) {
  Batch x(state);
  bench::measure(state, x.backend.threads(), {0.0, 4.0 * static_cast<double>(x.rows)}, [&] {
    call(x);
    x.backend.arena().reset();
  });
}

void select_top_k(benchmark::State& state) {
  run(state, [](Batch& x) {
    auto const kept = static_cast<std::size_t>(x.kept.back());
    x.backend.select_top_k(x.row_scores(), x.set, x.kept,
                           Selection{std::span(x.chosen).first(kept), std::span(x.chosen_positions).first(kept),
                                     std::span(x.chosen_slots).first(kept)});
  });
}
void router_gate(benchmark::State& state) {
  run(state, [](Batch& x) { x.backend.router_gate(x.row_scores(), x.slots(), RouterActivation::Sigmoid, 0.1, x.values); });
}
void router_bce(benchmark::State& state) {
  run(state, [](Batch& x) {
    x.backend.router_bce(x.row_scores(), x.slots(), 1.0, x.statistics, std::span(x.gradients).first(static_cast<std::size_t>(x.rows)));
  });
}
void token_choice(benchmark::State& state) {
  run(state, [](Batch& x) {
    x.backend.token_choice(View<float const>(x.scores.data(), x.rows, 3), {}, RouterActivation::Softmax, 1.0, false,
                           View<float>(x.values.data(), x.rows, 3), x.choice, std::span(x.gradients).first(static_cast<std::size_t>(x.rows)));
  });
}
void z_loss(benchmark::State& state) {
  run(state, [](Batch& x) {
    x.backend.z_loss(View<float const>(x.scores.data(), x.rows, 3), 1.0, x.statistics, View<float>(x.gradients.data(), x.rows, 3));
  });
}

void router_logits(benchmark::State& state) {
  Index const rows = state.range(0) * state.range(1), width = 256;
  host::Backend<float> backend(static_cast<int>(state.range(2)));
  std::vector<float> x(static_cast<std::size_t>(rows * width), 0.5F), w(static_cast<std::size_t>(width), 0.1F), out(static_cast<std::size_t>(rows));
  bench::measure(state, backend.threads(), {0.0, 4.0 * static_cast<double>(rows * width)}, [&] {
    backend.linear_logits(View<float const>(x.data(), rows, width), View<float const>(w.data(), 1, width), 1.0,
                          View<float>(out.data(), rows, 1));
  });
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"sequences", "length", "threads"})->UseManualTime()->Unit(benchmark::kMicrosecond);
  for (int const threads : {1, 0}) {
    b->Args({8, 256, threads});
    b->Args({8, 2048, threads});
  }
}

BENCHMARK(router_logits)->Apply(shapes);
BENCHMARK(select_top_k)->Apply(shapes);
BENCHMARK(router_gate)->Apply(shapes);
BENCHMARK(router_bce)->Apply(shapes);
BENCHMARK(token_choice)->Apply(shapes);
BENCHMARK(z_loss)->Apply(shapes);

}  // namespace
