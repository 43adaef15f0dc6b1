// SPDX-License-Identifier: Apache-2.0
/// @file
/// What this machine can do at best, measured in the same run as a benchmark, so that a result is a share of a peak and
/// not a number that only means something on one computer.
#pragma once

#include "median.hpp"

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

/// Seconds of each of `count` calls.
template <class F>
[[nodiscard]] std::vector<double> time_calls(int threads, int count, F const& call) {
  std::vector<double> times;
  for (int i = 0; i < count; ++i) {
    Stopwatch const watch(threads);
    call();
    times.push_back(watch.seconds());
  }
  return times;
}

/// Multiply-adds from registers alone: the floating-point peak of `threads` cores, in operations per second.
template <class T>
[[nodiscard]] double measure_flops(int threads) {
  constexpr Index chains = 12, rounds = 200000;
  std::vector<T> sinks(static_cast<std::size_t>(threads) * 64);
  auto const multiply_and_add = [&] {
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
  };
  auto const operations = static_cast<double>(2 * chains * rounds * host::Pack<T>::size * threads);
  return operations / median(time_calls(threads, 9, multiply_and_add));
}

/// A stream triad a = b + s c over arrays far larger than the caches, in bytes per second (three arrays counted).
class Bandwidth {
 public:
  [[nodiscard]] double measure(int threads) {
    auto const triad = [&] {
      host::parallel_ranges(threads, count, 1 << 16, [&](Index begin, Index end) {
        constexpr Index width = host::Pack<float>::size;
        host::Pack<float> const scale(0.5F);
        for (Index i = begin; i + width <= end; i += width) {
          host::store(a_.data() + i,
                      host::multiply_add(scale, host::load<float>(c_.data() + i), host::load<float>(b_.data() + i)));
        }
      });
      benchmark::DoNotOptimize(a_.data());
    };
    return 3.0 * static_cast<double>(count) * sizeof(float) / median(time_calls(threads, 5, triad));
  }

 private:
  static constexpr Index count = Index{16} << 20;
  std::vector<float> a_ = std::vector<float>(count, 1.0F), b_ = a_, c_ = a_;
};

/// Work of one call, for the counters. Zero means "not counted".
struct Work {
  double flops = 0.0;
  double bytes = 0.0;
};

/// Runs `call` and reports GFLOP/s and GB/s of the median call, and their shares of the machine's peaks, which are
/// measured right before and right after.
template <class F>
void measure(benchmark::State& state, int threads, Work work, F const& call) {
  static Bandwidth bandwidth;
  auto const flops_now = [&] { return work.flops > 0.0 ? measure_flops<float>(threads) : 0.0; };
  auto const bytes_now = [&] { return work.bytes > 0.0 ? bandwidth.measure(threads) : 0.0; };
  double const flops_before = flops_now(), bytes_before = bytes_now();
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
  double const peak_flops = 0.5 * (flops_before + flops_now()), peak_bytes = 0.5 * (bytes_before + bytes_now());
  double const time = median(times);
  state.counters["median_us"] = time * 1e6;
  if (work.flops > 0.0) {
    state.counters["GFLOP/s"] = work.flops / time * 1e-9;
    state.counters["peak_share"] = work.flops / time / peak_flops;
  }
  if (work.bytes > 0.0) {
    state.counters["GB/s"] = work.bytes / time * 1e-9;
    state.counters["bandwidth_share"] = work.bytes / time / peak_bytes;
  }
}

}  // namespace mor::bench
