// SPDX-License-Identifier: Apache-2.0
/// @file
/// Lists of a serving engine's cells, in ascending order: one block looks at the states of all cells and writes those
/// that qualify, without gaps. Each warp has a run of neighbouring cells, 32 a step; one barrier tells it how many rows
/// the warps before it found.
#pragma once

#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/core/sampling.hpp"
#include "mor/core/serving_tables.hpp"
#include "mor/core/types.hpp"

namespace mor::cuda {

/// Device pointers of `ServingRows`, null where a stage does without, and the length of all lists.
struct RowLists {
  Row* cells;
  Row* positions;
  Row* depths;
  Row* begins;
  Row* limits;
  Row* base_begins;
  Row* base_limits;
  Row* first_limits;
  Row* least;
  Row* most;
  Row* count;
  int room;

  void note_to(auto& log) const { log.note(cells, positions, depths, begins, limits, base_begins, base_limits, first_limits, least, most, count, room); }
};

/// Device pointers of `SampledRows`.
struct SampledLists {
  Row* cells;
  Row* sources;
  SamplingRule* rules;
  Row* count;
  int room;

  void note_to(auto& log) const { log.note(cells, sources, rules, count, room); }
};

[[nodiscard]] __device__ __forceinline__ int lane_number() {
  return static_cast<int>(threadIdx.x) % kWarpSize;
}
[[nodiscard]] __device__ __forceinline__ int warp_number() {
  return static_cast<int>(threadIdx.x) / kWarpSize;
}
[[nodiscard]] __device__ __forceinline__ int block_warps() {
  return static_cast<int>(blockDim.x) / kWarpSize;
}
[[nodiscard]] __device__ __forceinline__ unsigned lanes_below(int lane) {
  return (1U << lane) - 1U;
}
/// The highest lane of a mask that has one.
[[nodiscard]] __device__ __forceinline__ int highest_lane(unsigned lanes) {
  return 31 - __clz(static_cast<int>(lanes));
}

/// The cell of this lane in a step of the round that begins at `first`.
template <int Steps>
[[nodiscard]] __device__ __forceinline__ int cell_of_step(int first, int step) {
  return first + (warp_number() * Steps + step) * kWarpSize + lane_number();
}
[[nodiscard]] __device__ __forceinline__ bool has_status(ServingTables const& tables, int cell, CellStatus status) {
  return tables.at(tables.status(cell)) == static_cast<Row>(status);
}

/// Writes the rows behind the real ones, as `host::detail::pad_rows`.
__device__ __forceinline__ void pad_lists(ServingTables const& tables, RowLists const& rows, int count) {
  auto const most = static_cast<Row>(tables.shape.recursions);
  auto const first_cell = static_cast<int>(tables.shape.cells());
  for (int i = count + static_cast<int>(threadIdx.x); i < rows.room; i += static_cast<int>(blockDim.x)) {
    rows.cells[i] = first_cell + i;
    if (rows.positions != nullptr) rows.positions[i] = 0;
    if (rows.depths != nullptr) rows.depths[i] = 0;
    if (rows.begins != nullptr) rows.begins[i] = 0;
    if (rows.limits != nullptr) rows.limits[i] = 0;
    if (rows.base_begins != nullptr) rows.base_begins[i] = 0;
    if (rows.base_limits != nullptr) rows.base_limits[i] = 0;
    if (rows.first_limits != nullptr) rows.first_limits[i] = 0;
    if (rows.least != nullptr) rows.least[i] = 1;
    if (rows.most != nullptr) rows.most[i] = most;
  }
  if (threadIdx.x == 0) rows.count[0] = count;
}

}  // namespace mor::cuda
