// SPDX-License-Identifier: Apache-2.0
/// @file
/// The blocks of a cluster that share a row of logits, and what they tell one another: messages into each other's
/// shared memory that a barrier there counts, so that nobody waits for more than what it needs.
#pragma once

#include "mor/backend/cuda/kernels/cluster.cuh"
#include "mor/backend/cuda/kernels/radix_digits.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/kernels/sampling_weight.cuh"
#include "mor/backend/cuda/kernels/tma.cuh"
#include "mor/backend/cuda/tuning/sampling.hpp"
#include "mor/core/sampling.hpp"
#include "mor/core/types.hpp"

#include <cstddef>
#include <cstdint>

namespace mor::cuda {

/// Sums over a part.
struct SumsOfPart {
  WeightSum first, second;
};

/// A candidate that one block sorts out alone.
struct alignas(8) ListedToken {
  float value;
  Token token;
};

/// Shared memory of a block besides its logits. What blocks tell one another is counted by `arrived`. There are two
/// copies, used in turn: who writes to one for the next time but one has heard since from the block that reads it.
struct SampleShared {
  alignas(16) unsigned parts[3][kDigits];  ///< counts or sums of digits, in pieces that 32 bits hold
  alignas(16) WeightSum totals[kDigits];
  union {                                                                  // one after the other
    alignas(16) std::uint16_t counts[tuning::kSampleMostBlocks][kDigits];  ///< each block's counts of digits
    ListedToken list[tuning::kSampleList];                                 ///< in the order of ids
    WeightSum digits[2][kDigits];  ///< the block's sums of digits, as others read them
  };
  SumsOfPart told[2][tuning::kSampleMostBlocks];  ///< by each block of the row
  SumsOfPart sums[tuning::kSampleWarps];
  Barrier arrived[2];
  Barrier list_arrived;
  unsigned keys[tuning::kSampleWarps];
  unsigned rule[sizeof(SamplingRule) / 4];
  WeightSum random, kept;
  int first;  ///< the block's first token with the largest value
};
static_assert(tuning::kSampleList <= tuning::kSampleStep * tuning::kSampleWarps);
static_assert(sizeof(SampleShared) <= tuning::kSampleSmallBytes && sizeof(SamplingRule) % 4 == 0);
static_assert(offsetof(SampleShared, rule) % alignof(SamplingRule) == 0 && offsetof(SampleShared, told) % 16 == 0);

/// A block among those of its row, a power of two.
template <bool Cluster>
class SampleBlocks {
 public:
  __device__ SampleBlocks(SampleShared& shared_, int blocks_)
      : shared(shared_), rank(static_cast<int>(blockIdx.x) & (blocks_ - 1)), blocks(blocks_) {
    if constexpr (Cluster) {
      if (alone()) return;
      if (threadIdx.x == 0) {
        make_barrier(shared.arrived[0], 1);
        make_barrier(shared.arrived[1], 1);
        make_barrier(shared.list_arrived, 1);
        publish_barriers();
      }
      cluster_arrive();
    }
  }
  /// All blocks have started: their memory may be written.
  __device__ __forceinline__ void wait_for_blocks() const {
    if constexpr (Cluster) {
      if (!alone()) cluster_wait();
    }
  }

