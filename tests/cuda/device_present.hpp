// SPDX-License-Identifier: Apache-2.0
/// @file
/// For tests that g++ compiles: is there a GPU?
#pragma once

#include "support/catch.hpp"

#include <cuda_runtime_api.h>

namespace mor::test {

/// Skips the running test where there is no device.
inline void require_device() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) SKIP("no CUDA device");
}

}  // namespace mor::test
