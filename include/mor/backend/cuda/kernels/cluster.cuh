// SPDX-License-Identifier: Apache-2.0
/// @file
/// Blocks of a cluster that work together: a barrier, and one another's shared memory. From compute capability 9.0 on;
/// with `Cluster` false a block is alone.
#pragma once

#include "mor/core/types.hpp"

#include <cstdint>

namespace mor::cuda {

/// Waits for all threads of the cluster; what they wrote before is visible after.
template <bool Cluster>
__device__ __forceinline__ void cluster_barrier() {
  if constexpr (Cluster) {
    asm volatile("barrier.cluster.arrive.release;\n\tbarrier.cluster.wait.acquire;" ::: "memory");
  } else {
    __syncthreads();
  }
}

/// Block `rank`'s copy of a shared variable. It must not end, nor write there, before the reader's next barrier.
template <bool Cluster, class T>
__device__ __forceinline__ T const* shared_of(T const* own, int rank) {
  if constexpr (Cluster) {
    std::uint64_t address;
    asm("mapa.u64 %0, %1, %2;" : "=l"(address) : "l"(reinterpret_cast<std::uint64_t>(own)), "r"(rank));
    return reinterpret_cast<T const*>(address);
  } else {
    return own;
  }
}

}  // namespace mor::cuda
