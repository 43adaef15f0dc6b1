// SPDX-License-Identifier: Apache-2.0
/// @file
/// Changes of a serving engine's tables: edits of the host, a recursion's end, and new tokens.
#pragma once

#include "mor/backend/cuda/kernels/overlap.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/kernels/serving_lists.cuh"
#include "mor/backend/cuda/tuning/serving.hpp"
#include "mor/core/serving_tables.hpp"
#include "mor/core/types.hpp"
#include "mor/math/serving.hpp"

#include <limits>

namespace mor::cuda {

/// One edit a thread: no word comes twice.
template <class Arch, int Threads>
__global__ void __launch_bounds__(Threads) apply_edits_kernel(TableEdit const* edits, int count, ServingTables tables) {
  wait_for_earlier_kernels<Arch>();
  let_next_kernel_start<Arch>();
  int const at = static_cast<int>(blockIdx.x) * Threads + static_cast<int>(threadIdx.x);
  if (at >= count) return;
  TableEdit const edit = edits[at];
  tables.at(edit.word) = edit.value;
}

/// For the lists from `begin` on that `last` has room for: finds each one's last row.
__device__ __forceinline__ void note_last_row(int* last, int room, Index list, Index begin, int row) {
  if (list >= begin && list < begin + room) atomicMax(last + (list - begin), row);
}

/// Adds cells that are Ready, cells that the coda may take, and of these those that make a token.
__device__ __forceinline__ void count_states(ServingTables const& tables, int* counts) {
  int ready = 0, waiting = 0, samples = 0;
  for (int cell = static_cast<int>(threadIdx.x); cell < static_cast<int>(tables.shape.cells());
       cell += static_cast<int>(blockDim.x)) {
    Row const status = tables.at(tables.status(cell)), slot = tables.at(tables.slot(cell));
    bool const makes = tables.at(tables.samples(cell)) != 0;
    ready += status == static_cast<Row>(CellStatus::Ready) ? 1 : 0;
    if (status != static_cast<Row>(CellStatus::Finished) || tables.at(tables.pending(slot)) > 0) continue;
    ++waiting;
    samples += makes ? 1 : 0;
  }
  ready = __reduce_add_sync(kAllLanes, ready);
  waiting = __reduce_add_sync(kAllLanes, waiting);
  samples = __reduce_add_sync(kAllLanes, samples);
  if (lane_number() != 0) return;
  if (ready > 0) atomicAdd(counts, ready);
  if (waiting > 0) atomicAdd(counts + 1, waiting);
  if (samples > 0) atomicAdd(counts + 2, samples);
}

/// `host::finish_recursion`, by a block. Dynamic shared memory has a word for each of `room` lists, all of them or a part at a
/// time.
__device__ __forceinline__ void finish_rows(ServingTables const& tables, RowLists const& rows, float const* scores, Row* report, int room) {
  extern __shared__ int last[];
  __shared__ int counts[3];
  ServingShape const& shape = tables.shape;
  auto const threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  int const count = rows.count[0];
  auto const list_of = [&](int row, Row slot) { return Index{rows.depths[row]} * shape.slots + slot; };

  for (int list = thread; list < room; list += threads) last[list] = -1;
  if (thread < 3) counts[thread] = 0;
  __syncthreads();

  for (int i = thread; i < count; i += threads) {
    Row const cell = rows.cells[i], slot = tables.at(tables.slot(cell)), taken = rows.depths[i] + 1;
    bool const on =
        math::goes_on(taken, shape.recursions, tables.at(tables.least_depth(slot)), tables.at(tables.most_depth(slot)),
                      scores != nullptr ? scores[i] : std::numeric_limits<float>::infinity(),
                      math::word_float(tables.at(tables.threshold(slot))));
    tables.at(tables.depth(cell)) = taken;
    tables.at(tables.status(cell)) = static_cast<Row>(on ? CellStatus::Ready : CellStatus::Finished);
    // Integers: the order does not matter, here and below.
    if (!on && cell >= shape.slots) atomicSub(&tables.at(tables.pending(slot)), 1);
    note_last_row(last, room, list_of(i, slot), 0, i);
  }
  __syncthreads();
  count_states(tables, counts);

  // The last row of a list says how long it is now.
  Index const lists = shape.slots * shape.recursions;
  for (Index begin = 0; begin < lists; begin += room) {
    if (begin > 0) {
      __syncthreads();
      for (int list = thread; list < room; list += threads) last[list] = -1;
      __syncthreads();
      for (int i = thread; i < count; i += threads) {
        note_last_row(last, room, list_of(i, tables.at(tables.slot(rows.cells[i]))), begin, i);
      }
      __syncthreads();
    }
    for (int i = thread; i < count; i += threads) {
      Row const slot = tables.at(tables.slot(rows.cells[i]));
      Index const list = list_of(i, slot) - begin;
      if (list < 0 || list >= room || last[list] != i) continue;
      tables.at(tables.length(rows.depths[i], slot)) = rows.limits[i];
    }
  }

  __syncthreads();
  if (thread == 0) report[ServingReport::RecursionRows] = count;
  if (thread == 1) report[ServingReport::ReadyRows] = counts[0];
  if (thread == 2) report[ServingReport::WaitingRows] = counts[1];
  if (thread == 3) report[ServingReport::WaitingSamples] = counts[2];
  if (thread == 4) report[ServingReport::FinishedRows] = 0;
  if (thread == 5) report[ServingReport::SampledRows] = 0;
  if (thread == 6) report[ServingReport::EnteredRows] = 0;
}

template <class Arch, int Threads>
__global__ void __launch_bounds__(Threads)
    finish_recursion_kernel(ServingTables tables, RowLists rows, float const* scores, Row* report, int room) {
  wait_for_earlier_kernels<Arch>();
  let_next_kernel_start<Arch>();
  finish_rows(tables, rows, scores, report, room);
}

/// `host::commit_samples`, by a block. A slot has at most one row that makes a token.
__device__ __forceinline__ void commit_rows(ServingTables const& tables, RowLists const& rows, SampledLists const& sampled,
                                            Token const* tokens, float const* log_probabilities, ServingReport const& report, Row* words) {
  auto const threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  int const finished = rows.count[0], drawn = sampled.count[0];
  for (int i = thread; i < finished; i += threads) {
    words[report.finished(i)] = rows.cells[i];
    words[report.finished(i) + 1] = rows.depths[i];
  }
  for (int i = thread; i < drawn; i += threads) {
    Row const cell = sampled.cells[i], slot = tables.at(tables.slot(cell));
    Row const position = tables.at(tables.position(cell)) + 1;
    Token const token = tokens[i];
    bool const ends =
        token < 0 || token == tables.at(tables.end_token(slot)) || position >= tables.at(tables.last_position(slot));
    tables.at(tables.text() + Index{slot} * tables.shape.context + position) = token;
    if (!ends) {
      tables.at(tables.status(slot)) = static_cast<Row>(CellStatus::Entering);
      tables.at(tables.slot(slot)) = slot;
      tables.at(tables.position(slot)) = position;
      tables.at(tables.samples(slot)) = 1;
    }
    words[report.sampled(i)] = slot;
    words[report.sampled(i) + 1] = token;
    words[report.sampled(i) + 2] = math::float_word(log_probabilities[i]);
    words[report.sampled(i) + 3] = ends ? 1 : 0;
  }
  if (thread == 0) {
    words[ServingReport::FinishedRows] = finished;
    words[ServingReport::SampledRows] = drawn;
  }
}

template <class Arch, int Threads>
__global__ void __launch_bounds__(Threads)
    commit_samples_kernel(ServingTables tables, RowLists rows, SampledLists sampled, Token const* tokens,
                          float const* log_probabilities, ServingReport report, Row* words) {
  wait_for_earlier_kernels<Arch>();
  let_next_kernel_start<Arch>();
  commit_rows(tables, rows, sampled, tokens, log_probabilities, report, words);
}

}  // namespace mor::cuda
