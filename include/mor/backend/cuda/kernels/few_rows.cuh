// SPDX-License-Identifier: Apache-2.0
/// @file
/// Products of few rows with a matrix of weights on tensor cores: decoding. The bytes of the weights are the floor, so all
/// that a block can hold is on its way before it waits for the kernel that makes x; the weights are the 16 rows of an mma
/// and x its 8 columns. A warp has one part of the columns of a tile; the parts' sums meet in shared memory, of a cluster
/// where its blocks share the columns.
///
/// A row of the result has the same bits in any batch: parts and the order of every sum follow from the weights' shape
/// (tuning/few_rows.hpp). With a norm, x is multiplied with the norm's weights as it is read, and the sums with
/// 1 / sqrt(mean square + eps) at the end.
#pragma once

#include "mor/backend/cuda/kernels/few_rows_input.cuh"
#include "mor/backend/cuda/kernels/few_rows_problem.cuh"
#include "mor/backend/cuda/kernels/few_rows_team.cuh"
#include "mor/backend/cuda/kernels/few_rows_weights.cuh"
#include "mor/backend/cuda/kernels/mma.cuh"
#include "mor/backend/cuda/kernels/overlap.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/tuning/few_rows.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <cstdint>

namespace mor::cuda {

/// Sums of a warp's tile over its part of the columns; of up to `Batch` chunks everything is read before it is used.
template <int RowTiles, int Batch, class Weights>
__device__ __forceinline__ void few_rows_multiply(Weights& weights, unsigned char const* const (&rows)[RowTiles],
                                                  int first_chunk, float (&sums)[RowTiles][4]) {
  int const end = weights.end();
#pragma unroll 1
  for (int chunk = weights.begin(); chunk < end; chunk += Batch) {
    weights.template wait<Batch>();
    uint4 low[Batch], high[Batch], x[Batch][RowTiles];
#pragma unroll
    for (int b = 0; b < Batch; ++b) {
      low[b] = high[b] = make_uint4(0U, 0U, 0U, 0U);
#pragma unroll
      for (int j = 0; j < RowTiles; ++j) x[b][j] = make_uint4(0U, 0U, 0U, 0U);
      if (b > 0 && chunk + b >= end) continue;
      weights.read(low[b], high[b]);
#pragma unroll
      for (int j = 0; j < RowTiles; ++j) {
        x[b][j] = *reinterpret_cast<uint4 const*>(rows[j] + (chunk + b - first_chunk) * 2 * tuning::FewRows::chunk);
      }
    }
#pragma unroll
    for (int b = 0; b < Batch; ++b) {
      if (b > 0 && chunk + b >= end) continue;
      std::uint32_t const first[4] = {low[b].x, high[b].x, low[b].y, high[b].y};
      std::uint32_t const second[4] = {low[b].z, high[b].z, low[b].w, high[b].w};
#pragma unroll
      for (int j = 0; j < RowTiles; ++j) sm80::multiply_add(sums[j], first, x[b][j].x, x[b][j].y);
#pragma unroll
      for (int j = 0; j < RowTiles; ++j) sm80::multiply_add(sums[j], second, x[b][j].z, x[b][j].w);
    }
#pragma unroll 1
    for (int b = min(Batch, end - chunk); b > 0; --b) weights.copy_next();
  }
}

/// One fragment of results: this thread's rows of the weights, and its two rows of x with what they need.
template <FewRowsResult Result>
struct FewRowsFragment {
  using Problem = FewRowsProblem<bfloat16>;
  int low, high;
  bool has_low, has_high;
  double frequency;
  FewRowsFacts<Result, bfloat16> facts[2];

  __device__ __forceinline__ void find_weights(Problem const& problem, FewRowsTiles const& tiles, int tile, int row) {
    int pair;
    low = tiles.first<Result>(tile, pair) + row;
    high = low + tiles.gap;
    has_low = low < tiles.limit;
    has_high = has_low && high < tiles.rows;
    if constexpr (Result == FewRowsResult::Keys) frequency = problem.angles.of_pair(pair + row);
  }
  /// @param row  of the block's `rows` rows of x, which begin at `first_row`; the other is the next
  __device__ __forceinline__ void request(Problem const& problem, Index first_row, int rows, int row) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      if (row + e < rows) facts[e].request(problem, first_row + row + e, low, has_low, high, has_high);
    }
  }
  __device__ __forceinline__ void resolve(Problem const& problem, int rows, int row) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      if (row + e < rows) facts[e].resolve(problem, frequency);
    }
  }
  __device__ __forceinline__ void write(Problem const& problem, Index first_row, int rows, int row, float4 total,
                                        float2 factor) const {
    if (!has_low) return;
    if (row < rows) facts[0].write(problem, first_row + row, low, high, has_high, total.x * factor.x, total.z * factor.x);
    if (row + 1 < rows) {
      facts[1].write(problem, first_row + row + 1, low, high, has_high, total.y * factor.y, total.w * factor.y);
    }
  }
};

