// SPDX-License-Identifier: Apache-2.0
/// @file
/// The devices of a machine, and which of them a backend can run on.
#pragma once

#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/error.cuh"
#include "mor/backend/cuda/tuning/architecture.hpp"
#include "mor/core/error.hpp"

#include <string>
#include <type_traits>

namespace mor::cuda {

/// The number of CUDA devices; 0 where there is no driver.
[[nodiscard]] inline int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return 0;
  }
  return count;
}

/// Makes the device the calling thread's current one, which what it enqueues, allocates or creates next belongs to. Each thread
/// has one of its own, and other backends may have chosen another since; to ask costs far less than a launch.
inline void make_current(int ordinal) {
  int current = -1;
  check(cudaGetDevice(&current), "cudaGetDevice");
  if (current != ordinal) check(cudaSetDevice(ordinal), "cudaSetDevice", ordinal);
}

/// Makes the device the current one. Throws `mor::error` (Unsupported) where there is no such device or it is of another
/// architecture than Arch.
template <class Arch>
[[nodiscard]] DeviceFacts open_device(int ordinal) {
  int const count = device_count();
  if (ordinal < 0 || ordinal >= count) {
    fail(ErrorCode::Unsupported, "no such CUDA device", "cuda::Backend",
         count == 0 ? "a GPU with a driver" : "0 to " + std::to_string(count - 1), std::to_string(ordinal));
  }
  check(cudaSetDevice(ordinal), "cudaSetDevice", ordinal);
  DeviceFacts facts = DeviceFacts::read(ordinal);
  bool const fits = std::is_same_v<Arch, Sm90> ? facts.capability == Arch::capability : facts.capability >= Arch::capability;
  if (!fits) {
    fail(ErrorCode::Unsupported, "the device is of another architecture than the kernels", "cuda::Backend",
         "compute capability " + std::to_string(Arch::capability / 10) + "." + std::to_string(Arch::capability % 10),
         facts.name + " with " + std::to_string(facts.capability / 10) + "." + std::to_string(facts.capability % 10));
  }
  return facts;
}

}  // namespace mor::cuda
