// SPDX-License-Identifier: Apache-2.0
// What a serving engine's bookkeeping costs the host: admission, growth of lists, edits, and reports made into events, a tick.
// There is no model: the tables are kept by the host's plain verbs (untimed), and random numbers stand for the router's scores.
#include "mor/backend/host/backend.hpp"
#include "mor/core/philox.hpp"
#include "mor/infer/planner.hpp"
#include "mor/infer/serving_state.hpp"

#include <benchmark/benchmark.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace {

using namespace mor;
using B = host::Backend<float>;

constexpr Index kRecursions = 3, kNewTokens = 256;

infer::PlannerSetup setup_for(Index slots) {
  infer::PlannerSetup setup;
  setup.options.slots = slots;
  setup.options.context = 2 * kNewTokens;
  setup.options.prefix_cache = false;
  setup.shape = {slots, setup.options.prefill_rows, kRecursions, setup.options.context, setup.options.page_size, false};
  setup.block_lists = kRecursions;
  setup.has_ends = true;
  setup.block_pages = slots * kRecursions * setup.shape.pages_per_list();
  setup.end_pages = slots * setup.shape.pages_per_list();
  setup.vocab_size = 1000;
  setup.survival = {1.0, 2.0 / 3.0, 1.0 / 3.0};
  return setup;
}

/// A device that takes all rows that are ready in every tick; half of them go on.
class Device {
 public:
  explicit Device(ServingShape const& shape)
      : cells_(shape.cells()),
        state_(backend_, shape, {cells_, cells_, shape.slots, cells_}, 1, false),
        scores_(static_cast<std::size_t>(cells_)),
        log_probabilities_(scores_.size(), -1.0F) {}

  void edit(infer::TableEdits const& edits) {
    host::apply_edits(edits.clears(), state_.tables());
    host::apply_edits(edits.sets(), state_.tables());
  }
  [[nodiscard]] Index room() const { return cells_; }
  [[nodiscard]] std::span<Row const> tick(Index number) {
    auto const& tables = state_.tables();
    auto const report = state_.report();
    auto const rows = state_.recursion_rows(cells_), finished = state_.finished_rows(cells_), entering = state_.entering_rows(cells_);
    auto const sampled = state_.sampled_rows(tables.shape.slots);
    host::start_recursion(tables, {}, rows);
    for (std::size_t i = 0; i < scores_.size(); ++i) {
      scores_[i] = uniform01(random_.block(static_cast<std::uint64_t>(number), static_cast<std::uint32_t>(i))[0]) < 0.5 ? 1.0F : -1.0F;
    }
    host::finish_recursion(tables, rows, std::span<float const>(scores_), report);
    host::collect_finished(tables, {}, report, finished, sampled);
    auto const tokens = state_.tokens(cells_);
    std::fill(tokens.begin(), tokens.end(), Token{5});
    host::commit_samples(tables, finished, sampled, std::span<Token const>(tokens), std::span<float const>(log_probabilities_), report);
    host::collect_entering(tables, entering, tokens, report);
    return state_.report_words();
  }

 private:
  B backend_;
  Index cells_;
  infer::ServingState<B> state_;
  std::vector<float> scores_, log_probabilities_;
  Philox random_{1};
};

/// As many requests at a time as there are slots; they begin at different times, so that some end in every tick.
void planner(benchmark::State& state) {
  using Clock = std::chrono::steady_clock;
  auto const setup = setup_for(state.range(0));
  infer::Planner planner(setup);
  Device device(setup.shape);
  Philox const random{2};
  std::uint64_t submitted = 0;
  auto const submit = [&] {
    infer::Request request;
    request.prompt = {7};
    request.max_new_tokens = 1 + static_cast<Index>(uniform01(random.block(submitted++, 0)[0]) * 2.0 * static_cast<double>(kNewTokens - 1));
    static_cast<void>(planner.submit(request));
  };
  for (Index i = 0; i < setup.shape.slots; ++i) submit();
  Index tick = 0;
  std::size_t events = 0;
  auto const go = [&] {
    auto const begin = Clock::now();
    static_cast<void>(planner.plan(++tick, 0));
    auto const planned = Clock::now();
    device.edit(planner.edits());
    planner.edits_made();
    planner.prelude_ran();
    auto const report = device.tick(tick);
    auto const reported = Clock::now();
    planner.absorb(tick, report, device.room());
    auto const news = planner.hand_out_events();
    auto const absorbed = Clock::now();
    events += news.size();
    for (auto const& event : news) {
      if (event.kind == infer::EventKind::Finished) submit();
    }
    return std::chrono::duration<double>(planned - begin + (absorbed - reported)).count();
  };
  for (Index i = 0; i < 2 * kNewTokens; ++i) static_cast<void>(go());
  events = 0;
  for (auto _ : state) state.SetIterationTime(go());
  state.counters["events"] = benchmark::Counter(static_cast<double>(events), benchmark::Counter::kAvgIterations);
}
BENCHMARK(planner)->ArgName("slots")->Arg(32)->Arg(512)->Arg(2048)->UseManualTime()->Unit(benchmark::kMicrosecond);

}  // namespace
