// SPDX-License-Identifier: Apache-2.0
/// @file
/// Instructions from compute capability 8.0 on: tensor-core products of warps, their loads from shared memory, and
/// copies from device to shared memory that do not pass through registers.
///
/// A warp's lane l is g = l / 4, t = l % 4. Fragments of D [16, 8] += A [16, 16] B [16, 8]: a[0..3] hold the pairs
/// A(g, 2t), A(g + 8, 2t), A(g, 2t + 8), A(g + 8, 2t + 8); b[0..1] hold B(2t, g), B(2t + 8, g), pairs along the rows; d
/// holds D(g, 2t), D(g, 2t + 1), D(g + 8, 2t), D(g + 8, 2t + 1).
#pragma once

#include "mor/core/types.hpp"

#include <cstdint>

namespace mor::cuda::sm80 {

/// d += a b with bf16 operands and float sums.
__device__ __forceinline__ void multiply_add(float (&d)[4], std::uint32_t const (&a)[4], std::uint32_t b0,
                                             std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Four 8x8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8, and receives of each
/// matrix the elements (g, 2t) and (g, 2t + 1).
__device__ __forceinline__ void load_matrices(std::uint32_t (&to)[4], std::uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from));
}

/// The same, but of each matrix the elements (2t, g) and (2t + 1, g).
__device__ __forceinline__ void load_matrices_transposed(std::uint32_t (&to)[4], std::uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from));
}

/// The address that the instructions of this file take.
[[nodiscard]] __device__ __forceinline__ std::uint32_t shared_address(void const* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

/// Reads 16 bytes of shared memory.
[[nodiscard]] __device__ __forceinline__ uint4 load_shared(std::uint32_t from) {
  uint4 value;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "r"(from)
               : "memory");
  return value;
}

/// Starts a copy of Bytes (4, 8 or 16) to shared memory, or of as many zeros where `valid` is false; `from` is then not
/// read. The addresses are multiples of Bytes.
template <int Bytes>
__device__ __forceinline__ void copy_async(std::uint32_t to, void const* from, bool valid) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16);
  int const size = valid ? Bytes : 0;
  if constexpr (Bytes == 16) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to),
                 "l"(__cvta_generic_to_global(from)), "r"(size)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(__cvta_generic_to_global(from)),
                 "n"(Bytes), "r"(size)
                 : "memory");
  }
}

/// Closes a group of the copies that this thread has started; it may be empty.
__device__ __forceinline__ void close_copy_group() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

/// Waits until all but the last `Pending` groups that this thread closed have arrived.
template <int Pending>
__device__ __forceinline__ void wait_for_copy_groups() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

/// Waits until all copies that this thread started have arrived.
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

}  // namespace mor::cuda::sm80
