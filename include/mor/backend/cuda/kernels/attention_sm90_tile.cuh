// SPDX-License-Identifier: Apache-2.0
/// @file
/// What the Hopper attention kernels share: products of whole tiles, tiles from registers to memory, rows that must not
/// be read, and the roles of a block's warps.
#pragma once

#include "mor/backend/cuda/kernels/attention_sm90_plan.cuh"
#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/kernels/tma.cuh"
#include "mor/backend/cuda/kernels/wgmma.cuh"
#include "mor/core/dtype.hpp"
#include "mor/core/types.hpp"

#include <cstdint>

namespace mor::cuda::sm90 {

inline constexpr int kWarpgroupSize = 128;
inline constexpr int kBoxBytes = kTileRows * kSwizzleRowBytes;  ///< 64 rows of 64 columns
inline constexpr float kLog2OfE = 1.4426950408889634F;
inline constexpr float kLogOf2 = 0.6931471805599453F;

/// Numbers of named barriers: one for the turn of each warpgroup, one for each warpgroup's own use.
inline constexpr int kTurnBarrier = 1;
inline constexpr int kOwnBarrier = 5;

/// Where a thread stands in its warpgroup's tile: it has rows `row` and `row + 8`, and columns 8 j + `column` and + 1.
struct Place {
  int warpgroup;  ///< among those that compute
  int thread;     ///< in the warpgroup
  int quad;       ///< lane % 4
  int row;
  int column;
};
__device__ __forceinline__ Place place_of_thread() {
  int const thread = static_cast<int>(threadIdx.x) % kWarpgroupSize, lane = thread % kWarpSize;
  int const warpgroup = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kWarpgroupSize - 1, 0);
  return {warpgroup, thread, lane % 4, thread / kWarpSize * 16 + lane / 4, lane % 4 * 2};
}

/// A value that is the same in all lanes, in a way that the compiler can see.
__device__ __forceinline__ int uniform(int value) {
  return __shfl_sync(kAllLanes, value, 0);
}

/// One arrival a warp, after all its lanes are done.
__device__ __forceinline__ void arrive_warp(Barrier& barrier) {
  __syncwarp();
  if (threadIdx.x % kWarpSize == 0) arrive(barrier);
}

/// The same once `total`, a sum of weights, is known. The assembler would move the wait for a product that comes next
/// in the program up to before the exponentials, which are there to run beside that product; it does not move it across
/// an arrival, and this one needs all of them.
__device__ __forceinline__ void arrive_warp_after(Barrier& barrier, float total) {
  __syncwarp();
  if (threadIdx.x % kWarpSize == 0 && !(total < 0.0F)) arrive(barrier);
}

/// Fetches a [64, Dim] tile: Dim / 64 boxes, `block_bytes` apart.
template <int Dim>
__device__ __forceinline__ void copy_tile(std::uint32_t to, int block_bytes, TensorMap const& from, Barrier& barrier,
                                          int column, int row) {
#pragma unroll
  for (int block = 0; block < Dim / kSwizzleColumns; ++block) {
    copy_box(to + static_cast<std::uint32_t>(block * block_bytes), from, barrier, column + block * kSwizzleColumns,
             row);
  }
}

/// scores = a b^T for a [64, Dim] and b [N, Dim], rows in shared memory.
template <int Dim, int N>
__device__ __forceinline__ void multiply_rows(float (&scores)[N / 2], std::uint32_t a, std::uint32_t b) {
  std::uint64_t const left = row_operand(a), right = row_operand(b);
#pragma unroll
  for (int step = 0; step < Dim / 16; ++step) {
    std::uint32_t const block = static_cast<std::uint32_t>(step / 4),
                        within = static_cast<std::uint32_t>(step % 4 * 32);
    wgmma(scores, advanced(left, block * kBoxBytes + within), advanced(right, block * (N * kSwizzleRowBytes) + within),
          step > 0);
  }
}

/// The same with a in registers.
template <int Dim, int N>
__device__ __forceinline__ void multiply_rows(float (&scores)[N / 2], std::uint32_t const (&a)[Dim / 16][4],
                                              std::uint32_t b) {
  std::uint64_t const right = row_operand(b);
#pragma unroll
  for (int step = 0; step < Dim / 16; ++step) {
    std::uint32_t const block = static_cast<std::uint32_t>(step / 4),
                        within = static_cast<std::uint32_t>(step % 4 * 32);
    wgmma(scores, a[step], advanced(right, block * (N * kSwizzleRowBytes) + within), step > 0);
  }
}

