// SPDX-License-Identifier: Apache-2.0
/// @file
/// A block's part of a row of logits: where each warp's part of that lies, values under the penalty, the largest, and
/// weights.
#pragma once

#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/kernels/sampling_blocks.cuh"
#include "mor/backend/cuda/kernels/sampling_weight.cuh"
#include "mor/backend/cuda/tuning/sampling.hpp"
#include "mor/core/sampling.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"
#include "mor/math/ordering.hpp"
#include "mor/math/sampling.hpp"

#include <cstdint>
#include <limits>

namespace mor::cuda {

/// Operands of a sampling kernel.
struct SampleArguments {
  View<float const> logits;
  SamplingRule const* rules = nullptr;
  Token const* history = nullptr;
  Token* tokens = nullptr;
  float* log_probabilities = nullptr;
  Row const* count = nullptr;  ///< how many rows are real; absent: all
  int blocks = 1;              ///< of a row
  int span = 0;                ///< logits of a warp
  bool packed = false;         ///< 16-byte accesses reach every row

  void note_to(auto& log) const { log.note(logits, rules, history, tokens, log_probabilities, count, blocks, span, packed); }
};

/// A block's part of a row. Lane l of a warp has the four logits from 4 l on of each step of 128.
template <bool Resident, bool Cluster>
class SampleRow : public SampleBlocks<Cluster> {
 public:
  using Blocks = SampleBlocks<Cluster>;
  using Blocks::blocks, Blocks::lane, Blocks::rank, Blocks::shared, Blocks::told_by, Blocks::tell, Blocks::warp;
  static constexpr int step = tuning::kSampleStep;

  /// Where the row is, and its rule; ready after the next barrier.
  __device__ SampleRow(SampleArguments const& arguments, SampleShared& shared_, unsigned char* dynamic)
      : Blocks(shared_, arguments.blocks), packed(arguments.packed) {
    row = static_cast<int>(blockIdx.x) >> (__ffs(blocks) - 1);
    int const part = arguments.span * tuning::kSampleWarps;
    first_token = rank * part;
    length = min(max(static_cast<int>(arguments.logits.cols) - first_token, 0), part);
    logits = arguments.logits.row(row) + first_token;
    values = reinterpret_cast<float*>(dynamic);
    span = arguments.span;
    begin = warp() * span;
    end = min(begin + span, length);
    auto const thread = static_cast<unsigned>(threadIdx.x);
    if (thread < sizeof(SamplingRule) / 4)
      shared.rule[thread] = reinterpret_cast<unsigned const*>(arguments.rules + row)[thread];
    if (thread == 0) shared.first = std::numeric_limits<int>::max();
  }

  [[nodiscard]] __device__ __forceinline__ int own_begin() const { return begin + 4 * lane(); }
  /// Rounds in which the block reads its part so that 32 bits hold the sums of digits of each.
  [[nodiscard]] __device__ __forceinline__ int rounds() const {
    constexpr auto most = static_cast<int>(tuning::kSampleRound);
    return Resident ? 1 : (span + most - 1) / most;
  }
  [[nodiscard]] __device__ __forceinline__ SamplingRule const& rule() const {
    return *reinterpret_cast<SamplingRule const*>(shared.rule);
  }
  [[nodiscard]] __device__ __forceinline__ bool penalised() const { return rule().repetition_penalty != 1.0F; }

