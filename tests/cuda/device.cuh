// SPDX-License-Identifier: Apache-2.0
/// @file
/// A device for tests: a context to call operations with, and arrays on the device with guard bands around them.
#pragma once

#include "support/catch.hpp"
#include "support/matrix.hpp"

#include "mor/backend/cuda/memory.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/core/dtype.hpp"
#include "mor/core/view.hpp"

#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

namespace mor::test {

/// The first device, or a skipped test where there is none. Make one at the start of each test.
class Device {
 public:
  Device() : arena_(memory_.resource()) {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) SKIP("no CUDA device");
    facts_ = cuda::DeviceFacts::read(0);
    cuda::check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
  }
  Device(Device const&) = delete;
  Device& operator=(Device const&) = delete;
  ~Device() {
    if (stream_ != nullptr) static_cast<void>(cudaStreamDestroy(stream_));
  }
  [[nodiscard]] cuda::Context context() { return {stream_, &arena_, &facts_}; }
  [[nodiscard]] cuda::DeviceFacts const& facts() const { return facts_; }
  [[nodiscard]] MemoryResource memory() { return memory_.resource(); }
  void synchronize() { cuda::check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

 private:
  cuda::DeviceMemory memory_;
  Arena arena_;
  cuda::DeviceFacts facts_;
  cudaStream_t stream_ = nullptr;
};

/// A device whose instructions the kernels for Hopper alone have, or a skipped test.
class HopperDevice : public Device {
 public:
  HopperDevice() {
    if (facts().capability != 90) SKIP("no device of compute capability 9.0");
  }
};

/// Storage of a number: rounds to bf16 where T is.
template <class T>
[[nodiscard]] T stored(double value) {
  return static_cast<T>(static_cast<float>(value));
}
/// The values that a device array of T will hold for these, in double: what the oracle is given.
template <class T>
[[nodiscard]] std::vector<double> rounded(std::vector<double> values) {
  for (double& value : values) value = static_cast<double>(static_cast<float>(stored<T>(value)));
  return values;
}

/// A matrix on the device with `padding` elements between rows and guard bands at both ends. All room starts as bytes
/// 0xFF (NaN in every floating-point type), also between rows; `intact` tells whether anything wrote there.
template <class T>
class DeviceMatrix {
 public:
  DeviceMatrix(Device& device, Index rows, Index cols, Index padding = 0)
      : device_(&device), rows_(rows), cols_(cols), stride_(cols + padding),
        buffer_(device.memory(), rows * (cols + padding) + 2 * kGuard) {
    std::vector<T> const fresh = image({});
    write(fresh);
  }
  /// With values, row by row.
  DeviceMatrix(Device& device, Index rows, Index cols, std::vector<double> const& values, Index padding = 0)
      : DeviceMatrix(device, rows, cols, padding) {
    write(image(values));
  }

  [[nodiscard]] View<T> view() const { return {buffer_.data() + kGuard, rows_, cols_, stride_}; }
  [[nodiscard]] View<T const> read() const { return view(); }
  /// As a vector; only without padding.
  [[nodiscard]] std::span<T> span() const { return {buffer_.data() + kGuard, static_cast<std::size_t>(rows_ * cols_)}; }

