// SPDX-License-Identifier: Apache-2.0
/// @file
/// Integer outputs on the device with guard bands around them.
#pragma once

#include "cuda/device.cuh"

#include <algorithm>
#include <span>
#include <vector>

namespace mor::test {

/// Waits for everything, also for copies that were started on other streams.
inline void settle() {
  cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

/// `count` integers that start as poison, between guard bands.
class GuardedRows {
 public:
  GuardedRows(Device& device, std::size_t count)
      : count_(count), all_(device, std::vector<Row>(count + 2 * kGuard, kPoison)) {
    settle();
  }
  [[nodiscard]] std::span<Row> span() const { return all_.span().subspan(kGuard, count_); }
  [[nodiscard]] std::vector<Row> values() const {
    auto const all = all_.values();
    auto const first = all.begin() + static_cast<std::ptrdiff_t>(kGuard);
    return {first, first + static_cast<std::ptrdiff_t>(count_)};
  }
  [[nodiscard]] bool intact() const {
    auto const all = all_.values();
    return std::all_of(all.begin(), all.begin() + kGuard, [](Row row) { return row == kPoison; }) &&
           std::all_of(all.end() - kGuard, all.end(), [](Row row) { return row == kPoison; });
  }

  static constexpr Row kPoison = -77;

 private:
  static constexpr std::ptrdiff_t kGuard = 64;
  std::size_t count_;
  DeviceRows all_;
};

}  // namespace mor::test
