// SPDX-License-Identifier: Apache-2.0
/// @file
/// A row of logits that the blocks of a cluster share: where each warp's part lies, values under the penalty, weights, and
/// what blocks tell one another.
#pragma once

#include "mor/backend/cuda/kernels/cluster.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/tuning/sampling.hpp"
#include "mor/core/sampling.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"
#include "mor/math/ordering.hpp"
#include "mor/math/sampling.hpp"

#include <cstdint>
#include <limits>

namespace mor::cuda {

/// Sums of weights; integers, so their order does not matter.
using WeightSum = unsigned long long;

/// Operands of a sampling kernel.
struct SampleArguments {
  View<float const> logits;
  SamplingRule const* rules = nullptr;
  Token const* history = nullptr;
  Token* tokens = nullptr;
  float* log_probabilities = nullptr;
  int blocks = 1;       ///< of a row
  int span = 0;         ///< logits of a warp
  bool packed = false;  ///< 16-byte accesses reach every row
};

/// The largest values of a part: of the logits as a key, and of the penalised ones as a key and the lowest token with it.
struct LargestOfPart {
  WeightSum penalised;  ///< key, then the complement of the token
  std::uint32_t logit;  ///< key
  unsigned unsound;     ///< a NaN or +infinity was met
};

/// Sums over a part.
struct SumsOfPart {
  WeightSum first, second;
};

/// What a block tells the others of its row. Two copies, used in turn: the next but one writing comes after a barrier that
/// all pass when they have read.
struct SampleShares {
  LargestOfPart largest[2];
  SumsOfPart sums[2];
};

/// Shared memory of a block besides its logits.
struct SampleShared {
  alignas(16) WeightSum totals[256];
  alignas(16) WeightSum digits[2][256];  ///< the block's, as others read them
  unsigned parts[3][256];                ///< the same while they are counted, in pieces that 32 bits hold
  SampleShares shares;
  LargestOfPart largest[tuning::kSampleWarps];
  SumsOfPart sums[tuning::kSampleWarps];
};

__device__ __forceinline__ LargestOfPart larger(LargestOfPart a, LargestOfPart b) {
  return {a.penalised > b.penalised ? a.penalised : b.penalised, a.logit > b.logit ? a.logit : b.logit,
          a.unsound | b.unsound};
}

/// A block's part of a row.
template <bool Resident, bool Cluster>
class SampleRow {
 public:
  __device__ SampleRow(SampleArguments const& arguments, SampleShared& shared_, unsigned char* dynamic)
      : shared(shared_), blocks(arguments.blocks), span(arguments.span) {
    auto const block = static_cast<int>(blockIdx.x);
    rank = block % blocks;
    row = block / blocks;
    rule = arguments.rules[row];
    int const part = span * tuning::kSampleWarps;
    auto const left = static_cast<int>(arguments.logits.cols) - rank * part;
    length = min(max(left, 0), part);
    first_token = rank * part;
    logits = arguments.logits.row(row) + first_token;
    seen = reinterpret_cast<unsigned*>(dynamic);
    values = reinterpret_cast<float*>(dynamic + part / 8);
    penalised = rule.repetition_penalty != 1.0F;
    begin = warp() * span;
    end = min(begin + span, length);
  }