  /// The elements, after all work on the device is done.
  [[nodiscard]] std::vector<double> values() const {
    auto const raw = download();
    std::vector<double> result;
    for (Index i = 0; i < rows_; ++i) {
      for (Index j = 0; j < cols_; ++j) {
        result.push_back(static_cast<double>(static_cast<float>(raw[static_cast<std::size_t>(kGuard + i * stride_ + j)])));
      }
    }
    return result;
  }
  /// The elements as they are stored, for bitwise comparisons.
  [[nodiscard]] std::vector<T> raw_values() const {
    auto const raw = download();
    std::vector<T> result;
    for (Index i = 0; i < rows_; ++i) {
      auto const first = raw.begin() + static_cast<std::ptrdiff_t>(kGuard + i * stride_);
      result.insert(result.end(), first, first + static_cast<std::ptrdiff_t>(cols_));
    }
    return result;
  }
  /// Whether the guard bands and the room between rows still hold the poison.
  [[nodiscard]] bool intact() const {
    auto const raw = download();
    for (std::size_t at = 0; at < raw.size(); ++at) {
      Index const offset = static_cast<Index>(at) - kGuard;
      bool const inside = offset >= 0 && offset < rows_ * stride_ && offset % stride_ < cols_;
      if (inside) continue;
      unsigned char bytes[sizeof(T)];
      std::memcpy(bytes, &raw[at], sizeof(T));
      for (unsigned char const byte : bytes) {
        if (byte != 0xFF) return false;
      }
    }
    return true;
  }

 private:
  static constexpr Index kGuard = 256;  // keeps the alignment of the first element

  [[nodiscard]] std::vector<T> image(std::vector<double> const& values) const {
    std::vector<T> raw(static_cast<std::size_t>(rows_ * stride_ + 2 * kGuard));
    std::memset(static_cast<void*>(raw.data()), 0xFF, raw.size() * sizeof(T));
    for (std::size_t n = 0; n < values.size(); ++n) {
      Index const i = static_cast<Index>(n) / cols_, j = static_cast<Index>(n) % cols_;
      raw[static_cast<std::size_t>(kGuard + i * stride_ + j)] = stored<T>(values[n]);
    }
    return raw;
  }
  void write(std::vector<T> const& raw) {
    cuda::check(cudaMemcpy(buffer_.data(), raw.data(), raw.size() * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
    cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }
  [[nodiscard]] std::vector<T> download() const {
    cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    std::vector<T> raw(static_cast<std::size_t>(buffer_.size()));
    cuda::check(cudaMemcpy(raw.data(), buffer_.data(), raw.size() * sizeof(T), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return raw;
  }

  Device* device_;
  Index rows_, cols_, stride_;
  Buffer<T> buffer_;
};

/// A vector of integers on the device.
class DeviceRows {
 public:
  DeviceRows(Device& device, std::vector<Row> const& rows) : buffer_(device.memory(), static_cast<Index>(rows.size())) {
    cuda::check(cudaMemcpy(buffer_.data(), rows.data(), rows.size() * sizeof(Row), cudaMemcpyHostToDevice), "cudaMemcpy");
    cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");  // the tests' stream does not wait for this copy
  }
  [[nodiscard]] std::span<Row const> read() const { return buffer_.span(); }
  [[nodiscard]] std::span<Row> span() const { return buffer_.span(); }
  [[nodiscard]] std::vector<Row> values() const {
    cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    std::vector<Row> rows(static_cast<std::size_t>(buffer_.size()));
    cuda::check(cudaMemcpy(rows.data(), buffer_.data(), rows.size() * sizeof(Row), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return rows;
  }

 private:
  Buffer<Row> buffer_;
};

/// ||a - b|| / ||b||; infinity where lengths differ or a NaN is met.
[[nodiscard]] inline double relative_error(std::vector<double> const& a, std::vector<double> const& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double difference = 0.0, size = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i]) {
      if (std::isfinite(b[i])) size += b[i] * b[i];
      continue;
    }
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  if (!std::isfinite(difference)) return std::numeric_limits<double>::infinity();
  return difference == 0.0 ? 0.0 : std::sqrt(difference / std::max(size, 1e-300));
}

/// What `relative_error` may be after arithmetic in float on values stored as T.
template <class T>
inline constexpr double kTolerance = std::is_same_v<T, float> ? 2e-6 : 6e-3;

/// `count` numbers uniform in (-1, 1) as T would store them.
template <class T>
[[nodiscard]] std::vector<double> random_values(Index count, std::uint64_t seed) {
  return rounded<T>(random_vector<double>(count, seed));
}

}  // namespace mor::test