  /// The value of one logit of the part, or of the list.
  [[nodiscard]] __device__ __forceinline__ float value(int at) const {
    if (listed) return shared.list[at].value;
    if constexpr (Resident) return values[at];
    return changed ? changed_value(logits[at], at) : logits[at];
  }
  /// A lane's four values; NaN beyond the end of the row.
  __device__ __forceinline__ void read_values(int at, float (&four)[4]) const {
    if (listed) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        four[j] = at + j < length ? shared.list[at + j].value : std::numeric_limits<float>::quiet_NaN();
      }
    } else if constexpr (Resident) {
      float4 const pack = *reinterpret_cast<float4 const*>(values + at);
      four[0] = pack.x, four[1] = pack.y, four[2] = pack.z, four[3] = pack.w;
    } else {
      packed ? read_logits<true>(at, four) : read_logits<false>(at, four);
      if (!changed) return;
#pragma unroll
      for (int j = 0; j < 4; ++j) four[j] = changed_value(four[j], at + j);
    }
  }
  [[nodiscard]] __device__ __forceinline__ float power(float value) const {
    return math::sample_power(value - largest, scale);
  }
  [[nodiscard]] __device__ __forceinline__ WeightSum weight(float value) const {
    return share_weight(power_share(power(value)));
  }

  /// Reads the part, keeps it where it is resident, and notes the thread's largest logit (NaN if one was met).
  template <bool Packed>
  __device__ void load() {
    constexpr int batch = 4;
    float most = -std::numeric_limits<float>::infinity();
    for (int first = own_begin(); first < end; first += batch * step) {
      float loaded[batch][4];
#pragma unroll
      for (int i = 0; i < batch; ++i) {
        if (first + i * step < end) read_logits<Packed>(first + i * step, loaded[i]);
      }
#pragma unroll
      for (int i = 0; i < batch; ++i) {
        int const at = first + i * step;
        if (at >= end) continue;
        if constexpr (Resident) {
          *reinterpret_cast<float4*>(values + at) = make_float4(loaded[i][0], loaded[i][1], loaded[i][2], loaded[i][3]);
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          if (Packed || at + j < length) most = larger_or_nan(most, loaded[i][j]);
        }
      }
    }
    own_most = most;
  }

  /// The key of the row's largest value, from every thread's; all ones if there is a NaN. `meanwhile` runs while it
  /// comes.
  template <class Meanwhile>
  __device__ std::uint32_t find_largest(Meanwhile const& meanwhile) {
    std::uint32_t key = own_most != own_most ? ~0U : math::ordered_key(own_most);
    key = __reduce_max_sync(kAllLanes, key);
    if (lane() == 0) shared.keys[warp()] = key;
    __syncthreads();
    if (warp() == 0) key = __reduce_max_sync(kAllLanes, lane() < tuning::kSampleWarps ? shared.keys[lane()] : 0U);
    tell({key, 0}, 0, meanwhile);
    return __reduce_max_sync(kAllLanes, lane() < blocks ? static_cast<std::uint32_t>(told_by(lane()).first) : 0U);
  }

  /// Puts the penalty on the tokens of the history, and finds the largest value again. Where it is infinite, only those
  /// with it have a weight: they become zero, and all others -infinity.
  __device__ void penalise(Token const* history) {
    mark_history(history);
    float most = -std::numeric_limits<float>::infinity();
    for (int at = own_begin(); at < end; at += step) {
      float four[4];
      read_values(at, four);
#pragma unroll
      for (float const value : four) most = fmaxf(most, value);  // passes over NaN, beyond the row's end
    }
    own_most = most;
    largest = math::ordered_score(find_largest([] {}));
    if (isinf(largest)) keep_infinite();
  }

  /// The sum of the weights of a thread's logits.
  template <bool Bounded>
  [[nodiscard]] __device__ WeightSum own_weights(float least_share) const {
    double sum = kEmptySum;
#pragma unroll 2
    for (int at = own_begin(); at < end; at += step) {
      float four[4];
      read_values(at, four);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float share = power_share(power(four[j]));
        if constexpr (Bounded) share = share >= least_share ? share : 0.0F;
        add_share(sum, share);
      }
    }
    return sum_of_shares(sum);
  }

  /// The first token of the thread that has the largest value; the largest integer where it has none.
  [[nodiscard]] __device__ int own_first() const {
    for (int at = own_begin(); at < end; at += step) {
      float four[4];
      read_values(at, four);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (four[j] == largest) return first_token + at + j;
      }
    }
    return std::numeric_limits<int>::max();
  }

  /// From now on a list of `count` values, which this block has alone.
  __device__ void become_list(int count) {
    blocks = 1, rank = 0, first_token = 0, length = count, listed = true, span = step;
    begin = warp() * span;
    end = min(begin + span, length);
  }

  int row;
  int first_token, length;  ///< of the part
  int span;                 ///< logits of a warp
  int begin, end;           ///< of the warp's logits within the part
  float const* logits;      ///< of the part
  float* values;  ///< the same under the penalty, where resident; else a bit for each whose token is in the history
  float own_most = 0.0F;             ///< the thread's largest value
  float largest = 0.0F;              ///< the row's
  float scale = math::kSampleLog2E;  ///< from differences of logits to powers of two

 private:
  [[nodiscard]] static __device__ __forceinline__ float larger_or_nan(float a, float b) {
    float result;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
    return result;
  }

  template <bool Packed>
  __device__ __forceinline__ void read_logits(int at, float (&four)[4]) const {
    if constexpr (Packed) {
      float4 const pack = *reinterpret_cast<float4 const*>(logits + at);
      four[0] = pack.x, four[1] = pack.y, four[2] = pack.z, four[3] = pack.w;
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) four[j] = at + j < length ? logits[at + j] : std::numeric_limits<float>::quiet_NaN();
    }
  }

  [[nodiscard]] __device__ __forceinline__ float only_infinite(float value) const {
    return value != value ? value : value == infinite ? 0.0F : -std::numeric_limits<float>::infinity();
  }
  /// The value of a logit that is not resident.
  [[nodiscard]] __device__ __forceinline__ float changed_value(float logit, int at) const {
    auto const* const seen = reinterpret_cast<unsigned const*>(values);
    bool const penalise = (seen[at / kWarpSize] >> static_cast<unsigned>(at % kWarpSize) & 1U) != 0;
    float const value = penalise ? math::penalised_logit(logit, rule().repetition_penalty) : logit;
    return infinite == 0.0F ? value : only_infinite(value);
  }

  /// Begins and ends with a barrier.
  __device__ void mark_history(Token const* history) {
    auto const thread = static_cast<int>(threadIdx.x);
    auto* const seen = reinterpret_cast<unsigned*>(values);
    if constexpr (!Resident) {
      for (int i = thread; i < (length + kWarpSize - 1) / kWarpSize; i += tuning::kSampleThreads) seen[i] = 0;
    }
    __syncthreads();
    for (Row i = thread; i < rule().history_length; i += tuning::kSampleThreads) {
      unsigned const at = static_cast<unsigned>(history[rule().history_begin + i]) - static_cast<unsigned>(first_token);
      if (at >= static_cast<unsigned>(length)) continue;
      if constexpr (Resident) {
        values[at] = math::penalised_logit(logits[at], rule().repetition_penalty);  // a repeated token: the same again
      } else {
        atomicOr(&seen[at / kWarpSize], 1U << at % kWarpSize);
      }
    }
    __syncthreads();
    changed = true;
  }

  __device__ void keep_infinite() {
    infinite = largest;
    if constexpr (Resident) {
      for (int at = own_begin(); at < end; at += step) {
        for (int j = 0; j < 4; ++j) values[at + j] = only_infinite(values[at + j]);
      }
    }
    own_most = only_infinite(own_most);
    largest = 0.0F;
  }

  bool packed, changed = false, listed = false;
  float infinite = 0.0F;  ///< the largest value, where it is infinite
};

}  // namespace mor::cuda
