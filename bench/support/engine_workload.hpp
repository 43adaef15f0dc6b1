// SPDX-License-Identifier: Apache-2.0
/// @file
/// A seeded list of requests, and one run of the serving engine with its figures and floors (mor-spec 7.4).
#pragma once

#include "made_up_text.hpp"

#include "mor/core/philox.hpp"
#include "mor/infer/engine.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
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
  std::uint64_t series = 10524;  ///< another one is another list of the same kind
  double threshold = 0.0;        ///< of the router, in every request
};

[[nodiscard]] inline std::vector<infer::Request> make_workload(WorkloadShape const& shape, Index vocab_size) {
  std::vector<infer::Request> requests(static_cast<std::size_t>(shape.requests));
  Philox const random{stream_key(2507, shape.series)};
  MadeUpText const text(vocab_size);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    auto const block = random.block(i, 0);
    double const u = uniform01(block[0]), v = uniform01(block[1]);
    double const normal = std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
    auto& request = requests[i];
    double const wanted = std::round(shape.new_tokens_mean + shape.new_tokens_deviation * normal);
    request.max_new_tokens = std::clamp(static_cast<Index>(wanted), Index{1}, shape.longest - shape.prompt_tokens);
    request.prompt = text.tokens(shape.series, i, shape.prompt_tokens);
    request.sampling.seed = shape.series + i;
    request.depth.threshold = shape.threshold;
  }
  return requests;
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

/// Recursions that a text took one after the other: of the tokens that made a token. The rows of a prompt before its last one can all
/// go through with one read of the weights.
[[nodiscard]] inline double passes_of(infer::Event const& finished) {
  auto const made = finished.depths.subspan(static_cast<std::size_t>(std::min<Index>(finished.prompt_tokens - 1, static_cast<Index>(finished.depths.size()))));
  return std::accumulate(made.begin(), made.end(), 0.0);
}

/// One run's figures. Times in seconds.
struct ServingRun {
  double seconds = 0.0, tokens = 0.0, prompt_tokens = 0.0, mean_depth = 0.0;
  std::vector<double> shares;                          ///< [Nr] of the tokens that were read, those that entered each recursion
  double rows_per_recursion = 0.0, useful_rows = 0.0;  ///< rows of a launch; the real ones' share
  double floor_seconds = 0.0;                          ///< at the measured bandwidth, with every place filled
  double first_token_median = 0.0, first_token_99 = 0.0, token_median = 0.0, token_99 = 0.0;
  Index preempted = 0;
};

[[nodiscard]] inline double percentile(std::vector<double>& values, double share) {
  if (values.empty()) return 0.0;
  auto const at = static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<std::size_t>(at)];
}

/// Serves the list: `clients` of them at once, each with its next request as soon as it has an answer. Everything is timed:
/// keys written, routing, sampling, admission and the host's bookkeeping. @param places  rows of a launch that has all its places
/// filled, for the floor  @param clock  a call gives seconds
template <class Engine, class Model, class Clock>
[[nodiscard]] ServingRun serve(Engine& engine, Model const& model, std::vector<infer::Request> const& requests, Index clients,
                               Index places, double bandwidth, Clock const& clock) {
  struct Times {
    double submitted = 0.0, last = 0.0;
    bool first = true;
  };
  std::unordered_map<infer::RequestId, Times> open;
  std::vector<double> first_token, between;
  ServingRun run;
  double keys = 0.0, passes = 0.0;
  auto const before = engine.statistics();
  std::size_t next = 0;
  double const start = clock();
  auto const submit = [&] {
    if (next == requests.size()) return;
    auto const id = engine.submit(requests[next++]);
    open[id] = {clock(), 0.0, true};
  };
  for (Index i = 0; i < clients; ++i) submit();
  while (!open.empty()) {
    auto const events = engine.step();
    double const now = clock();
    for (auto const& event : events) {
      auto& times = open.at(event.request);
      if (event.kind == infer::EventKind::Finished) {
        keys += key_layers(event.depths, model.schedule());
        passes += passes_of(event);
        open.erase(event.request);
        submit();
        continue;
      }
      run.tokens += 1.0;
      (times.first ? first_token : between).push_back(now - (times.first ? times.submitted : times.last));
      times.first = false;
      times.last = now;
    }
  }
  run.seconds = clock() - start;
  auto const after = engine.statistics();
  auto const rows = static_cast<double>(after.recursion_rows - before.recursion_rows);
  auto const launched = static_cast<double>(after.launched_rows - before.launched_rows);
  double read = 0.0;
  run.shares.assign(before.depths.size() - 1, 0.0);
  for (std::size_t d = before.depths.size(); d-- > 0;) {
    read += static_cast<double>(after.depths[d] - before.depths[d]);
    if (d > 0) run.shares[d - 1] = read;  // who took d recursions or more
  }
  for (double& share : run.shares) share /= read;
  run.mean_depth = rows / read;
  run.rows_per_recursion = rows / static_cast<double>(after.ticks - before.ticks);
  run.useful_rows = rows / launched;
  run.prompt_tokens = static_cast<double>(after.prompt_tokens - before.prompt_tokens);
  run.preempted = after.preempted - before.preempted;
  auto const bytes = ServingBytes::of(model);
  run.floor_seconds = ((passes * bytes.block + run.tokens * bytes.ends) / static_cast<double>(places) + keys * bytes.keys) / bandwidth;
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
  if (run.prompt_tokens > 2.0 * run.tokens) state.counters["read/s"] = (run.prompt_tokens + run.tokens) / run.seconds;
  state.counters["depth"] = run.mean_depth;
  for (std::size_t r = 1; r < run.shares.size(); ++r) state.counters["share_" + std::to_string(r + 1)] = run.shares[r];
  state.counters["floor_share"] = run.floor_seconds / run.seconds;
  state.counters["rows"] = run.rows_per_recursion;
  state.counters["useful"] = run.useful_rows;
  state.counters["ttft_ms"] = 1e3 * run.first_token_median;
  state.counters["ttft99_ms"] = 1e3 * run.first_token_99;
  state.counters["tpot_ms"] = 1e3 * run.token_median;
  state.counters["tpot99_ms"] = 1e3 * run.token_99;
  state.counters["preempted"] = static_cast<double>(run.preempted);
}

}  // namespace mor::bench
