// SPDX-License-Identifier: Apache-2.0
/// @file
/// What the benchmarks of the serving engine share: a seeded list of requests, a model whose router has been trained, and
/// one run with its figures and floors (mor-spec 7.4).
#pragma once

#include "model_shapes.hpp"

#include "mor/core/philox.hpp"
#include "mor/infer/engine.hpp"
#include "mor/train/adamw.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>
#include <unordered_map>
#include <vector>

namespace mor::bench {

/// Lengths of texts: normal with this mean and deviation, clipped; the same list for every model and scheduler.
struct WorkloadShape {
  Index requests = 1000;
  Index prompt_tokens = 1;      ///< of each request
  double new_tokens_mean = 256.0, new_tokens_deviation = 64.0;
  Index longest = 2047;
};

[[nodiscard]] inline std::vector<infer::Request> make_workload(WorkloadShape const& shape, Index vocab_size) {
  std::vector<infer::Request> requests(static_cast<std::size_t>(shape.requests));
  Philox const random{stream_key(2507, 10524)};
  for (std::size_t i = 0; i < requests.size(); ++i) {
    auto const block = random.block(i, 0);
    double const u = uniform01(block[0]), v = uniform01(block[1]);
    double const normal = std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
    auto& request = requests[i];
    double const wanted = std::round(shape.new_tokens_mean + shape.new_tokens_deviation * normal);
    request.max_new_tokens = std::clamp(static_cast<Index>(wanted), Index{1}, shape.longest - shape.prompt_tokens);
    for (Index p = 0; p < shape.prompt_tokens; ++p) {
      request.prompt.push_back(static_cast<Token>((static_cast<Index>(i) * 7919 + p * 104729) % vocab_size));
    }
    request.sampling.seed = i;
  }
  return requests;
}

/// Trains for a while on a made-up text, a chain of tokens that each have a few likely successors: enough for a router to
/// learn which tokens it keeps, so that the threshold rule of decoding gives about the shares of training.
template <class Model, class B>
void train_router(Model& model, B& backend, Index steps, Index sequences, Index length) {
  model.parameters().enable_gradients();
  train::Adamw<B> optimizer(backend, model.parameters(), {});
  Philox const random{stream_key(1, 2)};
  Index const vocabulary = model.config().transformer.vocab_size;
  TrainingRows rows(sequences, length, vocabulary);
  for (Index step = 0; step < steps; ++step) {
    Token token = 0;
    for (std::size_t i = 0; i < rows.tokens.size(); ++i) {
      auto const draw = random.block(static_cast<std::uint64_t>(step) << 32 | i, 7)[0];
      rows.tokens[i] = token;
      token = static_cast<Token>((Index{token} * 31 + 17 + static_cast<Index>(draw % 5) * 101) % std::min<Index>(vocabulary, 4096));
      rows.targets[i] = token;
    }
    model.parameters().zero_gradients();
    LossWeights const weights{1.0 / static_cast<double>(rows.tokens.size()), 1.0};
    TrainingProgress progress;
    progress.forward_calls = step + 1;
    model.forward_backward(rows.batch(), rows.targets, progress, weights);
    optimizer.add_loss(model.losses(), weights.language_model);
    optimizer.step(1e-3 * std::min(1.0, 0.1 * static_cast<double>(step + 1)));
  }
  backend.synchronize();
}

/// Bytes that serving must move, from the shapes and the depths that were taken.
struct ServingBytes {
  double block = 0.0;     ///< weights of one recursion
  double ends = 0.0;      ///< weights of prelude, coda and head
  double keys = 0.0;      ///< keys and values of one token in one layer

