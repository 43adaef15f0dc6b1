// SPDX-License-Identifier: Apache-2.0
/// @file
/// Operands of GPU benchmarks, and two further ways to time a call: many calls between two events, and a call whose
/// operands are made anew each time.
#pragma once

#include "gpu_measure.cuh"

#include "mor/core/memory.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace mor::bench {

/// Numbers drawn for a buffer; a longer one holds them again and again.
inline constexpr Index kRandomPiece = Index{1} << 22;

template <class T>
void copy_on_device(Gpu& gpu, T const* from, T* to, Index count) {
  cuda::check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(count) * sizeof(T), cudaMemcpyDeviceToDevice,
                              gpu.context().stream),
              "copy", count);
}

/// Repeats the first `filled` elements to the end of the buffer.
template <class T>
void repeat_to_end(Gpu& gpu, Buffer<T> const& buffer, Index filled) {
  for (; filled < buffer.size(); filled *= 2) {
    copy_on_device(gpu, buffer.data(), buffer.data() + filled, std::min(filled, buffer.size() - filled));
  }
  gpu.backend().synchronize();
}

/// A matrix of the numbers of `Gpu::random`.
[[nodiscard]] inline Buffer<bfloat16> random_matrix(Gpu& gpu, Index rows, Index cols, std::uint64_t key) {
  Index const piece = std::min(rows * cols, kRandomPiece);
  Buffer<bfloat16> const random = gpu.random(1, piece, key);
  Buffer<bfloat16> result(gpu.backend().memory(), rows * cols);
  copy_on_device(gpu, random.data(), result.data(), piece);
  repeat_to_end(gpu, result, piece);
  return result;
}

/// Floats uniform in (0, 1).
[[nodiscard]] inline Buffer<float> random_floats(Gpu& gpu, Index count, std::uint64_t key) {
  auto& b = gpu.backend();
  Index const piece = std::min(count, kRandomPiece);
  Buffer<float> result(b.memory(), count);
  std::vector<Row> positions(static_cast<std::size_t>(piece));
  for (std::size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<Row>(i);
  b.random_scores(key, 1, b.upload(positions), View<float>(result.data(), piece, 1));
  repeat_to_end(gpu, result, piece);
  b.arena().reset();
  return result;
}

[[nodiscard]] inline Buffer<float> zeros(Gpu& gpu, Index count) {
  Buffer<float> result(gpu.backend().memory(), count);
  gpu.backend().fill(View<float>(result.data(), 1, count), 0.0);
  return result;
}

/// A host array in device memory.
template <class T>
[[nodiscard]] Buffer<T> on_device(Gpu& gpu, std::vector<T> const& values) {
  Buffer<T> result(gpu.backend().memory(), static_cast<Index>(values.size()));
  gpu.backend().store(std::span<T const>(values), result.span());
  return result;
}

/// Microseconds of a call that is too short for events of its own: the mean over `calls` calls between two events. Their
/// operands stay in the second-level cache.
template <class F>
void measure_many(benchmark::State& state, Gpu& gpu, F const& call) {
  constexpr int calls = 20;
  cudaStream_t const stream = gpu.context().stream;
  // While the device writes this, the host enqueues every call: what is timed does not wait for the host.
  Buffer<std::byte> const head_start(gpu.backend().memory(), Index{1} << 30);
  EventPair events;
  std::vector<double> times;
  for (int i = 0; i < 3; ++i) call();
  for (auto _ : state) {
    cuda::check(cudaMemsetAsync(head_start.data(), 0, static_cast<std::size_t>(head_start.size()), stream), "memset");
    events.begin(stream);
    for (int i = 0; i < calls; ++i) call();
    times.push_back(events.end(stream) / calls);
    state.SetIterationTime(times.back());
    gpu.backend().arena().reset();
  }
  state.counters["median_us"] = 1e6 * median(times);
}

/// As `measure`, with `prepare()` before each timed call.
template <class P, class F>
void measure_prepared(benchmark::State& state, Gpu& gpu, double bytes, P const& prepare, F const& call) {
  std::vector<double> times;
  prepare();
  call();
  for (auto _ : state) {
    prepare();
    times.push_back(gpu.time_calls(1, call).front());
    state.SetIterationTime(times.back());
  }
  double const rate = bytes / median(times);
  state.counters["median_us"] = 1e6 * median(times);
  state.counters["GB/s"] = 1e-9 * rate;
  state.counters["copy_share"] = rate / gpu.copy_bandwidth();
}

}  // namespace mor::bench
