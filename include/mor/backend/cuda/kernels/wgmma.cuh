// SPDX-License-Identifier: Apache-2.0
/// @file
/// Hopper's matrix instruction: a warpgroup (four consecutive warps) multiplies a 64 x 16 by a 16 x N matrix of bf16
/// and adds to floats in its registers, asynchronously. B is in shared memory, A in shared memory or in registers.
///
/// Accumulator of thread t of the warpgroup, with warp w = t / 32, g = t % 32 / 4 and c = t % 4: d[4 j + 2 h + i] is
/// row 16 w + g + 8 h, column 8 j + 2 c + i. A in registers: a[0], a[1] are rows 16 w + g and + 8, columns 2 c and 2 c
/// + 1; a[2], a[3] the same rows, columns 2 c + 8 and + 9. So the accumulators d[8 s .. 8 s + 7] of one product,
/// narrowed in pairs, are the A operand of columns 16 s .. 16 s + 15 in the next.
#pragma once

#include <cstdint>

namespace mor::cuda {

/// Tiles in shared memory: blocks of 64 columns; within a block each row is 128 bytes, rows follow one another, and the
/// 16-byte pieces of row r are permuted by exclusive or with r % 8 (the 128-byte swizzle of the copy engine). A block
/// starts at a multiple of 1024 bytes, so that the permutation is a function of the address alone: bits 4..6 ^=
/// bits 7..9.
inline constexpr int kSwizzleColumns = 64;
inline constexpr int kSwizzleRowBytes = 128;
inline constexpr int kSwizzleGroupBytes = 8 * kSwizzleRowBytes;

/// The 64-bit description of an operand in shared memory, as the PTX ISA defines it ("matrix descriptor format"): bits
/// 0..13 start address / 16; 16..29 leading byte offset / 16; 32..45 stride byte offset / 16; 49..51 base offset, 0
/// because every group of 8 rows starts at a multiple of 1024 bytes; 62..63 = 1, the 128-byte swizzle.
///
/// The operand's rows follow M (or N) and its columns K ("K-major"): in 16-byte units the canonical layout is
/// ((8, m), 8) : ((8, stride), 1): the stride byte offset leads from one group of 8 rows to the next, which is 1024;
/// the leading byte offset is not used. A step of 16 along K is 32 bytes inside the swizzled row, added to the start
/// address: the permutation is applied to the sum, whose bits 7..9 it leaves alone.
__device__ __forceinline__ std::uint64_t row_operand(std::uint32_t address) {
  return (static_cast<std::uint64_t>(address & 0x3ffffU) >> 4) | (std::uint64_t{1} << 16) |
         (std::uint64_t{kSwizzleGroupBytes >> 4} << 32) | (std::uint64_t{1} << 62);
}

/// The operand's rows follow K and its columns M or N ("MN-major", the transposed forms below): in 16-byte units the
/// canonical layout is ((8, n), (8, k)) : ((1, leading), (8, stride)): 8 pieces of one swizzled row are 64 columns, the
/// leading byte offset leads to the next block of 64 columns, the stride byte offset from 8 rows of K to the next 8,
/// which is 1024. A step of 16 along K is 16 rows: 2048 bytes.
__device__ __forceinline__ std::uint64_t column_operand(std::uint32_t address, std::uint32_t block_bytes) {
  return (static_cast<std::uint64_t>(address & 0x3ffffU) >> 4) |
         (static_cast<std::uint64_t>((block_bytes & 0x3ffffU) >> 4) << 16) |
         (std::uint64_t{kSwizzleGroupBytes >> 4} << 32) | (std::uint64_t{1} << 62);
}

/// The same operand `bytes` further on.
__device__ __forceinline__ std::uint64_t advanced(std::uint64_t operand, std::uint32_t bytes) {
  return operand + (bytes >> 4);
}

/// Orders this warpgroup's accesses to registers before the products that follow.
__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}
/// Makes one group of the products issued so far.
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}
/// Waits until at most `Pending` groups are under way, the latest ones.
template <int Pending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(Pending) : "memory");
}

/// Tells the compiler that these registers change here: it moves no use of them across, and gives them to nothing else
/// before. After a wait: for the accumulators and the A operands of what has ended.
template <int N>
__device__ __forceinline__ void touch(float (&registers)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(registers[i])::"memory");
}
template <int N>
__device__ __forceinline__ void touch(std::uint32_t (&registers)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+r"(registers[i])::"memory");
}

/// d = a b^T, plus d where `accumulate`. A [64, 16] and B [N, 16] in shared memory; "Transposed" operands are stored
/// [16, 64] and [16, N].
template <bool TransposedA = false, bool TransposedB = false>
__device__ __forceinline__ void wgmma(float (&d)[32], std::uint64_t a, std::uint64_t b, bool accumulate) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "%32, %33, p, 1, 1, %35, %36;\n}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]),
        "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]),
        "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]),
        "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
      : "l"(a), "l"(b), "r"(accumulate ? 1 : 0), "n"(TransposedA ? 1 : 0), "n"(TransposedB ? 1 : 0));
}
template <bool TransposedA = false, bool TransposedB = false>
__device__ __forceinline__ void wgmma(float (&d)[64], std::uint64_t a, std::uint64_t b, bool accumulate) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "%64, %65, p, 1, 1, %67, %68;\n}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]),
        "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]),
        "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]),
        "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]),
        "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]),
        "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),
        "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]),
        "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
      : "l"(a), "l"(b), "r"(accumulate ? 1 : 0), "n"(TransposedA ? 1 : 0), "n"(TransposedB ? 1 : 0));
}

/// The same with A in registers.
template <bool TransposedB = false>
__device__ __forceinline__ void wgmma(float (&d)[32], std::uint32_t const (&a)[4], std::uint64_t b, bool accumulate) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, p, 1, 1, %38;\n}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]),
        "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]),
        "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]),
        "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate ? 1 : 0), "n"(TransposedB ? 1 : 0));
}
template <bool TransposedB = false>
__device__ __forceinline__ void wgmma(float (&d)[64], std::uint32_t const (&a)[4], std::uint64_t b, bool accumulate) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, %68, p, 1, 1, %70;\n}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]),
        "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]),
        "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]),
        "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]),
        "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]),
        "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),
        "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]),
        "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate ? 1 : 0), "n"(TransposedB ? 1 : 0));
}

/// Takes registers from the multiprocessor's free ones, or gives some back. All warps of a warpgroup call.
template <int Registers>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(Registers));
}
template <int Registers>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(Registers));
}

}  // namespace mor::cuda