/// Grid: x over clusters of blocks, y over blocks of 8 RowTiles rows of x. With a residual or keys there are at least
/// RowTiles parts: a warp finishes at most one fragment of a group, whose facts it has asked for before it multiplies.
template <class Arch, FewRowsResult Result, int RowTiles>
__global__ void __launch_bounds__(tuning::few_rows_bound(RowTiles, Result == FewRowsResult::Residual), 2)
    few_rows_kernel(__grid_constant__ View<bfloat16 const> const x, __grid_constant__ View<bfloat16 const> const weights,
                    __grid_constant__ FewRowsProblem<bfloat16> const problem, __grid_constant__ FewRowsTiles const tiles,
                    __grid_constant__ tuning::FewRowsPlan const plan) {
  constexpr int batch = RowTiles == 1 ? 2 : 1;
  let_next_kernel_start<Arch>();  // first of all: it takes about as long to start as this one to get its data
  extern __shared__ __align__(128) unsigned char few_rows_shared[];
  auto const place = FewRowsPlace::find(plan);
  FewRowsTeam<(Arch::capability >= 90 && RowTiles > 1)> const team(plan, place, few_rows_shared);
  team.open();
  int const group_tile = place.cluster << plan.tiles_shift;
  // The last round may be that of some clusters only.
  int const rounds = place.cluster + (plan.rounds - 1) * plan.clusters < plan.groups ? plan.rounds : plan.rounds - 1;
  FewRowsWeights<Result> own_weights(weights, tiles, plan, few_rows_shared + place.warp * plan.warp_bytes, place.part,
                                     group_tile + place.weight_tile, rounds, gridDim.y == 1);
  FewRowsInput const input(x, plan, place.rank, few_rows_shared + plan.rows_at);
  bool const normed = has_norm<Result>(problem);
  if (normed) input.prefetch(problem.norm);
  FewRowsFragment<Result> fragment;
  int const finished_tile = group_tile + (place.fragment & (plan.weight_tiles - 1));
  fragment.find_weights(problem, tiles, finished_tile, place.row);

  team.opened();
  wait_for_earlier_kernels<Arch>();
  Index const first_row = Index{blockIdx.y} * (8 * RowTiles);
  int const rows = static_cast<int>(min(fresh_rows(problem, x.rows) - first_row, Index{8 * RowTiles}));
  if (rows <= 0) {  // for every block of the cluster
    sm80::wait_for_copies();
    return;
  }
  unsigned char const* row_at[RowTiles];
#pragma unroll
  for (int j = 0; j < RowTiles; ++j) {  // rows that do not exist repeat the last one
    row_at[j] = few_rows_shared + plan.rows_at + min(8 * j + place.row, rows - 1) * plan.pitch + place.pair * 8;
  }
  int const first_chunk = place.rank * plan.chunks / plan.cluster;
  int const own_row = (place.fragment >> plan.tiles_shift) * 8 + place.pair;
  bool const finishes = place.warp < plan.share && own_row - place.pair < rows;
#pragma unroll 1
  for (int round = 0; round < rounds; ++round) {
    if (round > 0) {
      team.part();
      fragment.find_weights(problem, tiles, finished_tile + round * plan.tile_step, place.row);
    }
    team.expect(rows, normed && round == 0);
    if (finishes) fragment.request(problem, first_row, rows, own_row);
    if (round == 0) {
      if (normed) {
        input.copy_weighted(problem.norm, first_row, rows, team);
      } else {
        input.copy(first_row, rows);
      }
      __syncthreads();
    }
    float sums[RowTiles][4] = {};
    few_rows_multiply<RowTiles, batch>(own_weights, row_at, first_chunk, sums);
    team.give(sums, rows);
    if (finishes) fragment.resolve(problem, rows, own_row);  // its reads wait for memory while sums come
    team.meet(round, finishes);
#pragma unroll 1
    for (int slot = place.warp; slot < plan.share; slot += plan.warps()) {
      int const row_tile = ((place.rank << plan.share_shift) + slot) >> plan.tiles_shift;
      if (8 * row_tile >= rows) break;
      float2 factor = make_float2(problem.scale, problem.scale);
      if (normed) {
        float2 const squares = team.total_squares(row_tile);
        auto const cols = static_cast<float>(x.cols);
        factor.x *= rsqrtf(__fdividef(squares.x, cols) + problem.eps);
        factor.y *= rsqrtf(__fdividef(squares.y, cols) + problem.eps);
      }
      fragment.write(problem, first_row, rows, row_tile * 8 + place.pair, team.total(slot, row_tile), factor);
    }
  }
}

}  // namespace mor::cuda