  [[nodiscard]] static __device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / kWarpSize; }
  [[nodiscard]] static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % kWarpSize; }

  [[nodiscard]] __device__ __forceinline__ bool was_seen(int at) const {
    return penalised && (seen[at / kWarpSize] >> static_cast<unsigned>(at % kWarpSize) & 1U) != 0;
  }
  [[nodiscard]] __device__ __forceinline__ float under_penalty(float logit, int at) const {
    return was_seen(at) ? math::penalised_logit(logit, rule.repetition_penalty) : logit;
  }
  /// The logit under the penalty.
  [[nodiscard]] __device__ __forceinline__ float value(int at) const {
    if constexpr (Resident) return values[at];
    return under_penalty(logits[at], at);
  }
  [[nodiscard]] __device__ __forceinline__ float power(float value) const {
    return math::sample_power(math::below_largest(value, largest), scale);
  }
  [[nodiscard]] __device__ __forceinline__ WeightSum weight(float value) const { return math::sample_weight(power(value)); }

  /// Marks the tokens of the history that lie in this part. Ends with a barrier.
  __device__ void mark_history(Token const* history) {
    if (!penalised) return;
    for (int i = static_cast<int>(threadIdx.x); i < span * tuning::kSampleWarps / kWarpSize; i += tuning::kSampleThreads) {
      seen[i] = 0;
    }
    __syncthreads();
    for (Row i = static_cast<Row>(threadIdx.x); i < rule.history_length; i += tuning::kSampleThreads) {
      int const at = history[rule.history_begin + i] - first_token;
      if (at >= 0 && at < length) atomicOr(&seen[at / kWarpSize], 1U << static_cast<unsigned>(at % kWarpSize));
    }
    __syncthreads();
  }

  /// Reads the part, keeps it where it is resident, and finds the largest of the row.
  template <int Width>
  __device__ void load() {
    constexpr int batch = 4, step = kWarpSize * Width;
    LargestOfPart own{};
    for (int first = begin + lane() * Width; first < end; first += batch * step) {
      float loaded[batch][Width];
#pragma unroll
      for (int i = 0; i < batch; ++i) {
        int const at = first + i * step;
        if (at >= end) continue;  // rows of packs: whole packs are inside
        if constexpr (Width == 4) {
          float4 const pack = __ldg(reinterpret_cast<float4 const*>(logits + at));
          loaded[i][0] = pack.x, loaded[i][1] = pack.y, loaded[i][2] = pack.z, loaded[i][3] = pack.w;
        } else {
          loaded[i][0] = __ldg(logits + at);
        }
      }
#pragma unroll
      for (int i = 0; i < batch; ++i) {
        int const at = first + i * step;
        if (at >= end) continue;
#pragma unroll
        for (int j = 0; j < Width; ++j) {
          float const logit = loaded[i][j];
          own.unsound |= logit < std::numeric_limits<float>::infinity() ? 0U : 1U;  // NaN compares false
          float const value = under_penalty(logit, at + j);
          if constexpr (Resident) values[at + j] = value;
          auto const token = static_cast<std::uint32_t>(first_token + at + j);
          WeightSum const candidate = WeightSum{math::ordered_key(value)} << 32U | ~token;
          own.penalised = candidate > own.penalised ? candidate : own.penalised;
          std::uint32_t const key = math::ordered_key(logit);
          own.logit = key > own.logit ? key : own.logit;
        }
      }
    }
    share(own);
  }

  /// Adds up what each thread has over the block and the cluster; `shared.sums` keeps the sums of this block's warps.
  __device__ SumsOfPart sum(SumsOfPart own) {
    own = {warp_sum(own.first), warp_sum(own.second)};
    if (lane() == 0) shared.sums[warp()] = own;
    __syncthreads();
    turn ^= 1;
    if (threadIdx.x == 0) {
      SumsOfPart block{};
      for (auto const& of_warp : shared.sums) block.first += of_warp.first, block.second += of_warp.second;
      shared.shares.sums[turn] = block;
    }
    cluster_barrier<Cluster>();
    SumsOfPart total{};
    for (int other = 0; other < blocks; ++other) {
      SumsOfPart const part = sums_of(other);
      total.first += part.first, total.second += part.second;
    }
    return total;
  }
  /// The sums of a block, as last exchanged.
  [[nodiscard]] __device__ __forceinline__ SumsOfPart sums_of(int other) const {
    return *shared_of<Cluster>(&shared.shares.sums[turn], other);
  }

  __device__ __forceinline__ void barrier() const { cluster_barrier<Cluster>(); }
  template <class T>
  [[nodiscard]] __device__ __forceinline__ T const* of_block(T const* own, int other) const {
    return shared_of<Cluster>(own, other);
  }

  SampleShared& shared;
  SamplingRule rule;
  int row, rank, blocks, span;
  int first_token, length;  ///< of the part
  int begin, end;           ///< of the warp's logits within the part
  int turn = 0;             ///< which copy of the shares was written last
  float const* logits;      ///< of the part
  float* values;            ///< the same under the penalty, where resident
  unsigned* seen;           ///< a bit for each logit of the part whose token is in the history
  bool penalised;
  LargestOfPart found{};    ///< of the row
  float largest = 0.0F;     ///< under the penalty
  float scale = 1.0F;       ///< from differences of logits to powers of two

 private:
  __device__ void share(LargestOfPart own) {
#pragma unroll
    for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
      own = larger(own, {__shfl_xor_sync(kAllLanes, own.penalised, distance),
                         __shfl_xor_sync(kAllLanes, own.logit, distance), __shfl_xor_sync(kAllLanes, own.unsound, distance)});
    }
    if (lane() == 0) shared.largest[warp()] = own;
    __syncthreads();
    turn ^= 1;
    if (threadIdx.x == 0) {
      LargestOfPart block{};
      for (auto const& of_warp : shared.largest) block = larger(block, of_warp);
      shared.shares.largest[turn] = block;
    }
    cluster_barrier<Cluster>();
    found = {};
    for (int other = 0; other < blocks; ++other) {
      found = larger(found, *shared_of<Cluster>(&shared.shares.largest[turn], other));
    }
    largest = math::ordered_score(static_cast<std::uint32_t>(found.penalised >> 32U));
  }
};

}  // namespace mor::cuda