/// sums += weights x for weights [64, K] in registers and rows x [K, Dim] in shared memory.
template <int Dim, int K>
__device__ __forceinline__ void add_weighted_rows(float (&sums)[Dim / 2], std::uint32_t const (&weights)[K / 16][4],
                                                  std::uint32_t x) {
  std::uint64_t const right = column_operand(x, K * kSwizzleRowBytes);
#pragma unroll
  for (int step = 0; step < K / 16; ++step) {
    wgmma<true>(sums, weights[step], advanced(right, static_cast<std::uint32_t>(step * 16 * kSwizzleRowBytes)), true);
  }
}

/// Accumulators of a product as the left operand of the next.
template <int N>
__device__ __forceinline__ void narrow_weights(float const (&values)[N / 2], std::uint32_t (&weights)[N / 16][4]) {
#pragma unroll
  for (int step = 0; step < N / 16; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      weights[step][i] = pack_bfloat16(values[8 * step + 2 * i], values[8 * step + 2 * i + 1]);
  }
}

template <int Steps>
__device__ __forceinline__ void touch(std::uint32_t (&weights)[Steps][4]) {
#pragma unroll
  for (int step = 0; step < Steps; ++step) cuda::touch(weights[step]);
}
using cuda::touch;

/// Overwrites rows [first, Rows) of a tile [Rows, Dim] in shared memory with zeros: what lies behind the end of a key
/// list may be anything, and 0 * NaN is not 0. Each warpgroup that reads the tile does so itself, right before it
/// reads.
template <int Dim, int Rows>
__device__ __forceinline__ void clear_rows(unsigned char* tile, int first, int thread) {
  constexpr int pieces = kSwizzleRowBytes / 16;
#pragma unroll
  for (int block = 0; block < Dim / kSwizzleColumns; ++block) {
    uint4* const from = reinterpret_cast<uint4*>(tile + block * Rows * kSwizzleRowBytes);
    for (int i = first * pieces + thread; i < Rows * pieces; i += kWarpgroupSize) from[i] = make_uint4(0, 0, 0, 0);
  }
}

/// Turns a 4 x 4 matrix of words spread over four neighbouring lanes, one row each: word k of lane c becomes word c of
/// lane k.
__device__ __forceinline__ void transpose_quad(std::uint32_t (&word)[4], int quad) {
  bool const odd = (quad & 1) != 0, high = (quad & 2) != 0;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    std::uint32_t const other = __shfl_xor_sync(kAllLanes, odd ? word[i] : word[i + 1], 1);
    word[i] = odd ? other : word[i];
    word[i + 1] = odd ? word[i + 1] : other;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    std::uint32_t const other = __shfl_xor_sync(kAllLanes, high ? word[i] : word[i + 2], 2);
    word[i] = high ? other : word[i];
    word[i + 2] = high ? word[i + 2] : other;
  }
}

/// Stores half (0: rows `row`, 1: rows `row + 8`) of a tile of accumulators times `factor` as bf16, where `valid`: `to`
/// is this thread's row. Accumulators lie in pairs of columns; each thread of a quad ends with 16 bytes of every 64.
/// `Accumulate` adds to what is there, with one rounding.
template <bool Accumulate, int Dim>
__device__ __forceinline__ void store_rows(float const (&values)[Dim / 2], int half, float factor, bfloat16* to,
                                           bool valid, int quad) {
#pragma unroll
  for (int part = 0; part < Dim / 32; ++part) {
    uint4* const at = reinterpret_cast<uint4*>(to + 32 * part + 8 * quad);
    std::uint32_t word[4] = {};
    if constexpr (Accumulate) {
      uint4 const before = valid ? *at : make_uint4(0, 0, 0, 0);
      word[0] = before.x, word[1] = before.y, word[2] = before.z, word[3] = before.w;
      transpose_quad(word, quad);
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      int const i = 16 * part + 4 * j + 2 * half;
      float low = values[i] * factor, high = values[i + 1] * factor;
      if constexpr (Accumulate) {
        low += __uint_as_float(word[j] << 16);
        high += __uint_as_float(word[j] & 0xffff0000U);
      }
      word[j] = pack_bfloat16(low, high);
    }
    transpose_quad(word, quad);
    if (valid) *at = make_uint4(word[0], word[1], word[2], word[3]);
  }
}

}  // namespace mor::cuda::sm90
