// SPDX-License-Identifier: Apache-2.0
/// @file
/// One pass of a stable radix sort of rows by token: each block counts the digits of its tile, then puts the tile's
/// items at their places. Two launches a pass; the order of equal digits is kept, so the result is the one stable
/// order.
#pragma once

#include "mor/backend/cuda/kernels/radix_digits.cuh"
#include "mor/core/types.hpp"

namespace mor::cuda {

[[nodiscard]] __device__ __forceinline__ int token_digit(Token token, int shift) {
  return static_cast<int>(static_cast<unsigned>(token) >> shift & (kDigits - 1U));
}

/// counts[block * kDigits + d] = items of the block's tile with digit d.
template <int Items>
__global__ void __launch_bounds__(kDigits)
    count_token_digits_kernel(Token const* tokens, int count, int shift, int* counts) {
  __shared__ int histogram[kDigits];
  int const thread = static_cast<int>(threadIdx.x);
  int const first = static_cast<int>(blockIdx.x) * (kDigits * Items);
  histogram[thread] = 0;
  __syncthreads();
#pragma unroll
  for (int j = 0; j < Items; ++j) {
    int const at = first + place_in_tile<Items>(j);
    if (at < count) atomicAdd(&histogram[token_digit(tokens[at], shift)], 1);
  }
  __syncthreads();
  counts[blockIdx.x * kDigits + threadIdx.x] = histogram[thread];
}

/// Where this block's items with digit `threadIdx.x` begin in the output: after all smaller digits, and after the same
/// digit of earlier blocks. `warp_totals` has room for one sum a warp.
__device__ __forceinline__ int digit_begin(int const* counts, int* warp_totals) {
  int const thread = static_cast<int>(threadIdx.x), lane = thread % kWarpSize, warp = thread / kWarpSize;
  int before = 0, total = 0;
#pragma unroll 8
  for (unsigned block = 0; block < gridDim.x; ++block) {
    int const some = counts[block * kDigits + threadIdx.x];
    total += some;
    before += block < blockIdx.x ? some : 0;
  }
  int const through = sum_through_lane(total);
  if (lane == kWarpSize - 1) warp_totals[warp] = through;
  __syncthreads();
  int smaller = through - total;
  for (int w = 0; w < warp; ++w) smaller += warp_totals[w];
  return smaller + before;
}

/// Puts every item of the block's tile at its place. `rows_in` may be null: then row i belongs to token i.
template <int Items>
__global__ void __launch_bounds__(kDigits)
    place_tokens_kernel(Token const* tokens_in, Row const* rows_in, int count, int shift, int const* counts,
                        Token* tokens_out, Row* rows_out) {
  constexpr int warps = kDigits / kWarpSize;
  __shared__ int places[warps][kDigits];  // items of a digit: first how many a warp has, then where its first one goes
  __shared__ int warp_totals[warps];
  int const thread = static_cast<int>(threadIdx.x), lane = thread % kWarpSize, warp = thread / kWarpSize;
  int const first = static_cast<int>(blockIdx.x) * (kDigits * Items);
#pragma unroll
  for (int w = 0; w < warps; ++w) places[w][thread] = 0;
  __syncthreads();

  Token token[Items];
  int rank[Items];  // among the warp's items with the same digit
#pragma unroll
  for (int j = 0; j < Items; ++j) {
    int const at = first + place_in_tile<Items>(j);
    bool const exists = at < count;
    token[j] = exists ? tokens_in[at] : 0;
    int const digit = token_digit(token[j], shift);
    unsigned const same = __match_any_sync(kAllLanes, exists ? digit : kDigits);
    rank[j] = places[warp][digit] + __popc(same & ((1U << lane) - 1U));
    __syncwarp();
    if (exists && lane == __ffs(static_cast<int>(same)) - 1) places[warp][digit] += __popc(same);
    __syncwarp();
  }
  int begin = digit_begin(counts, warp_totals);  // its barrier also ends the counting above
#pragma unroll
  for (int w = 0; w < warps; ++w) {
    int const some = places[w][thread];
    places[w][thread] = begin;
    begin += some;
  }
  __syncthreads();
#pragma unroll
  for (int j = 0; j < Items; ++j) {
    int const at = first + place_in_tile<Items>(j);
    if (at >= count) continue;
    int const to = places[warp][token_digit(token[j], shift)] + rank[j];
    tokens_out[to] = token[j];
    rows_out[to] = rows_in == nullptr ? at : rows_in[at];
  }
}

}  // namespace mor::cuda
