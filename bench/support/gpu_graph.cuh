// SPDX-License-Identifier: Apache-2.0
/// @file
/// Many like steps captured in one graph, and timed as one launch of that.
#pragma once

#include "gpu_measure.cuh"
#include "median.hpp"

#include "mor/backend/cuda/backend.cuh"
#include "mor/backend/cuda/graph.cuh"
#include "mor/core/error.hpp"

#include <benchmark/benchmark.h>

#include <vector>

namespace mor::bench {

/// Times replays of a graph of `steps` like steps, each of which has `bytes` to read.
template <class Work>
void measure_graph(benchmark::State& state, Gpu& gpu, int steps, double bytes, Work const& work) {
  work();  // what a kernel sets up on its first launch
  gpu.backend().synchronize();
  cudaStream_t const stream = gpu.context().stream;
  cuda::Graph graph;
  require(graph.capture(stream, work), "the work cannot be captured", "measure_graph");
  constexpr int replays = 4;
  EventPair events;
  std::vector<double> times;
  for (int i = 0; i < 3; ++i) graph.launch(stream);
  for (auto _ : state) {
    events.begin(stream);
    for (int i = 0; i < replays; ++i) graph.launch(stream);
    times.push_back(events.end(stream) / replays / steps);
    state.SetIterationTime(times.back());
  }
  gpu.backend().arena().reset();
  double const time = median(times);
  state.counters["median_us"] = 1e6 * time;
  state.counters["GB/s"] = 1e-9 * bytes / time;
  state.counters["copy_share"] = bytes / time / gpu.copy_bandwidth();
}

}  // namespace mor::bench
