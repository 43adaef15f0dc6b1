// SPDX-License-Identifier: Apache-2.0
/// @file
/// The list of rows that take a recursion. A row's place in the key list of a deeper recursion depends on how many rows
/// of its slot come before it, so besides counting, warps tell one another where runs of one slot's rows begin.
#pragma once

#include "mor/backend/cuda/kernels/overlap.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/kernels/serving_lists.cuh"
#include "mor/backend/cuda/tuning/serving.hpp"
#include "mor/core/serving_tables.hpp"
#include "mor/core/types.hpp"
#include "mor/math/serving.hpp"

#include <cstdint>

namespace mor::cuda {

/// `host::detail::take_depth`, in every thread. `ready` is shared memory for two words a recursion.
__device__ __forceinline__ int take_depth(ServingTables const& tables, Row* ready) {
  auto const recursions = static_cast<int>(tables.shape.recursions), cells = static_cast<int>(tables.shape.cells());
  auto const threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x), lane = lane_number();
  Row* const passed_over = ready + recursions;
  for (int depth = thread; depth < recursions; depth += threads) {
    ready[depth] = 0;
    passed_over[depth] = tables.at(tables.passed_over(depth));
  }
  __syncthreads();
  for (int first = 0; first < cells; first += threads) {
    int const cell = first + thread;
    bool const waits = cell < cells && has_status(tables, cell, CellStatus::Ready);
    int const depth = waits ? tables.at(tables.depth(cell)) : -1;
    unsigned const same = __match_any_sync(kAllLanes, depth);
    if (waits && (same & lanes_below(lane)) == 0) atomicAdd(ready + depth, __popc(same));
  }
  __syncthreads();
  auto const taken = static_cast<int>(math::depth_of_launch(ready, passed_over, recursions));
  for (int depth = thread; depth < recursions; depth += threads) {
    tables.at(tables.passed_over(depth)) = math::count_passed_over(ready[depth], passed_over[depth], depth == taken);
  }
  return taken;
}

/// `host::detail::take_window`, in every thread. `ready` is shared memory for a bit of every slot.
__device__ __forceinline__ math::SlotWindow take_window(ServingTables const& tables, TickRule const& rule, int only, std::uint32_t* ready) {
  auto const slots = static_cast<int>(tables.shape.slots), cells = static_cast<int>(tables.shape.cells());
  auto const threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  if (rule.most_rows == 0) return {0, slots};
  Row const turn = tables.at(tables.turn());
  int prompt_rows = 0;
  for (int first = 0; first < cells; first += threads) {
    int const cell = first + thread;
    bool const waits = cell < cells && has_status(tables, cell, CellStatus::Ready) && (only < 0 || tables.at(tables.depth(cell)) == only);
    unsigned const lanes = __ballot_sync(kAllLanes, waits && cell < slots);
    if (lane_number() == 0 && cell < slots) ready[cell / kWarpSize] = lanes;
    prompt_rows += __syncthreads_count(waits && cell >= slots ? 1 : 0);
  }
  auto const window = math::window_of_launch(ready, slots, turn, rule.most_decoding(prompt_rows));
  if (thread == 0) tables.at(tables.turn()) = window.end(slots);
  return window;
}

/// Rows that a warp found, and what its neighbours need to know to tell where runs of one slot begin.
struct FoundRows {
  int count;
  int first_slot, last_slot;
  int last_start;  ///< the last row of these with another slot than the row before it in the same warp; -1: none
};

/// Rows before a place in the list: their number, the slot of the last one, and where its run of rows begins.
struct RowsBefore {
  int count = 0;
  int slot = -1;
  int run = 0;
};

/// What is before this warp's rows (with the run that its own first row belongs to), from what all warps of the block
/// found; `before` moves behind them all.
__device__ __forceinline__ RowsBefore place_rows(FoundRows const* found, RowsBefore& before) {
  int const lane = lane_number(), warp = warp_number();
  FoundRows const other = lane < block_warps() ? found[lane] : FoundRows{0, -1, -1, -1};
  unsigned const some = __ballot_sync(kAllLanes, other.count > 0);
  unsigned const earlier = some & lanes_below(lane);
  int const neighbour = __shfl_sync(kAllLanes, other.last_slot, earlier != 0 ? highest_lane(earlier) : 0);
  bool const starts = other.count > 0 && other.first_slot != (earlier != 0 ? neighbour : before.slot);
  unsigned const starting = __ballot_sync(kAllLanes, starts),
                 changing = __ballot_sync(kAllLanes, other.last_start >= 0);
  int const last_start = max(other.last_start, 0);
  auto const rows_before = [&](int of) {
    return before.count + __reduce_add_sync(kAllLanes, lane < of ? other.count : 0);
  };
  // The run that the last row of the warps of a mask belongs to, which has to be one of those where runs begin.
  auto const run_of = [&](unsigned warps) {
    int const last = highest_lane(warps);
    return rows_before(last) + __shfl_sync(kAllLanes, last_start, last);
  };
  RowsBefore own;
  own.count = rows_before(warp);
  unsigned const runs_before = (starting | changing) & lanes_below(warp);
  if ((starting >> warp & 1U) != 0) {
    own.run = own.count;
  } else {
    own.run = runs_before != 0 ? run_of(runs_before) : before.run;
  }
  RowsBefore after = before;
  after.count = rows_before(kWarpSize);
  if (some != 0) after.slot = __shfl_sync(kAllLanes, other.last_slot, highest_lane(some));
  if ((starting | changing) != 0) after.run = run_of(starting | changing);
  before = after;
  return own;
}

