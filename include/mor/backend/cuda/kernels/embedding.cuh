// SPDX-License-Identifier: Apache-2.0
/// @file
/// Embedding and its gradient. The gradient reads rows in the order of their tokens: a block sums a chunk of them, adds
/// to the table what begins and ends within the chunk, and leaves the sums of tokens that reach over its borders to a
/// second kernel. Work is even however often a token occurs, and every sum has one fixed order.
#pragma once

#include "mor/backend/cuda/kernels/elementwise.cuh"
#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/kernels/row_copy.cuh"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

namespace mor::cuda {

/// out[i] = table[tokens[i]] for `Rows` rows a block.
template <class Unit, int Threads, int Rows>
__global__ void __launch_bounds__(Threads)
    embed_kernel(Token const* tokens, Index count, unsigned units, UnitRows<Unit const> table, UnitRows<Unit> out) {
  static_assert(Rows <= Threads);
  __shared__ RowOffsets<Rows> offsets;
  Index const first = Index{blockIdx.x} * Rows;
  unsigned const rows = static_cast<unsigned>(count - first < Rows ? count - first : Rows);
  if (threadIdx.x < rows) {
    Index const row = first + static_cast<Index>(threadIdx.x);
    offsets.from[threadIdx.x] = tokens[row] * table.stride;
    offsets.to[threadIdx.x] = row * out.stride;
  }
  __syncthreads();
  copy_row_tile<Threads>(table.data, out.data, offsets, rows, units);
}

/// Rows sorted by their tokens, equal tokens in the order of their rows.
struct SortedTokens {
  Token const* tokens;
  Row const* rows;
  int count;

  void note_to(auto& log) const { log.note(tokens, rows, count); }
};

/// What to do with the sum after a row: go on, add it to the table, or keep it because the token's rows began in an
/// earlier chunk (Head) or go on in the next one (Tail).
enum class ChunkSum : int { Open, Table, Head, Tail };

inline constexpr int kRowsInFlight = 4;  ///< rows whose loads are issued together

/// partial[2 * chunk] holds the Head of a chunk and partial[2 * chunk + 1] its Tail. A thread has `Width` columns.
template <class T, int Width, int Threads, int Chunk>
__global__ void __launch_bounds__(Threads)
    sum_chunks_kernel(SortedTokens sorted, View<T const> d_out, float* partial, View<float> d_table) {
  static_assert(Chunk <= Threads);
  __shared__ Row rows[Chunk];
  __shared__ Token tokens[Chunk];
  __shared__ ChunkSum after[Chunk];
  int const thread = static_cast<int>(threadIdx.x);
  int const first = static_cast<int>(blockIdx.x) * Chunk, size = min(Chunk, sorted.count - first);
  if (thread < size) {
    int const at = first + thread;
    Token const token = sorted.tokens[at];
    bool const ends = at + 1 == sorted.count || sorted.tokens[at + 1] != token;
    bool const began_before = first > 0 && sorted.tokens[first - 1] == token;
    rows[thread] = sorted.rows[at];
    tokens[thread] = token;
    after[thread] = !ends && thread + 1 < size ? ChunkSum::Open
                    : began_before             ? ChunkSum::Head
                    : ends                     ? ChunkSum::Table
                                               : ChunkSum::Tail;
  }
  __syncthreads();
  Index const column = (Index{blockIdx.y} * Threads + thread) * Width;
  if (column >= d_out.cols) return;
  float* const head = partial + Index{blockIdx.x} * 2 * d_out.cols + column;

  float sum[Width] = {};
  for (int p = 0; p < size; p += kRowsInFlight) {
    RawPack<T, Width> x[kRowsInFlight];
    RawPack<float, Width> old[kRowsInFlight];
#pragma unroll
    for (int k = 0; k < kRowsInFlight; ++k) {
      if (p + k >= size) continue;
      x[k] = load_once<Width>(d_out.row(rows[p + k]) + column);
      if (after[p + k] == ChunkSum::Table) {
        old[k] = load_once<Width>(static_cast<float const*>(d_table.row(tokens[p + k]) + column));
      }
    }
#pragma unroll
    for (int k = 0; k < kRowsInFlight; ++k) {
      if (p + k >= size) continue;
      auto const value = widen(x[k]);
#pragma unroll
      for (int j = 0; j < Width; ++j) sum[j] += value.value[j];
      ChunkSum const then = after[p + k];
      if (then == ChunkSum::Open) continue;
      float* to = then == ChunkSum::Tail ? head + d_out.cols : head;
      if (then == ChunkSum::Table) {
        to = d_table.row(tokens[p + k]) + column;
        auto const before = widen(old[k]);
#pragma unroll
        for (int j = 0; j < Width; ++j) sum[j] += before.value[j];
      }
      store_lanes<Width>(to, sum);
#pragma unroll
      for (int j = 0; j < Width; ++j) sum[j] = 0.0F;
    }
  }
}

/// Block c adds the sum of the token whose rows begin in chunk c and go on after it: the chunk's Tail, then the Heads
/// of the chunks that the token's rows reach.
template <int Width, int Threads, int Chunk>
__global__ void __launch_bounds__(Threads)
    join_chunks_kernel(SortedTokens sorted, float const* partial, View<float> d_table) {
  int const chunk = static_cast<int>(blockIdx.x), first = chunk * Chunk, next = first + Chunk;
  if (next >= sorted.count) return;
  Token const token = sorted.tokens[next - 1];
  if (sorted.tokens[next] != token) return;
  if (first > 0 && sorted.tokens[first - 1] == token) return;  // began in an earlier chunk
  Index const cols = d_table.cols;
  Index const column = (Index{blockIdx.y} * Threads + static_cast<Index>(threadIdx.x)) * Width;
  if (column >= cols) return;
  int low = chunk + 2, high = static_cast<int>(gridDim.x);  // the first chunk that does not begin with this token
  while (low < high) {
    int const middle = (low + high) / 2;
    if (sorted.tokens[middle * Chunk] == token) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  partial += column;
  Lanes<float, Width> sum = load_lanes<Width>(partial + (2 * Index{chunk} + 1) * cols);
  for (int k = chunk + 1; k < low; k += kRowsInFlight) {
    Lanes<float, Width> head[kRowsInFlight];
#pragma unroll
    for (int n = 0; n < kRowsInFlight; ++n) {
      if (k + n < low) head[n] = load_lanes<Width>(partial + 2 * Index{k + n} * cols);
    }
#pragma unroll
    for (int n = 0; n < kRowsInFlight; ++n) {
      if (k + n >= low) continue;
#pragma unroll
      for (int j = 0; j < Width; ++j) sum.value[j] += head[n].value[j];
    }
  }
  float* const to = d_table.row(token) + column;
  Lanes<float, Width> const old = load_lanes<Width>(static_cast<float const*>(to));
#pragma unroll
  for (int j = 0; j < Width; ++j) sum.value[j] += old.value[j];
  store_lanes<Width>(to, sum.value);
}

}  // namespace mor::cuda
