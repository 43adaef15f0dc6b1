// SPDX-License-Identifier: Apache-2.0
/// @file
/// A fence for the compiler's common subexpressions, for kernels whose registers are nearly all in use.
#pragma once

namespace mor::cuda {

/// The same value, computed anew: what follows from it does not wait in registers for its use.
[[nodiscard]] __device__ __forceinline__ int computed_here(int value) {
  asm volatile("" : "+r"(value));
  return value;
}

}  // namespace mor::cuda
