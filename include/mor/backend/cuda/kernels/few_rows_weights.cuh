// SPDX-License-Identifier: Apache-2.0
/// @file
/// A warp's weights on their way to shared memory. Each lane copies just the elements that it will hold as fragments of
/// the tensor cores, so it waits for its own copies only, and reads them without conflicts.
///
/// The sum of a product does not mind in which order its columns come: of 32 columns, lane t of a row's four takes columns
/// 8t to 8t + 7 for two products of 16, in the weights and in x alike.
#pragma once

#include "mor/backend/cuda/kernels/few_rows_problem.cuh"
#include "mor/backend/cuda/kernels/mma.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/tuning/few_rows.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <cstdint>

namespace mor::cuda {

/// How long the second-level cache should keep data: weights that no other block reads go first.
[[nodiscard]] __device__ __forceinline__ std::uint64_t cache_policy(bool read_once) {
  std::uint64_t policy;
  if (read_once) {
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  } else {
    asm volatile("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
  }
  return policy;
}

/// `sm80::copy_async<16>` with a policy.
__device__ __forceinline__ void copy_async_with(std::uint64_t policy, std::uint32_t to, void const* from, bool valid) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint.L2::128B [%0], [%1], 16, %2, %3;" ::"r"(to),
               "l"(__cvta_generic_to_global(from)), "r"(valid ? 16 : 0), "l"(policy)
               : "memory");
}

/// The chunks of one warp: those of its part of the columns, of one tile after another.
template <FewRowsResult Result>
class FewRowsWeights {
 public:
  /// @param tile  the warp's first; then every `tile_step`-th, `rounds` in all
  __device__ __forceinline__ FewRowsWeights(View<bfloat16 const> const& weights, FewRowsTiles const& tiles,
                                            tuning::FewRowsPlan const& plan, unsigned char* room, int part, int tile,
                                            int rounds, bool read_once)
      : weights_(weights), tiles_(tiles), plan_(plan), policy_(cache_policy(read_once)), tile_(tile),
        own_(sm80::shared_address(room) + threadIdx.x % kWarpSize * 16U) {
    begin_ = (part * plan.chunks) >> plan.parts_shift;
    end_ = ((part + 1) * plan.chunks) >> plan.parts_shift;
    column_ = begin_ * tuning::FewRows::chunk;
    left_ = (end_ - begin_) * rounds;
    find_tile();
#pragma unroll 1
    for (int i = plan.depth; i > 0; --i) copy_next();
  }

  [[nodiscard]] __device__ __forceinline__ int begin() const { return begin_; }
  [[nodiscard]] __device__ __forceinline__ int end() const { return end_; }

  /// Waits for the next `Chunks` chunks.
  template <int Chunks>
  __device__ __forceinline__ void wait() const {
    // A group of copies a chunk; `depth` groups and one for each chunk used were closed before.
    if (plan_.depth == tuning::FewRows::deep) {
      sm80::wait_for_copy_groups<tuning::FewRows::deep - Chunks>();
    } else {
      sm80::wait_for_copy_groups<tuning::FewRows::shallow - Chunks>();
    }
  }
  /// The lane's columns of rows `row` and `row + gap` of the next chunk; its room takes one that is to come.
  __device__ __forceinline__ void read(uint4& low, uint4& high) {
    low = sm80::load_shared(own_ + used_);
    high = plan_.half ? make_uint4(0U, 0U, 0U, 0U) : sm80::load_shared(own_ + used_ + tuning::FewRows::fragment_bytes);
    used_ = after(used_);
  }
  /// Closes a group also when nothing is left, so that groups count chunks.
  __device__ __forceinline__ void copy_next() {
    if (left_ > 0) {
      bool const inside = column_ + lane_column() < static_cast<int>(weights_.cols);
      bfloat16 const* const low = low_ + column_;
      copy_async_with(policy_, own_ + next_, low, has_low_ && inside);
      if (!plan_.half) {
        copy_async_with(policy_, own_ + next_ + tuning::FewRows::fragment_bytes,
                        low + (has_high_ ? tiles_.gap_elements : 0), has_high_ && inside);
      }
      next_ = after(next_);
      column_ += tuning::FewRows::chunk;
      if (--left_ > 0 && column_ == end_ * tuning::FewRows::chunk) {
        column_ = begin_ * tuning::FewRows::chunk;
        tile_ += plan_.tile_step;
        find_tile();
      }
    }
    sm80::close_copy_group();
  }

 private:
  [[nodiscard]] static __device__ __forceinline__ int lane_column() { return static_cast<int>(threadIdx.x) % 4 * 8; }
  [[nodiscard]] __device__ __forceinline__ unsigned after(unsigned slot) const {
    slot += static_cast<unsigned>(plan_.slot_bytes);
    return slot == static_cast<unsigned>(plan_.ring_bytes) ? 0U : slot;
  }
  __device__ __forceinline__ void find_tile() {
    int pair;
    int const low = tiles_.first<Result>(tile_, pair) + static_cast<int>(threadIdx.x) % kWarpSize / 4;
    has_low_ = low < tiles_.limit;
    has_high_ = has_low_ && low + tiles_.gap < tiles_.rows;
    low_ = weights_.data + (has_low_ ? low * weights_.stride : 0) + lane_column();
  }

  View<bfloat16 const> const& weights_;
  FewRowsTiles const& tiles_;
  tuning::FewRowsPlan const& plan_;
  std::uint64_t policy_;
  bfloat16 const* low_;
  int tile_;
  std::uint32_t own_;
  unsigned next_ = 0, used_ = 0;  // slots, in bytes
  int begin_, end_;
  int column_, left_;  // to be copied
  bool has_low_, has_high_;
};

}  // namespace mor::cuda
