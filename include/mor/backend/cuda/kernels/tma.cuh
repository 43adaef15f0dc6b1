// SPDX-License-Identifier: Apache-2.0
/// @file
/// Asynchronous copies to shared memory and the barriers that go with them: tiles through the copy engine (TMA), single
/// values through cp.async, mbarriers, named barriers, and the fence between ordinary and asynchronous accesses.
#pragma once

#include "mor/core/types.hpp"

#include <cuda.h>

#include <cstdint>

namespace mor::cuda {

/// How the copy engine finds a matrix. Kernels take it inside a `__grid_constant__` parameter.
using TensorMap = CUtensorMap;

/// The address that instructions on shared memory take.
__device__ __forceinline__ std::uint32_t shared_address(void const* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

/// Bytes to ask for beyond a storage type's own, because dynamic shared memory may start anywhere.
inline constexpr int kSharedAlignment = 1024;

/// The block's dynamic shared memory as a T, at a multiple of `kSharedAlignment`.
template <class T>
__device__ __forceinline__ T& shared_storage() {
  extern __shared__ unsigned char mor_dynamic_shared[];
  std::uint32_t const excess = shared_address(mor_dynamic_shared) % kSharedAlignment;
  return *reinterpret_cast<T*>(mor_dynamic_shared + (kSharedAlignment - excess) % kSharedAlignment);
}

/// An mbarrier: its phase ends when as many threads have arrived as it was made for, and all announced bytes are there.
struct alignas(8) Barrier {
  std::uint64_t state;
};

/// By one thread; `publish_barriers` and a barrier of the block before the first use.
__device__ __forceinline__ void make_barrier(Barrier& barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(&barrier)), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;\n" ::: "memory");
}
__device__ __forceinline__ void arrive(Barrier& barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(shared_address(&barrier)) : "memory");
}
/// Arrives and announces bytes that copies will bring.
__device__ __forceinline__ void arrive_expecting(Barrier& barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(&barrier)), "r"(bytes)
               : "memory");
}
/// Arrives once the calling thread's `copy_word`s so far are there.
__device__ __forceinline__ void arrive_after_copies(Barrier& barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];\n" ::"r"(shared_address(&barrier)) : "memory");
}
/// Waits for the end of a phase; phases are numbered from 0 and `parity` is the lowest bit.
__device__ __forceinline__ void wait(Barrier& barrier, std::uint32_t parity) {
  std::uint32_t const address = shared_address(&barrier);
  std::uint32_t done = 0;
  while (done == 0) {
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}\n"
                 : "=r"(done)
                 : "r"(address), "r"(parity)
                 : "memory");
  }
}

/// Copies the 64 x 64 box at (column, row) of a matrix; parts outside of the matrix become zeros.
__device__ __forceinline__ void copy_box(std::uint32_t to, TensorMap const& from, Barrier& barrier, int column,
                                         int row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];\n" ::"r"(
          to),
      "l"(reinterpret_cast<std::uint64_t>(&from)), "r"(shared_address(&barrier)), "r"(column), "r"(row)
      : "memory");
}
/// The same, with a policy of the second-level cache.
__device__ __forceinline__ void copy_box(std::uint32_t to, TensorMap const& from, Barrier& barrier, int column, int row,
                                         std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%3, %4}], [%2], "
      "%5;\n" ::"r"(to),
      "l"(reinterpret_cast<std::uint64_t>(&from)), "r"(shared_address(&barrier)), "r"(column), "r"(row), "l"(policy)
      : "memory");
}
/// Tells the copy engine that it will need this description.
__device__ __forceinline__ void prefetch_map(TensorMap const& map) {
  asm volatile("prefetch.tensormap [%0];\n" ::"l"(reinterpret_cast<std::uint64_t>(&map)) : "memory");
}

/// Copies four bytes, or writes zeros where not `valid`.
__device__ __forceinline__ void copy_word(void* to, void const* from, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(shared_address(to)), "l"(from), "r"(valid ? 4 : 0)
               : "memory");
}

/// Makes the calling thread's stores to shared memory visible to the copy engine and the tensor cores.
__device__ __forceinline__ void fence_async() {
  asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}

/// Barriers 1..15 of a block: `threads` threads in all wait or arrive. Whole warps call.
__device__ __forceinline__ void named_wait(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_arrive(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;\n" ::"r"(barrier), "r"(threads) : "memory");
}

/// 2^x to about 2 units in the last place; 0 at -infinity.
__device__ __forceinline__ float fast_exp2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(result) : "f"(x));
  return result;
}

/// A position in a ring of buffers, with the parity of the phase that fills it.
template <int Stages>
struct RingCursor {
  int stage = 0;
  std::uint32_t parity = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == Stages) {
      stage = 0;
      parity ^= 1U;
    }
  }
};

}  // namespace mor::cuda
