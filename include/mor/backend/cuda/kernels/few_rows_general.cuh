// SPDX-License-Identifier: Apache-2.0
/// @file
/// Products of few rows for any type, shape and alignment: a warp has one row of the weights (or a pair that belongs
/// together) and multiplies it with one row of x after another, in an order that the number of columns alone decides.
#pragma once

#include "mor/backend/cuda/kernels/few_rows_problem.cuh"
#include "mor/backend/cuda/kernels/overlap.cuh"
#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/tuning/few_rows.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

namespace mor::cuda {

/// Grid: x over tiles of one row or pair, y over blocks of rows of x.
template <class Arch, FewRowsResult Result, class T>
__global__ void __launch_bounds__(tuning::FewRows::general_threads)
    few_rows_general_kernel(View<T const> x, View<T const> weights, FewRowsProblem<T> problem, FewRowsTiles tiles,
                            int tile_count) {
  let_next_kernel_start<Arch>();
  constexpr int warps = tuning::FewRows::general_threads / kWarpSize;
  int const lane = static_cast<int>(threadIdx.x) % kWarpSize;
  int const tile = static_cast<int>(blockIdx.x) * warps + static_cast<int>(threadIdx.x) / kWarpSize;
  int pair;
  int const low = tiles.first<Result>(tile, pair), high = low + tiles.gap;
  bool const has_high = high < tiles.rows;
  double frequency = 0.0;
  if constexpr (Result == FewRowsResult::Keys) frequency = problem.angles.of_pair(pair);
  bool const normed = has_norm<Result>(problem);
  wait_for_earlier_kernels<Arch>();
  if (tile >= tile_count) return;
  T const* const low_weights = weights.row(low);
  T const* const high_weights = weights.row(has_high ? high : low);
  Index const begin = Index{blockIdx.y} * tuning::FewRows::general_rows;
  Index const end = min(fresh_rows(problem, x.rows), begin + tuning::FewRows::general_rows);
  for (Index row = begin; row < end; ++row) {
    FewRowsFacts<Result, T> facts;
    facts.request(problem, row, low, true, high, has_high);
    float first = 0.0F, second = 0.0F, squares = 0.0F;
    for (Index k = lane; k < x.cols; k += kWarpSize) {
      float value = load_fresh(x.row(row) + k);
      if (normed) {
        squares = fmaf(value, value, squares);
        value = static_cast<float>(narrow<T>(value * static_cast<float>(problem.norm[k])));
      }
      first = fmaf(value, static_cast<float>(low_weights[k]), first);
      second = fmaf(value, static_cast<float>(high_weights[k]), second);
    }
    first = warp_sum(first);
    second = warp_sum(second);
    squares = warp_sum(squares);
    if (lane != 0) continue;
    facts.resolve(problem, frequency);
    float factor = problem.scale;
    if (normed) factor *= rsqrtf(__fdividef(squares, static_cast<float>(x.cols)) + problem.eps);
    facts.write(problem, row, low, high, has_high, first * factor, second * factor);
  }
}

}  // namespace mor::cuda
