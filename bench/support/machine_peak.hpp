// SPDX-License-Identifier: Apache-2.0
/// @file
/// What this machine can do at best, measured in the same run as a benchmark, so that a result is a share of a peak and
/// not a number that only means something on one computer.
#pragma once

#include "mor/backend/host/pack.hpp"
#include "mor/backend/host/parallel.hpp"
#include "mor/core/types.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <vector>

namespace mor::bench {

/// Seconds since it was made: of processor time for one thread, so that other programs on the machine do not count, and
/// of the wall clock for several.
class Stopwatch {
 public:
  explicit Stopwatch(int threads) : one_thread_(threads == 1), start_(now()) {}
  [[nodiscard]] double seconds() const { return now() - start_; }

 private:
  [[nodiscard]] double now() const {
    if (one_thread_) return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }
  bool one_thread_;
  double start_;
};

/// Multiply-adds from registers alone: the floating-point peak of `threads` cores, in operations per second.
template <class T>
[[nodiscard]] double measure_flops(int threads) {
  constexpr Index chains = 12, rounds = 400000;
  double best = 0.0;
  std::vector<T> sinks(static_cast<std::size_t>(threads) * 64);
  for (int attempt = 0; attempt < 7; ++attempt) {
    Stopwatch const watch(threads);
    host::parallel_items(threads, threads, [&](Index item, int) {
      host::Pack<T> sums[chains];
#pragma GCC unroll 16
      for (Index c = 0; c < chains; ++c) sums[c] = host::Pack<T>(item + c);  // equal chains would be merged
      host::Pack<T> const factor(0.999), addend(1e-3);
      for (Index round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
        for (Index c = 0; c < chains; ++c) sums[c] = host::multiply_add(sums[c], factor, addend);
      }
#pragma GCC unroll 16
      for (Index c = 1; c < chains; ++c) sums[0] += sums[c];
      sinks[static_cast<std::size_t>(item) * 64] += host::sum_of(sums[0]);
    });
    benchmark::DoNotOptimize(sinks.data());
    auto const operations = static_cast<double>(2 * chains * rounds * host::Pack<T>::size * threads);
    best = std::max(best, operations / watch.seconds());
  }
  return best;
}

/// A stream triad a = b + s c over arrays far larger than the caches, in bytes per second (three arrays counted).
[[nodiscard]] inline double measure_bandwidth(int threads) {
  Index const count = Index{16} << 20;
  auto const size = static_cast<std::size_t>(count);
  std::vector<float> a(size, 1.0F), b(size, 2.0F), c(size, 3.0F);
  double best = 0.0;
  for (int attempt = 0; attempt < 7; ++attempt) {
    Stopwatch const watch(threads);
    host::parallel_ranges(threads, count, 1 << 16, [&](Index begin, Index end) {
      constexpr Index width = host::Pack<float>::size;
      host::Pack<float> const scale(0.5F);
      for (Index i = begin; i + width <= end; i += width) {
        host::store(a.data() + i, host::multiply_add(scale, host::load<float>(c.data() + i), host::load<float>(b.data() + i)));
      }
    });
    benchmark::DoNotOptimize(a.data());
    best = std::max(best, 3.0 * static_cast<double>(count) * sizeof(float) / watch.seconds());
  }
  return best;
}

/// The peaks for a number of threads, measured once a run.
struct MachinePeak {
  double flops = 0.0;  ///< single precision, operations per second
  double bytes = 0.0;  ///< bytes per second

  [[nodiscard]] static MachinePeak const& of(int threads) {
    static MachinePeak const one{measure_flops<float>(1), measure_bandwidth(1)};
    static int const all_threads = host::resolve_threads(0);
    static MachinePeak const all{measure_flops<float>(all_threads), measure_bandwidth(all_threads)};
    return threads == 1 ? one : all;
  }
};

/// Work of one call, for the counters. Zero means "not counted".
struct Work {
  double flops = 0.0;
  double bytes = 0.0;
};

/// Runs `call` and reports GFLOP/s and GB/s of the median call, and their shares of the machine's peaks. The median
/// is what a shared machine does not disturb.
template <class F>
void measure(benchmark::State& state, int threads, Work work, F const& call) {
  MachinePeak const& peak = MachinePeak::of(threads);
  std::vector<double> times;
  times.reserve(1 << 16);
  call();
  for (auto _ : state) {
    Stopwatch const watch(threads);
    call();
    double const time = watch.seconds();
    state.SetIterationTime(time);
    times.push_back(time);
  }
  auto const middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  state.counters["median_us"] = *middle * 1e6;
  if (work.flops > 0.0) {
    state.counters["GFLOP/s"] = work.flops / *middle * 1e-9;
    state.counters["peak_share"] = work.flops / *middle / peak.flops;
  }
  if (work.bytes > 0.0) {
    state.counters["GB/s"] = work.bytes / *middle * 1e-9;
    state.counters["bandwidth_share"] = work.bytes / *middle / peak.bytes;
  }
}

}  // namespace mor::bench