  template <class Model>
  static ServingBytes of(Model const& model) {
    auto const& t = model.config().transformer;
    auto const& schedule = model.schedule();
    double const scalar = sizeof(typename Model::Scalar);
    auto const d = static_cast<double>(t.hidden_size);
    double const layer =
        scalar * d * (2.0 * static_cast<double>(t.query_size() + t.key_value_size()) + 3.0 * static_cast<double>(t.intermediate_size) + 2.0);
    ServingBytes bytes;
    bytes.block = layer * static_cast<double>(schedule.block_layers());
    bytes.ends = layer * static_cast<double>(schedule.prelude.size() + schedule.coda.size()) +
                 scalar * d * (static_cast<double>(t.vocab_size) + 1.0);
    bytes.keys = 2.0 * scalar * static_cast<double>(t.key_value_size());
    return bytes;
  }
};

/// Keys that a text's tokens read and write, in token-layers: each token with depth d reads, in recursions 1 to d, the keys
/// of the tokens before it that took them, and its own.
[[nodiscard]] inline double key_layers(std::span<Row const> depths, LayerSchedule const& schedule) {
  std::vector<double> lengths(static_cast<std::size_t>(schedule.num_recursions()), 0.0);
  double block = 0.0, ends = 0.0, all = 0.0;
  for (Row const depth : depths) {
    all += 1.0;
    ends += all + 1.0;
    for (std::size_t r = 0; r < static_cast<std::size_t>(depth); ++r) {
      lengths[r] += 1.0;
      block += lengths[r] + 1.0;
    }
  }
  return block * static_cast<double>(schedule.block_layers()) +
         ends * static_cast<double>(schedule.prelude.size() + schedule.coda.size());
}

/// One run's figures. Times in seconds.
struct ServingRun {
  double seconds = 0.0, tokens = 0.0, mean_depth = 0.0;
  double rows_per_recursion = 0.0, useful_rows = 0.0;  ///< rows of a launch; the real ones' share
  double floor_seconds = 0.0;                          ///< at the measured bandwidth, with every place filled
  double first_token_median = 0.0, first_token_99 = 0.0, token_median = 0.0, token_99 = 0.0;
  infer::EngineStatistics statistics;
};

[[nodiscard]] inline double percentile(std::vector<double>& values, double share) {
  if (values.empty()) return 0.0;
  auto const at = static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<std::size_t>(at)];
}

/// Serves the list: `clients` of them at once, each with its next request as soon as it has an answer. Everything is timed:
/// keys written, routing, sampling, admission and the host's bookkeeping.
template <class Engine, class Model>
[[nodiscard]] ServingRun serve(Engine& engine, Model const& model, std::vector<infer::Request> const& requests, Index clients,
                               double bandwidth) {
  using Clock = std::chrono::steady_clock;
  struct Times {
    Clock::time_point submitted, last;
    bool first = true;
  };
  std::unordered_map<infer::RequestId, Times> open;
  std::vector<double> first_token, between;
  ServingRun run;
  double keys = 0.0;
  auto const before = engine.statistics();
  std::size_t next = 0;
  auto const start = Clock::now();
  auto const submit = [&] {
    if (next == requests.size()) return;
    auto const id = engine.submit(requests[next++]);
    open[id] = {Clock::now(), {}, true};
  };
  for (Index i = 0; i < clients; ++i) submit();
  while (!open.empty()) {
    auto const events = engine.step();
    auto const now = Clock::now();
    for (auto const& event : events) {
      auto& times = open.at(event.request);
      if (event.kind == infer::EventKind::Finished) {
        keys += key_layers(event.depths, model.schedule());
        open.erase(event.request);
        submit();
        continue;
      }
      run.tokens += 1.0;
      auto const since = std::chrono::duration<double>(now - (times.first ? times.submitted : times.last)).count();
      (times.first ? first_token : between).push_back(since);
      times.first = false;
      times.last = now;
    }
  }
  run.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  run.statistics = engine.statistics();
  auto const rows = static_cast<double>(run.statistics.recursion_rows - before.recursion_rows);
  auto const launched = static_cast<double>(run.statistics.launched_rows - before.launched_rows);
  double read = 0.0;
  for (std::size_t d = 0; d < before.depths.size(); ++d) read += static_cast<double>(run.statistics.depths[d] - before.depths[d]);
  run.mean_depth = rows / read;
  run.rows_per_recursion = rows / static_cast<double>(run.statistics.ticks - before.ticks);
  run.useful_rows = rows / launched;
  auto const bytes = ServingBytes::of(model);
  auto const places = static_cast<double>(std::min(engine.options().slots, clients));
  run.floor_seconds = (rows / places * bytes.block + run.tokens / places * bytes.ends + keys * bytes.keys) / bandwidth;
  run.first_token_median = percentile(first_token, 0.5);
  run.first_token_99 = percentile(first_token, 0.99);
  run.token_median = percentile(between, 0.5);
  run.token_99 = percentile(between, 0.99);
  return run;
}

/// Puts a run's figures on a benchmark's line.
template <class State>
void report_run(State& state, ServingRun const& run) {
  state.SetIterationTime(run.seconds);
  state.counters["tok/s"] = run.tokens / run.seconds;
  state.counters["depth"] = run.mean_depth;
  state.counters["floor_share"] = run.floor_seconds / run.seconds;
  state.counters["rows"] = run.rows_per_recursion;
  state.counters["useful"] = run.useful_rows;
  state.counters["ttft_ms"] = 1e3 * run.first_token_median;
  state.counters["ttft99_ms"] = 1e3 * run.first_token_99;
  state.counters["tpot_ms"] = 1e3 * run.token_median;
  state.counters["tpot99_ms"] = 1e3 * run.token_99;
  state.counters["preempted"] = static_cast<double>(run.statistics.preempted);
}

}  // namespace mor::bench
