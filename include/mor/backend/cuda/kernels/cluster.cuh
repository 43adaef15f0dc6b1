// SPDX-License-Identifier: Apache-2.0
/// @file
/// Blocks of a cluster that work together: a barrier, one another's shared memory, and stores to it that a barrier in that
/// memory counts. From compute capability 9.0 on; with `Cluster` false a block is alone.
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

/// Block `rank`'s copy of a shared variable. It must have started, and must not end before a barrier that follows the access.
template <bool Cluster, class T>
__device__ __forceinline__ T* shared_of(T* own, int rank) {
  if constexpr (Cluster) {
    std::uint64_t address;
    asm("mapa.u64 %0, %1, %2;" : "=l"(address) : "l"(reinterpret_cast<std::uint64_t>(own)), "r"(rank));
    return reinterpret_cast<T*>(address);
  } else {
    return own;
  }
}

/// The two halves of a barrier of the cluster that publishes `make_barrier`s (after `publish_barriers`), and nothing else.
__device__ __forceinline__ void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}

/// Block `rank`'s address of a shared variable.
[[nodiscard]] __device__ __forceinline__ std::uint32_t address_of_block(std::uint32_t own, int rank) {
  std::uint32_t address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(own), "r"(rank));
  return address;
}

/// Stores to the shared memory of a block, whose `Barrier` at `barrier` is told of the bytes when they are there. The address
/// is a multiple of the size.
__device__ __forceinline__ void store_counted(std::uint32_t to, float value, std::uint32_t barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2];" ::"r"(to), "f"(value),
               "r"(barrier)
               : "memory");
}
__device__ __forceinline__ void store_counted(std::uint32_t to, float2 value, std::uint32_t barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::"r"(to),
               "f"(value.x), "f"(value.y), "r"(barrier)
               : "memory");
}
__device__ __forceinline__ void store_counted(std::uint32_t to, float4 value, std::uint32_t barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
               "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w), "r"(barrier)
               : "memory");
}
/// By the one thread that a `Barrier` was made for, once a phase: how many bytes end it.
__device__ __forceinline__ void expect_stores(std::uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
/// Waits for the end of a phase of this block's `Barrier`, and sees what the blocks of the cluster stored until then.
__device__ __forceinline__ void wait_for_stores(std::uint32_t barrier, std::uint32_t parity) {
  std::uint32_t done = 0;
  while (done == 0) {
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}\n"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
  }
}

/// Reads and stores of the block's own shared memory by such addresses, multiples of the size.
[[nodiscard]] __device__ __forceinline__ float2 read_shared_pair(std::uint32_t from) {
  float2 value;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(value.x), "=f"(value.y) : "r"(from) : "memory");
  return value;
}
[[nodiscard]] __device__ __forceinline__ float4 read_shared_quad(std::uint32_t from) {
  float4 value;
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(value.x), "=f"(value.y), "=f"(value.z), "=f"(value.w)
               : "r"(from)
               : "memory");
  return value;
}
__device__ __forceinline__ void write_shared(std::uint32_t to, float2 value) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(value.x), "f"(value.y) : "memory");
}
__device__ __forceinline__ void write_shared(std::uint32_t to, float4 value) {
  asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(to), "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w)
               : "memory");
}

}  // namespace mor::cuda
