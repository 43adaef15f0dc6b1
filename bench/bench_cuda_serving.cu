// SPDX-License-Identifier: Apache-2.0
// The verbs that keep a serving engine's tables, at so many cells, all of which qualify: microseconds a call. Each
// takes a few microseconds, less than two events resolve, so 16 are timed together, each on tables of its own in the
// second-level cache. control_of_a_tick is one graph of the five verbs that a tick runs; replay is a graph of one small
// kernel, the floor of that. edits are as many as there are cells, of which the host has its part.
// ticks_host_paced and ticks_device_paced are the control of 64 ticks one after the other, with a report to the host
// each, as an engine launches them, the host included: a graph a tick, or so many ticks a graph (1: what the loop costs).
#include "support/gpu_data.cuh"

#include "mor/core/serving_tables.hpp"
#include "mor/math/serving.hpp"

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace {

using namespace mor;
using bench::Gpu;

constexpr Index copies = 16;

/// Tables in which all cells have one state, `copies` times, and lists with room for all cells.
struct Serving {
  Serving(Gpu& gpu_, benchmark::State const& state, CellStatus status) : gpu(gpu_), cells(state.range(0)) {
    Index const slots = std::min<Index>(cells, 256);
    shape = {slots, cells - slots, 3, 512, 64, false};
    ServingTables host{shape, nullptr};
    std::vector<Row> values(static_cast<std::size_t>(host.size()), 1);
    host.words = values.data();
    for (Index cell = 0; cell < cells; ++cell) {
      host.at(host.status(cell)) = static_cast<Row>(status);
      host.at(host.slot(cell)) =
          static_cast<Row>(cell < slots ? cell : (cell - slots) * slots / std::max<Index>(cells - slots, 1));
      host.at(host.position(cell)) = static_cast<Row>(cell % 300);
      host.at(host.depth(cell)) = static_cast<Row>(cell % 2);
      host.at(host.samples(cell)) = cell < slots ? 1 : 0;
    }
    for (Index slot = 0; slot < slots; ++slot) {
      host.at(host.pending(slot)) = 0;
      host.at(host.end_token(slot)) = -1;
      host.at(host.last_position(slot)) = 500;
      host.at(host.most_depth(slot)) = 3;
      host.at(host.threshold(slot)) = math::float_word(0.5F);
    }
    host.at(host.answered()) = 0;
    pristine = bench::on_device(gpu, values);
    words = Buffer<Row>(gpu.backend().memory(), copies * host.size());
    memory = bench::on_device(gpu, std::vector<Row>(static_cast<std::size_t>(13 * cells + 4)));
    report_words = bench::on_device(gpu, std::vector<Row>(static_cast<std::size_t>(ServingReport::size(cells, cells))));
    rules = Buffer<SamplingRule>(gpu.backend().memory(), cells);
    scores = bench::random_floats(gpu, cells, 1);
    restore();
  }
  /// The tables as they were.
  void restore() const {
    for (Index copy = 0; copy < copies; ++copy) {
      bench::copy_on_device(gpu, pristine.data(), words.data() + copy * pristine.size(), pristine.size());
    }
  }
  [[nodiscard]] ServingTables tables(Index copy) const { return {shape, words.data() + copy * pristine.size()}; }
  [[nodiscard]] std::span<Row> list(std::size_t i) const {
    auto const n = static_cast<std::size_t>(cells);
    return memory.span().subspan(i * n, n);
  }
  [[nodiscard]] std::span<Row> count(std::size_t i) const { return memory.span().last(4).subspan(i, 1); }
  [[nodiscard]] ServingRows rows() const {
    return {list(0), list(1), list(2), list(3), list(4), list(5), list(6), list(7), list(8), list(9), count(0)};
  }
  [[nodiscard]] SampledRows sampled() const { return {list(10), list(11), rules.span(), count(1)}; }
  [[nodiscard]] std::span<Token> tokens() const { return list(12); }
  [[nodiscard]] ServingReport report() const { return {report_words.span(), cells}; }

  Gpu& gpu;
  Index cells;
  ServingShape shape;
  Buffer<Row> pristine, words, memory, report_words;
  Buffer<SamplingRule> rules;
  Buffer<float> scores;
};

/// Microseconds of call(tables), the mean over all copies of the tables.
template <class F>
void measure_calls(benchmark::State& state, Serving const& serving, F const& call) {
  Gpu& gpu = serving.gpu;
  cudaStream_t const stream = gpu.context().stream;
  // While the device writes this, the host enqueues every call: what is timed does not wait for the host.
  Buffer<std::byte> const head_start(gpu.backend().memory(), Index{1} << 30);
  bench::EventPair events;
  std::vector<double> times;
  for (auto _ : state) {
    cuda::check(cudaMemsetAsync(head_start.data(), 0, static_cast<std::size_t>(head_start.size()), stream), "memset");
    serving.restore();
    events.begin(stream);
    for (Index copy = 0; copy < copies; ++copy) call(serving.tables(copy));
    times.push_back(events.end(stream) / static_cast<double>(copies));
    state.SetIterationTime(times.back());
    gpu.backend().arena().reset();
  }
  state.counters["median_us"] = 1e6 * bench::median(times);
}

void start_recursion(benchmark::State& state) {
  Serving const s(*Gpu::instance(), state, CellStatus::Ready);
  measure_calls(state, s, [&](ServingTables const& t) { s.gpu.backend().start_recursion(t, {}, s.rows()); });
}
void start_recursion_of_one_depth(benchmark::State& state) {
  Serving const s(*Gpu::instance(), state, CellStatus::Ready);
  measure_calls(state, s, [&](ServingTables const& t) { s.gpu.backend().start_recursion(t, {.one_depth = true}, s.rows()); });
}
void start_recursion_in_turns(benchmark::State& state) {
  Serving const s(*Gpu::instance(), state, CellStatus::Ready);
  TickRule const rule{.most_rows = s.shape.slots / 2};
  measure_calls(state, s, [&](ServingTables const& t) { s.gpu.backend().start_recursion(t, rule, s.rows()); });
}
void finish_recursion(benchmark::State& state) {
  Serving const s(*Gpu::instance(), state, CellStatus::Ready);
  s.gpu.backend().start_recursion(s.tables(0), {}, s.rows());
  measure_calls(state, s, [&](ServingTables const& t) {
    s.gpu.backend().finish_recursion(t, s.rows(), s.scores.span(), s.report());
  });
}
void collect_finished(benchmark::State& state) {
  Serving const s(*Gpu::instance(), state, CellStatus::Finished);
  measure_calls(state, s, [&](ServingTables const& t) { s.gpu.backend().collect_finished(t, {}, s.report(), s.rows(), s.sampled()); });
}
void commit_samples(benchmark::State& state) {
  Serving const s(*Gpu::instance(), state, CellStatus::Finished);
  s.gpu.backend().collect_finished(s.tables(0), {}, s.report(), s.rows(), s.sampled());
  measure_calls(state, s, [&](ServingTables const& t) {
    s.gpu.backend().commit_samples(t, s.rows(), s.sampled(), s.tokens(), s.scores.span(), s.report());
  });
}
void collect_entering(benchmark::State& state) {
  Serving const s(*Gpu::instance(), state, CellStatus::Entering);
  measure_calls(state, s,
                [&](ServingTables const& t) { s.gpu.backend().collect_entering(t, s.rows(), s.tokens(), s.report()); });
}
void finish_and_collect(benchmark::State& state) {
  Serving const s(*Gpu::instance(), state, CellStatus::Ready);
  s.gpu.backend().start_recursion(s.tables(0), {}, s.rows());
  measure_calls(state, s, [&](ServingTables const& t) {
    s.gpu.backend().finish_and_collect(t, {}, s.rows(), s.scores.span(), s.report(), s.rows(), s.sampled());
  });
}
void commit_and_collect(benchmark::State& state) {
  Serving const s(*Gpu::instance(), state, CellStatus::Finished);
  s.gpu.backend().collect_finished(s.tables(0), {}, s.report(), s.rows(), s.sampled());
  measure_calls(state, s, [&](ServingTables const& t) {
    s.gpu.backend().commit_and_collect(t, s.rows(), s.sampled(), s.tokens(), s.scores.span(), s.report(), s.rows(), s.tokens());
  });
}
void apply_edits(benchmark::State& state) {
  Serving const s(*Gpu::instance(), state, CellStatus::Idle);
  std::vector<TableEdit> edits;
  for (Index cell = 0; cell < s.cells; ++cell) edits.push_back({static_cast<Row>(cell), 0});
  measure_calls(state, s, [&](ServingTables const& t) { s.gpu.backend().apply_edits(edits, t); });
}
void replay(benchmark::State& state) {
  Serving const s(*Gpu::instance(), state, CellStatus::Idle);
  Gpu::B::Replays replays(s.gpu.backend());
  auto const work = [&] { s.gpu.backend().fill(s.count(2), 1); };
  for (int run = 0; run < 3; ++run) replays.run(1, work);
  measure_calls(state, s, [&](ServingTables const&) { replays.run(1, work); });
}
/// The verbs of a tick that keep its tables.
void control(Serving const& s, ServingTables const& t) {
  auto& b = s.gpu.backend();
  b.start_recursion(t, {}, s.rows());
  b.finish_and_collect(t, {}, s.rows(), s.scores.span(), s.report(), s.rows(), s.sampled());
  b.commit_and_collect(t, s.rows(), s.sampled(), s.tokens(), s.scores.span(), s.report(), s.rows(), s.tokens());
}
void control_of_a_tick(benchmark::State& state) {
  Serving const s(*Gpu::instance(), state, CellStatus::Ready);
  Gpu::B::Replays replays(s.gpu.backend());
  auto const key = [&](ServingTables const& t) {
    return static_cast<std::uint64_t>((t.words - s.words.data()) / s.pristine.size());
  };
  auto const run = [&](ServingTables const& t) { replays.run(key(t), [&] { control(s, t); }); };
  for (int warm = 0; warm < 3; ++warm) {
    for (Index copy = 0; copy < copies; ++copy) run(s.tables(copy));
  }
  measure_calls(state, s, run);
}

constexpr Index measured_ticks = 64;

/// Microseconds of a tick where `launch()` is one of `ticks`, and `words` are what it tells the host, two launches behind.
template <class Launch>
void measure_ticks(benchmark::State& state, Serving const& s, Index ticks, std::span<Row const> words,
                   Launch const& launch) {
  cudaStream_t const stream = s.gpu.context().stream;
  Gpu::B::Reports reports(s.gpu.backend(), static_cast<Index>(words.size()), 2);
  auto const take = [&] {
    reports.wait();
    reports.pop();
  };
  for (int warm = 0; warm < 3; ++warm) launch();
  bench::EventPair events;
  std::vector<double> times;
  for (auto _ : state) {
    s.restore();
    s.gpu.backend().synchronize();
    events.begin(stream);
    for (Index tick = 0; tick < measured_ticks; tick += ticks) {
      launch();
      reports.post(words);
      if (reports.pending() == 2) take();
    }
    while (reports.pending() > 0) take();
    times.push_back(events.end(stream) / static_cast<double>(measured_ticks));
    state.SetIterationTime(times.back());
  }
  state.counters["median_us"] = 1e6 * bench::median(times);
}
void ticks_host_paced(benchmark::State& state) {
  Serving const s(*Gpu::instance(), state, CellStatus::Ready);
  Gpu::B::Replays replays(s.gpu.backend());
  measure_ticks(state, s, 1, s.report_words.span(), [&] { replays.run(1, [&] { control(s, s.tables(0)); }); });
}
void ticks_device_paced(benchmark::State& state) {
  Serving const s(*Gpu::instance(), state, CellStatus::Ready);
  auto& b = s.gpu.backend();
  Index const ticks = state.range(1), report_words = s.report_words.size();
  auto const words = bench::on_device(s.gpu, std::vector<Row>(static_cast<std::size_t>(TickLog::size(ticks, report_words))));
  TickLog const log{words.span(), ticks, report_words};
  Gpu::B::Replays replays(b);
  measure_ticks(state, s, ticks, words.span(), [&] {
    replays.run_while(1, [&](Gpu::B::Replays::Loop const& loop) {
      control(s, s.tables(0));
      b.end_tick(s.tables(0), s.report(), log, loop);
    });
  });
  std::vector<Row> header(TickLog::HeaderWords);
  b.download(std::span<Row const>(words.span()).first(header.size()), std::span<Row>(header));
  if (header[TickLog::Ticks] != ticks) state.SkipWithError("a launch has run another number of ticks");
}

void sizes(benchmark::internal::Benchmark* b) {
  b->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(20)->ArgName("cells");
  for (Index const cells : {32, 256, 2048}) b->Arg(cells);
}
/// All cells decode: rows of prompts would end launches.
void slot_sizes(benchmark::internal::Benchmark* b) {
  b->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(20)->ArgName("cells")->Arg(32)->Arg(256);
}
void loop_sizes(benchmark::internal::Benchmark* b) {
  b->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(20)->ArgNames({"cells", "ticks"});
  for (Index const cells : {32, 256}) {
    for (Index const ticks : {1, 4, 16, 64}) b->Args({cells, ticks});
  }
}

BENCHMARK(start_recursion)->Apply(sizes);
BENCHMARK(start_recursion_of_one_depth)->Apply(sizes);
BENCHMARK(start_recursion_in_turns)->Apply(sizes);
BENCHMARK(finish_recursion)->Apply(sizes);
BENCHMARK(collect_finished)->Apply(sizes);
BENCHMARK(commit_samples)->Apply(sizes);
BENCHMARK(collect_entering)->Apply(sizes);
BENCHMARK(finish_and_collect)->Apply(sizes);
BENCHMARK(commit_and_collect)->Apply(sizes);
BENCHMARK(apply_edits)->Apply(sizes);
BENCHMARK(replay)->Apply(sizes);
BENCHMARK(control_of_a_tick)->Apply(sizes);
BENCHMARK(ticks_host_paced)->Apply(slot_sizes);
BENCHMARK(ticks_device_paced)->Apply(loop_sizes);

}  // namespace

int main(int argc, char** argv) {
  return mor::bench::run_gpu_benchmarks(argc, argv);
}
