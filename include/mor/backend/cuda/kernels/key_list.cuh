// SPDX-License-Identifier: Apache-2.0
/// @file
/// Limits of a causal attention, keys written at their places, and rows counted.
#pragma once

#include "mor/backend/cuda/kernels/find_sequence.cuh"
#include "mor/backend/cuda/kernels/key_place.cuh"
#include "mor/backend/cuda/kernels/row_copy.cuh"
#include "mor/core/types.hpp"

namespace mor::cuda {

/// Lists that define limits; `rows` and `base` may be null.
struct LimitLists {
  Row const* set_offsets;  ///< [sequences + 1]
  int sequences;
  Row const* rows;
  Row const* batch_offsets;
  Row const* base;

  void note_to(auto& log) const { log.note(set_offsets, sequences, rows, batch_offsets, base); }
};

/// One row a thread.
template <int Threads>
__global__ void __launch_bounds__(Threads) causal_limits_kernel(LimitLists lists, Index count, Row* limits) {
  Index const at = Index{blockIdx.x} * Threads + static_cast<Index>(threadIdx.x);
  if (at >= count) return;
  int const sequence = find_sequence(lists.set_offsets, lists.sequences, at);
  if (sequence < 0) return;
  Row const before = lists.base == nullptr ? 0 : lists.base[sequence];
  Row const rank = lists.rows == nullptr ? static_cast<Row>(at) - lists.set_offsets[sequence]
                                         : lists.rows[at] - lists.batch_offsets[sequence];
  limits[at] = before + rank + 1;
}

/// Device pointers of a KeyList.
struct KeyPlaces {
  Row const* query_offsets;  ///< [sequences + 1]
  int sequences;
  Row const* key_begin;
  Row const* limits;
  KeyPages table;
  bool one_row_each = false;  ///< sequence s is row s

  void note_to(auto& log) const { log.note(query_offsets, sequences, key_begin, limits, table, one_row_each); }
};

/// The sequence of a row; -1: none.
[[nodiscard]] __device__ __forceinline__ int sequence_of_row(KeyPlaces const& places, Index row) {
  return places.one_row_each ? static_cast<int>(row) : find_sequence(places.query_offsets, places.sequences, row);
}

/// The storage row of key limits[row] - 1 of the row's list; -1 where its limit is 0.
[[nodiscard]] __device__ __forceinline__ Index place_of_row(KeyPlaces const& places, Index row) {
  int const sequence = sequence_of_row(places, row);
  Row const limit = sequence < 0 ? 0 : places.limits[row], begin = sequence < 0 ? 0 : places.key_begin[sequence];
  return limit > 0 ? key_place(places.table, begin, limit - 1) : -1;
}

/// storage[place of key limits[i] - 1] = x[i] for `Rows` rows a block; a row with limit 0 has no place.
template <class Unit, int Threads, int Rows>
__global__ void __launch_bounds__(Threads)
    write_keys_kernel(UnitRows<Unit const> x, Index count, unsigned units, KeyPlaces places, UnitRows<Unit> storage) {
  static_assert(Rows <= Threads);
  __shared__ RowOffsets<Rows> offsets;
  Index const first = Index{blockIdx.x} * Rows;
  unsigned const rows = static_cast<unsigned>(count - first < Rows ? count - first : Rows);
  if (threadIdx.x < rows) {
    Index const row = first + static_cast<Index>(threadIdx.x);
    Index const place = place_of_row(places, row);
    offsets.from[threadIdx.x] = row * x.stride;
    offsets.to[threadIdx.x] = place < 0 ? -1 : place * storage.stride;
  }
  __syncthreads();
  copy_row_tile<Threads>(x.data, storage.data, offsets, rows, units);
}

template <int Threads>
__global__ void __launch_bounds__(Threads) count_rows_kernel(Row const* rows, Index count, Row* counts) {
  Index const at = Index{blockIdx.x} * Threads + static_cast<Index>(threadIdx.x);
  if (at < count) atomicAdd(counts + rows[at], 1);  // integers: the order does not matter
}

}  // namespace mor::cuda
