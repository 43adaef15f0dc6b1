// SPDX-License-Identifier: Apache-2.0
/// @file
/// A block's columns of the rows of x in shared memory, multiplied with the norm's weights where there is a norm; then also
/// the sums of squares of each row, in `FewRows::most_parts` parts whose order of summation is the shape's alone.
#pragma once

#include "mor/backend/cuda/kernels/few_rows_problem.cuh"
#include "mor/backend/cuda/kernels/mma.cuh"
#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/tuning/few_rows.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <cuda_bf16.h>

#include <cstdint>

namespace mor::cuda {

/// Products of pairs of bf16, each rounded once.
[[nodiscard]] __device__ __forceinline__ std::uint32_t multiply_pairs(std::uint32_t a, std::uint32_t b) {
  __nv_bfloat162 const product =
      __hmul2(*reinterpret_cast<__nv_bfloat162 const*>(&a), *reinterpret_cast<__nv_bfloat162 const*>(&b));
  return *reinterpret_cast<std::uint32_t const*>(&product);
}

/// Eight lanes share a row's elements of one part, 8 elements (a unit) at a time.
class FewRowsInput {
 public:
  __device__ __forceinline__ FewRowsInput(View<bfloat16 const> const& x, tuning::FewRowsPlan const& plan, int rank,
                                          unsigned char* rows)
      : x_(x), plan_(plan), to_(rows) {
    using tuning::FewRows;
    int const group = static_cast<int>(threadIdx.x) / kLanes, block_shift = FewRows::most_shift - plan.cluster_shift;
    part_ = (rank << block_shift) + (group & ((1 << block_shift) - 1));
    first_row_ = group >> block_shift;
    row_step_ = plan.threads() / kLanes >> block_shift;
    constexpr int units = FewRows::chunk / kUnit;
    first_unit_ = (rank * plan.chunks >> plan.cluster_shift) * units;
    begin_ = (part_ * plan.chunks >> FewRows::most_shift) * units + static_cast<int>(threadIdx.x) % kLanes;
    end_ = ((part_ + 1) * plan.chunks >> FewRows::most_shift) * units;
    valid_ = static_cast<int>(x.cols) / kUnit;
  }

  /// Asks the second-level cache for the norm's weights.
  __device__ __forceinline__ void prefetch(bfloat16 const* norm) const {
    if (first_row_ != 0) return;
#pragma unroll 1
    for (int unit = begin_; unit < end_; unit += kLanes) {
      if (unit < valid_) {
        asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(norm + unit * kUnit)));
      }
    }
  }

  /// Elements as they are; the block waits afterwards.
  __device__ __forceinline__ void copy(Index from_row, int rows) const {
#pragma unroll 1
    for (int row = first_row_; row < rows; row += row_step_) {
      bfloat16 const* const from = x_.row(from_row + row);
#pragma unroll 1
      for (int unit = begin_; unit < end_; unit += kLanes) {
        bool const inside = unit < valid_;
        sm80::copy_async<16>(sm80::shared_address(place(row, unit)), inside ? from + unit * kUnit : from, inside);
      }
    }
    sm80::wait_for_copies();
  }

  /// Elements times the norm's weights; `team.give_squares` gets the sums of squares of the elements.
  template <class Team>
  __device__ __forceinline__ void copy_weighted(bfloat16 const* norm, Index from_row, int rows, Team const& team) const {
#pragma unroll 1
    for (int base = 0; base < rows; base += kRows * row_step_) {  // the same for all lanes: they meet in the sums
      float sums[kRows] = {};
      bfloat16 const* const first_of_base = x_.row(from_row + base + first_row_);
      Index const step = row_step_ * x_.stride;
#pragma unroll 1
      for (int unit = begin_; unit < end_; unit += kUnits * kLanes) {
        uint4 factors[kUnits], values[kRows][kUnits];
#pragma unroll
        for (int u = 0; u < kUnits; ++u) {
          int const at = unit + u * kLanes;
          bool const inside = at < min(end_, valid_);
          factors[u] = inside ? *reinterpret_cast<uint4 const*>(norm + at * kUnit) : make_uint4(0U, 0U, 0U, 0U);
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            int const row = base + first_row_ + r * row_step_;
            values[r][u] = inside && row < rows
                               ? __ldcg(reinterpret_cast<uint4 const*>(first_of_base + r * step + at * kUnit))
                               : make_uint4(0U, 0U, 0U, 0U);
          }
        }
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          int const row = base + first_row_ + r * row_step_;
#pragma unroll
          for (int u = 0; u < kUnits; ++u) {
            int const at = unit + u * kLanes;
            add_squares(values[r][u], sums[r]);
            if (at < end_ && row < rows) {
              uint4 const value = values[r][u], factor = factors[u];
              *reinterpret_cast<uint4*>(place(row, at)) =
                  make_uint4(multiply_pairs(value.x, factor.x), multiply_pairs(value.y, factor.y),
                             multiply_pairs(value.z, factor.z), multiply_pairs(value.w, factor.w));
            }
          }
        }
      }
#pragma unroll
      for (int distance = kLanes / 2; distance > 0; distance /= 2) {
#pragma unroll
        for (float& sum : sums) sum += __shfl_xor_sync(kAllLanes, sum, distance);
      }
      // A lane a row: what is given goes on its way at once.
      int const lane = static_cast<int>(threadIdx.x) % kLanes, row = base + first_row_ + lane * row_step_;
      float own = sums[0];
#pragma unroll
      for (int r = 1; r < kRows; ++r) own = lane == r ? sums[r] : own;
      if (lane < kRows && row < rows) team.give_squares(part_, row, own);
    }
  }

 private:
  static constexpr int kLanes = 8, kUnit = 8, kRows = 4, kUnits = 2;

  [[nodiscard]] __device__ __forceinline__ unsigned char* place(int row, int unit) const {
    return to_ + row * plan_.pitch + (unit - first_unit_) * 16;
  }
  static __device__ __forceinline__ void add_squares(uint4 value, float& sum) {
    std::uint32_t const words[4] = {value.x, value.y, value.z, value.w};
#pragma unroll
    for (std::uint32_t const word : words) {
      float const low = __uint_as_float(word << 16), high = __uint_as_float(word & 0xffff0000U);
      sum = fmaf(low, low, sum);
      sum = fmaf(high, high, sum);
    }
  }

  View<bfloat16 const> const& x_;
  tuning::FewRowsPlan const& plan_;
  unsigned char* to_;
  int part_, first_row_, row_step_;
  int first_unit_, begin_, end_;  // units of a row
  int valid_;                     // of the whole row; behind are zeros
};

}  // namespace mor::cuda
