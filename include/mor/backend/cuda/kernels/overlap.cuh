// SPDX-License-Identifier: Apache-2.0
/// @file
/// A kernel that starts while the one before it in the stream still runs (programmatic dependent launch, from compute
/// capability 9.0 on; `LaunchShape::overlaps` asks for it). Before the wait such a kernel may read only what no earlier
/// kernel writes, and must not write; without that launch both instructions do nothing.
#pragma once

#include "mor/core/types.hpp"

namespace mor::cuda {

/// The next kernel may start once every block has called this or ended.
template <class Arch>
__device__ __forceinline__ void let_next_kernel_start() {
  if constexpr (Arch::capability >= 90) asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

/// Waits until every earlier kernel has ended and what it wrote is visible.
template <class Arch>
__device__ __forceinline__ void wait_for_earlier_kernels() {
  if constexpr (Arch::capability >= 90) asm volatile("griddepcontrol.wait;" ::: "memory");
}

}  // namespace mor::cuda
