// SPDX-License-Identifier: Apache-2.0
/// @file
/// What the GPU can do at best, measured in the same run as a benchmark, and calls timed by CUDA events with a cold
/// second-level cache.
#pragma once

#include "median.hpp"

#include "mor/backend/cuda/backend.cuh"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <vector>

namespace mor::bench {

/// Work of one call, for the counters. Zero means "not counted".
struct GpuWork {
  double flops = 0.0;
  double bytes = 0.0;
};

/// Two events on a stream.
class EventPair {
 public:
  EventPair() {
    cuda::check(cudaEventCreate(&begin_), "cudaEventCreate");
    cuda::check(cudaEventCreate(&end_), "cudaEventCreate");
  }
  EventPair(EventPair const&) = delete;
  EventPair& operator=(EventPair const&) = delete;
  ~EventPair() {
    static_cast<void>(cudaEventDestroy(begin_));
    static_cast<void>(cudaEventDestroy(end_));
  }
  void begin(cudaStream_t stream) { cuda::check(cudaEventRecord(begin_, stream), "cudaEventRecord"); }
  /// Seconds since `begin`; waits.
  [[nodiscard]] double end(cudaStream_t stream) {
    cuda::check(cudaEventRecord(end_, stream), "cudaEventRecord");
    cuda::check(cudaEventSynchronize(end_), "cudaEventSynchronize");
    float milliseconds = 0.0F;
    cuda::check(cudaEventElapsedTime(&milliseconds, begin_, end_), "cudaEventElapsedTime");
    return 1e-3 * static_cast<double>(milliseconds);
  }

 private:
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

/// out = 2 uniform - 1.
template <class T>
__global__ void center_kernel(float const* uniform, Index count, T* out) {
  Index const i = Index{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < count) out[i] = cuda::narrow<T>(2.0F * uniform[i] - 1.0F);
}

/// A backend for benchmarks, memory to flush the cache with, and the roofs of the device.
class Gpu {
 public:
  using B = cuda::Backend<bfloat16>;

  /// The one of this program; null where there is no device.
  [[nodiscard]] static Gpu* instance() {
    static std::unique_ptr<Gpu> const gpu = cuda::device_count() > 0 ? std::make_unique<Gpu>() : nullptr;
    return gpu.get();
  }
  Gpu() : backend_(options()), flush_(backend_.memory(), 2 * Index{backend_.device().l2_bytes}) {}

  [[nodiscard]] B& backend() { return backend_; }
  [[nodiscard]] cuda::Context context() { return backend_.context(); }

  /// Seconds of each of `count` calls, each with a cold cache.
  template <class F>
  [[nodiscard]] std::vector<double> time_calls(int count, F const& call) {
    std::vector<double> times;
    cudaStream_t const stream = context().stream;
    for (int i = 0; i < count; ++i) {
      cuda::check(cudaMemsetAsync(flush_.data(), i & 255, static_cast<std::size_t>(flush_.size()), stream), "flush");
      events_.begin(stream);
      call();
      times.push_back(events_.end(stream));
      backend_.arena().reset();
    }
    return times;
  }

  /// Bytes read and written a second by a copy of 1 GiB.
  [[nodiscard]] double copy_bandwidth() {
    if (bandwidth_ > 0.0) return bandwidth_;
    Index const bytes = Index{1} << 30;
    Buffer<std::byte> const from(backend_.memory(), bytes), to(backend_.memory(), bytes);
    auto const copy = [&] {
      cuda::check(cudaMemcpyAsync(to.data(), from.data(), static_cast<std::size_t>(bytes), cudaMemcpyDeviceToDevice,
                                  context().stream), "copy");
    };
    copy();
    return bandwidth_ = 2.0 * static_cast<double>(bytes) / median(time_calls(11, copy));
  }

  /// FLOP/s of an 8192 x 8192 x 8192 product in bf16 on random data.
  [[nodiscard]] double matmul_rate() {
    if (matmul_ > 0.0) return matmul_;
    Index const size = 8192;
    auto a = random(size, size, 1), b = random(size, size, 2), c = random(size, size, 3);
    auto const multiply = [&] { backend_.linear(view(a, size, size), view(b, size, size), view(c, size, size)); };
    multiply();
    return matmul_ = 2.0 * static_cast<double>(size * size * size) / median(time_calls(11, multiply));
  }

  /// Random numbers uniform in (-1, 1).
  [[nodiscard]] Buffer<bfloat16> random(Index rows, Index cols, std::uint64_t key) {
    Buffer<bfloat16> result(backend_.memory(), rows * cols);
    Buffer<float> const uniform(backend_.memory(), rows * cols);
    std::vector<Row> positions;
    // Columns of a router's random scores stay below 64: one column, as many rows as there are numbers.
    positions.resize(static_cast<std::size_t>(rows * cols));
    for (std::size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<Row>(i);
    backend_.random_scores(key, 1, backend_.upload(positions), {uniform.data(), rows * cols, 1});
    cuda::LaunchShape const shape{dim3(static_cast<unsigned>((rows * cols + 255) / 256)), 256};
    cuda::launch(context(), "center", shape, &center_kernel<bfloat16>, uniform.data(), rows * cols, result.data());
    backend_.synchronize();
    backend_.arena().reset();
    return result;
  }
  [[nodiscard]] static View<bfloat16> view(Buffer<bfloat16> const& buffer, Index rows, Index cols) {
    return {buffer.data(), rows, cols};
  }

 private:
  [[nodiscard]] static cuda::BackendOptions options() {
    cuda::BackendOptions options;
    options.blas.search = true;
    return options;
  }

  B backend_;
  Buffer<std::byte> flush_;
  EventPair events_;
  double bandwidth_ = 0.0, matmul_ = 0.0;
};

/// Times `call` and reports the median, and its rates beside the device's roofs.
template <class F>
void measure(benchmark::State& state, Gpu& gpu, GpuWork work, F const& call) {
  for (int i = 0; i < 3; ++i) call();
  std::vector<double> times;
  for (auto _ : state) {
    times.push_back(gpu.time_calls(1, call).front());
    state.SetIterationTime(times.back());
  }
  double const time = median(times);
  state.counters["median_us"] = 1e6 * time;
  if (work.flops > 0.0) {
    state.counters["TFLOP/s"] = 1e-12 * work.flops / time;
    state.counters["matmul_share"] = work.flops / time / gpu.matmul_rate();
  }
  if (work.bytes > 0.0) {
    state.counters["GB/s"] = 1e-9 * work.bytes / time;
    state.counters["copy_share"] = work.bytes / time / gpu.copy_bandwidth();
  }
}

/// Runs the benchmarks of a program, or says that there is no device and ends well.
inline int run_gpu_benchmarks(int argc, char** argv) {
  if (Gpu::instance() == nullptr) {
    std::puts("no CUDA device: nothing to measure");
    return 0;
  }
  auto const& device = Gpu::instance()->backend().device();
  benchmark::AddCustomContext("device", device.name);
  benchmark::AddCustomContext("copy_GB/s", std::to_string(1e-9 * Gpu::instance()->copy_bandwidth()));
  benchmark::AddCustomContext("matmul_TFLOP/s", std::to_string(1e-12 * Gpu::instance()->matmul_rate()));
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace mor::bench