  [[nodiscard]] static __device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / kWarpSize; }
  [[nodiscard]] static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % kWarpSize; }
  [[nodiscard]] __device__ __forceinline__ bool alone() const { return !Cluster || blocks == 1; }

  /// Sums over the block, in its first warp; `shared.sums` keeps those of its warps.
  __device__ SumsOfPart sum_block(SumsOfPart own) {
    own = {sum_over_warp(own.first), sum_over_warp(own.second)};
    if (lane() == 0) shared.sums[warp()] = own;
    __syncthreads();
    if (warp() != 0) return {};
    own = lane() < tuning::kSampleWarps ? shared.sums[lane()] : SumsOfPart{};
    return {sum_over_warp(own.first), sum_over_warp(own.second)};
  }
  /// Sums over the row. `meanwhile` may send `more` bytes to each block.
  template <class Meanwhile>
  __device__ SumsOfPart sum(SumsOfPart own, int more, Meanwhile const& meanwhile) {
    tell(sum_block(own), more, meanwhile);
    return sum_told(blocks);
  }
  __device__ SumsOfPart sum(SumsOfPart own) {
    return sum(own, 0, [] {});
  }
  /// Tells every block of the row what this one's first warp has, and waits for what they tell.
  template <class Meanwhile>
  __device__ void tell(SumsOfPart const& block, int more, Meanwhile const& meanwhile) {
    ++told;
    if (warp() == 0 && lane() < blocks) send(shared.told[turn()][rank], block, lane());
    if (!alone() && threadIdx.x == 0) {
      arrive_expecting(shared.arrived[turn()], blocks * (static_cast<int>(sizeof(SumsOfPart)) + more));
    }
    meanwhile();
    if (alone()) {
      __syncthreads();
    } else if constexpr (Cluster) {
      wait_for_stores(shared_address(&shared.arrived[turn()]), static_cast<unsigned>(told - 1) >> 1U & 1U);
    }
  }
  /// Writes 16 bytes to a block, as part of what this one tells it.
  template <class T>
  __device__ __forceinline__ void send(T& own, T const& value, int to) {
    static_assert(sizeof(T) == 16);
    if (alone()) {
      own = value;
    } else if constexpr (Cluster) {
      store_counted(address_of_block(shared_address(&own), to), __builtin_bit_cast(float4, value),
                    address_of_block(shared_address(&shared.arrived[turn()]), to));
    }
  }
  /// Writes into the first block's list.
  __device__ __forceinline__ void send_listed(unsigned place, ListedToken const& token) {
    if (alone()) {
      shared.list[place] = token;
    } else if constexpr (Cluster) {
      store_counted(address_of_block(shared_address(&shared.list[place]), 0), __builtin_bit_cast(float2, token),
                    address_of_block(shared_address(&shared.list_arrived), 0));
    }
  }
  /// In the first block: waits for the whole list.
  __device__ void wait_for_list(int count) {
    if (alone()) {
      __syncthreads();
    } else if constexpr (Cluster) {
      if (threadIdx.x == 0) arrive_expecting(shared.list_arrived, count * static_cast<int>(sizeof(ListedToken)));
      wait_for_stores(shared_address(&shared.list_arrived), 0);
    }
  }
  /// The sum of what the first `count` blocks told last. Whole warps call.
  [[nodiscard]] __device__ SumsOfPart sum_told(int count) const {
    int const other = lane() % tuning::kSampleMostBlocks;
    SumsOfPart sum = other < count ? told_by(other) : SumsOfPart{};
#pragma unroll
    for (int distance = tuning::kSampleMostBlocks / 2; distance > 0; distance /= 2) {
      sum.first += __shfl_xor_sync(kAllLanes, sum.first, distance);
      sum.second += __shfl_xor_sync(kAllLanes, sum.second, distance);
    }
    return sum;
  }
  /// What a block told last.
  [[nodiscard]] __device__ __forceinline__ SumsOfPart told_by(int other) const {
    return shared.told[turn()][other];
  }

  /// Of all blocks of the row.
  __device__ __forceinline__ void barrier() const {
    alone() ? __syncthreads() : cluster_barrier<Cluster>();
  }
  template <class T>
  [[nodiscard]] __device__ __forceinline__ T const* of_block(T const* own, int other) const {
    return shared_of<Cluster>(own, other);
  }

  SampleShared& shared;
  int rank, blocks;

 private:
  [[nodiscard]] __device__ __forceinline__ int turn() const {
    return told & 1;
  }

  int told = 0;  ///< how often blocks have told one another
};

}  // namespace mor::cuda