/// The Ready cells that a warp looks at in one round; all fields but `starts` and `rows` are a lane's own.
template <int Steps>
struct ReadyCells {
  unsigned rows[Steps];    ///< lanes whose cell is listed
  unsigned starts[Steps];  ///< of these, lanes with another slot than the row before in this warp
  int slot[Steps], position[Steps], depth[Steps];

  /// Looks at the cells from `first` on; `only` is the depth that is listed, negative for all, `window` has the slots whose own
  /// cells are.
  __device__ __forceinline__ FoundRows find(ServingTables const& tables, int first, int only, math::SlotWindow const& window) {
    auto const cells = static_cast<int>(tables.shape.cells()), slots = static_cast<int>(tables.shape.slots);
    bool ready[Steps];
#pragma unroll
    for (int k = 0; k < Steps; ++k) {  // all loads are in flight together
      int const cell = cell_of_step<Steps>(first, k);
      ready[k] = cell < cells;
      if (!ready[k]) continue;
      ready[k] = has_status(tables, cell, CellStatus::Ready);
      slot[k] = tables.at(tables.slot(cell));
      position[k] = tables.at(tables.position(cell));
      depth[k] = tables.at(tables.depth(cell));
    }
    FoundRows found{0, -1, -1, -1};
#pragma unroll
    for (int k = 0; k < Steps; ++k) {
      int const cell = cell_of_step<Steps>(first, k);
      bool const taken = cell >= slots || window.holds(cell, slots);
      bool const listed = ready[k] && taken && (only < 0 || depth[k] == only);
      rows[k] = __ballot_sync(kAllLanes, listed);
      unsigned const earlier = rows[k] & lanes_below(lane_number());
      int const own = listed ? slot[k] : -1;
      int const neighbour = __shfl_sync(kAllLanes, own, earlier != 0 ? highest_lane(earlier) : 0);
      bool const first_of_warp = earlier == 0 && found.count == 0;
      starts[k] =
          __ballot_sync(kAllLanes, listed && !first_of_warp && own != (earlier != 0 ? neighbour : found.last_slot));
      if (rows[k] == 0) continue;  // the same in all lanes
      if (found.count == 0) found.first_slot = __shfl_sync(kAllLanes, own, __ffs(static_cast<int>(rows[k])) - 1);
      found.last_slot = __shfl_sync(kAllLanes, own, highest_lane(rows[k]));
      if (starts[k] != 0) found.last_start = found.count + __popc(rows[k] & lanes_below(highest_lane(starts[k])));
      found.count += __popc(rows[k]);
    }
    return found;
  }
};

/// Writes row `at` of a recursion's lists; `rank` is its place among the neighbouring rows of its slot.
__device__ __forceinline__ void write_recursion_row(ServingTables const& tables, RowLists const& rows, int at, int cell,
                                                    int slot, int position, int depth, int rank) {
  rows.cells[at] = cell;
  rows.positions[at] = position;
  rows.depths[at] = depth;
  rows.begins[at] = static_cast<Row>(tables.list_begin(depth, slot));
  bool const dense = depth == 0 || tables.shape.dense_lists;
  rows.limits[at] = dense ? position + 1 : tables.at(tables.length(depth, slot)) + rank + 1;
  rows.base_begins[at] = static_cast<Row>(tables.list_begin(0, slot));
  rows.base_limits[at] = position + 1;
  rows.first_limits[at] = depth == 0 ? position + 1 : 0;
}

/// `host::start_recursion`. Dynamic shared memory has two words a recursion with `one_depth`, and behind them a bit of every slot
/// with `most_rows`.
template <class Arch, int Steps>
__global__ void __launch_bounds__(tuning::kServingThreads)
    start_recursion_kernel(ServingTables tables, TickRule rule, RowLists rows) {
  extern __shared__ Row ready[];
  __shared__ FoundRows found[2][kWarpSize];
  wait_for_earlier_kernels<Arch>();
  let_next_kernel_start<Arch>();
  int const only = rule.one_depth ? take_depth(tables, ready) : -1;
  auto* const ready_slots = reinterpret_cast<std::uint32_t*>(ready + (rule.one_depth ? 2 * tables.shape.recursions : 0));
  math::SlotWindow const window = take_window(tables, rule, only, ready_slots);
  auto const cells = static_cast<int>(tables.shape.cells());
  RowsBefore before;
  // Two halves take turns: a warp that writes one is past the barrier that all readers of its last contents reached.
  for (int first = 0, turn = 0; first < cells; first += static_cast<int>(blockDim.x) * Steps, turn ^= 1) {
    ReadyCells<Steps> mine;
    FoundRows const own = mine.find(tables, first, only, window);
    if (lane_number() == 0) found[turn][warp_number()] = own;
    __syncthreads();
    RowsBefore place = place_rows(found[turn], before);
#pragma unroll
    for (int k = 0; k < Steps; ++k) {
      unsigned const lower = lanes_below(lane_number()), self = 1U << lane_number();
      int const at = place.count + __popc(mine.rows[k] & lower);
      unsigned const begun = mine.starts[k] & (lower | self);
      int const run = begun != 0 ? place.count + __popc(mine.rows[k] & lanes_below(highest_lane(begun))) : place.run;
      if ((mine.rows[k] & self) != 0 && at < rows.room) {
        write_recursion_row(tables, rows, at, cell_of_step<Steps>(first, k), mine.slot[k], mine.position[k],
                            mine.depth[k], at - run);
      }
      if (mine.starts[k] != 0) {
        place.run = place.count + __popc(mine.rows[k] & lanes_below(highest_lane(mine.starts[k])));
      }
      place.count += __popc(mine.rows[k]);
    }
  }
  pad_lists(tables, rows, min(before.count, rows.room));
}

}  // namespace mor::cuda
