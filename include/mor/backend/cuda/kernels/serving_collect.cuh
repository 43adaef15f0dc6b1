// SPDX-License-Identifier: Apache-2.0
/// @file
/// The lists of finished rows and of rows that enter.
#pragma once

#include "mor/backend/cuda/kernels/overlap.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/kernels/serving_lists.cuh"
#include "mor/backend/cuda/tuning/serving.hpp"
#include "mor/core/sampling.hpp"
#include "mor/core/serving_tables.hpp"
#include "mor/core/types.hpp"
#include "mor/math/serving.hpp"

namespace mor::cuda {

/// `host::collect_finished`: all rows that have room, up to the first that would make a token where no room is left for
/// it. By a block. @param report  words that all threads see
template <int Steps>
__device__ __forceinline__ void collect_finished_rows(ServingTables const& tables, TickRule const& rule, Row const* report,
                                                      RowLists const& rows, SampledLists const& sampled) {
  __shared__ int2 found[2][kWarpSize];
  __shared__ int listed_rows, drawn_rows;
  auto const cells = static_cast<int>(tables.shape.cells());
  int const lane = lane_number();
  bool const finishes =
      !rule.waits_to_finish() || rule.finishes(report[ServingReport::ReadyRows], report[ServingReport::WaitingRows]);
  if (threadIdx.x == 0) listed_rows = 0, drawn_rows = 0;
  int2 before{0, 0};  // rows, and rows that make a token
  int listed_here = 0, drawn_here = 0;
  for (int first = 0, turn = 0; finishes && first < cells; first += static_cast<int>(blockDim.x) * Steps, turn ^= 1) {
    unsigned finished[Steps], drawn[Steps];
    int slot[Steps], position[Steps], depth[Steps];
    bool qualifies[Steps], samples[Steps];
#pragma unroll
    for (int k = 0; k < Steps; ++k) {
      int const cell = cell_of_step<Steps>(first, k);
      qualifies[k] = samples[k] = false;
      if (cell >= cells) continue;
      qualifies[k] = has_status(tables, cell, CellStatus::Finished);
      slot[k] = tables.at(tables.slot(cell));
      position[k] = tables.at(tables.position(cell));
      depth[k] = tables.at(tables.depth(cell));
      samples[k] = tables.at(tables.samples(cell)) != 0;
    }
    int2 own{0, 0};
#pragma unroll
    for (int k = 0; k < Steps; ++k) {
      qualifies[k] = qualifies[k] && tables.at(tables.pending(slot[k])) <= 0;
      finished[k] = __ballot_sync(kAllLanes, qualifies[k]);
      drawn[k] = __ballot_sync(kAllLanes, qualifies[k] && samples[k]);
      own.x += __popc(finished[k]);
      own.y += __popc(drawn[k]);
    }
    if (lane == 0) found[turn][warp_number()] = own;
    __syncthreads();
    int2 const other = lane < block_warps() ? found[turn][lane] : int2{0, 0};
    bool const earlier = lane < warp_number();
    int2 place{before.x + __reduce_add_sync(kAllLanes, earlier ? other.x : 0),
               before.y + __reduce_add_sync(kAllLanes, earlier ? other.y : 0)};
    before.x += __reduce_add_sync(kAllLanes, other.x);
    before.y += __reduce_add_sync(kAllLanes, other.y);
#pragma unroll
    for (int k = 0; k < Steps; ++k) {
      unsigned const lower = lanes_below(lane);
      int const at = place.x + __popc(finished[k] & lower), drawn_before = place.y + __popc(drawn[k] & lower);
      bool const makes = qualifies[k] && samples[k];
      bool const listed = qualifies[k] && at < rows.room && drawn_before + (makes ? 1 : 0) <= sampled.room;
      if (listed) {
        int const cell = cell_of_step<Steps>(first, k);
        rows.cells[at] = cell;
        rows.positions[at] = position[k];
        rows.depths[at] = depth[k];
        rows.begins[at] = static_cast<Row>(tables.list_begin(0, slot[k]));
        rows.limits[at] = position[k] + 1;
        if (makes) {
          sampled.cells[drawn_before] = cell;
          sampled.sources[drawn_before] = at;
          sampled.rules[drawn_before] = math::rule_from_words(&tables.at(tables.rule(slot[k])), position[k],
                                                              static_cast<Row>(Index{slot[k]} * tables.shape.context));
        }
        tables.at(tables.status(cell)) = static_cast<Row>(CellStatus::Idle);
      }
      listed_here += __popc(__ballot_sync(kAllLanes, listed));
      drawn_here += __popc(__ballot_sync(kAllLanes, listed && makes));
      place.x += __popc(finished[k]);
      place.y += __popc(drawn[k]);
    }
  }
  if (lane == 0 && listed_here > 0) {  // integers: the order does not matter
    atomicAdd(&listed_rows, listed_here);
    atomicAdd(&drawn_rows, drawn_here);
  }
  __syncthreads();
  pad_lists(tables, rows, listed_rows);
  for (int i = drawn_rows + static_cast<int>(threadIdx.x); i < sampled.room; i += static_cast<int>(blockDim.x)) {
    SamplingRule likeliest;
    likeliest.temperature = 0.0F;
    sampled.cells[i] = static_cast<Row>(cells) + i;
    sampled.sources[i] = 0;
    sampled.rules[i] = likeliest;
  }
  if (threadIdx.x == 0) sampled.count[0] = drawn_rows;
}

template <class Arch, int Steps>
__global__ void __launch_bounds__(tuning::kServingThreads)
    collect_finished_kernel(ServingTables tables, TickRule rule, Row const* report, RowLists rows, SampledLists sampled) {
  wait_for_earlier_kernels<Arch>();
  let_next_kernel_start<Arch>();
  collect_finished_rows<Steps>(tables, rule, report, rows, sampled);
}

/// `host::collect_entering`, by a block. `entered` is the report's word.
template <int Steps>
__device__ __forceinline__ void collect_entering_rows(ServingTables const& tables, RowLists const& rows, Token* tokens, int tokens_room,
                                                      Row* entered) {
  __shared__ int found[2][kWarpSize];
  auto const cells = static_cast<int>(tables.shape.cells());
  int const lane = lane_number();
  int before = 0;
  for (int first = 0, turn = 0; first < cells; first += static_cast<int>(blockDim.x) * Steps, turn ^= 1) {
    unsigned entering[Steps];
    int slot[Steps], position[Steps];
    int own = 0;
#pragma unroll
    for (int k = 0; k < Steps; ++k) {
      int const i = cell_of_step<Steps>(first, k), cell = static_cast<int>(tables.shape.entering_cell(i));
      bool const here = i < cells && has_status(tables, cell, CellStatus::Entering);
      if (i < cells) {
        slot[k] = tables.at(tables.slot(cell));
        position[k] = tables.at(tables.position(cell));
      }
      entering[k] = __ballot_sync(kAllLanes, here);
      own += __popc(entering[k]);
    }
    if (lane == 0) found[turn][warp_number()] = own;
    __syncthreads();
    int const other = lane < block_warps() ? found[turn][lane] : 0;
    int place = before + __reduce_add_sync(kAllLanes, lane < warp_number() ? other : 0);
    before += __reduce_add_sync(kAllLanes, other);
#pragma unroll
    for (int k = 0; k < Steps; ++k) {
      int const at = place + __popc(entering[k] & lanes_below(lane));
      place += __popc(entering[k]);
      if ((entering[k] >> lane & 1U) == 0 || at >= rows.room) continue;
      int const cell = static_cast<int>(tables.shape.entering_cell(cell_of_step<Steps>(first, k)));
      rows.cells[at] = cell;
      rows.positions[at] = position[k];
      rows.begins[at] = static_cast<Row>(tables.list_begin(0, slot[k]));
      rows.limits[at] = position[k] + 1;
      rows.least[at] = tables.at(tables.least_depth(slot[k]));
      rows.most[at] = tables.at(tables.most_depth(slot[k]));
      tokens[at] = tables.at(tables.text() + Index{slot[k]} * tables.shape.context + position[k]);
      tables.at(tables.status(cell)) = static_cast<Row>(CellStatus::Ready);
      tables.at(tables.depth(cell)) = 0;
    }
  }
  int const count = min(before, rows.room);
  pad_lists(tables, rows, count);
  for (int i = count + static_cast<int>(threadIdx.x); i < tokens_room; i += static_cast<int>(blockDim.x)) tokens[i] = 0;
  if (threadIdx.x == 0) *entered = count;
}

template <class Arch, int Steps>
__global__ void __launch_bounds__(tuning::kServingThreads)
    collect_entering_kernel(ServingTables tables, RowLists rows, Token* tokens, int tokens_room, Row* entered) {
  wait_for_earlier_kernels<Arch>();
  let_next_kernel_start<Arch>();
  collect_entering_rows<Steps>(tables, rows, tokens, tokens_room, entered);
}

}  // namespace mor::cuda
