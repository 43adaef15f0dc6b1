// SPDX-License-Identifier: Apache-2.0
/// @file
/// Top-k, top-p and min-p of a row, or of a list of its likeliest tokens: the last kept key, found digit by digit from
/// exact sums of integers, and where the random number falls among what is kept. No sum depends on an order.
#pragma once

#include "mor/backend/cuda/kernels/radix_digits.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/kernels/sampling_row.cuh"
#include "mor/backend/cuda/kernels/sampling_weight.cuh"
#include "mor/backend/cuda/tuning/sampling.hpp"
#include "mor/math/ordering.hpp"
#include "mor/math/sampling.hpp"

#include <cstdint>
#include <limits>

namespace mor::cuda {

/// Which tokens are kept: those with a larger key, and the first `ties` of those with this one.
struct SampleCut {
  std::uint32_t key = 0;
  WeightSum ties = 0;
};

/// Steps of an eighth in the power of two: the first digit of a selection, which spreads logits evenly over digits, as
/// their own first bits do not.
__device__ __forceinline__ unsigned power_digit(float power) {
  return power > -31.875F ? static_cast<unsigned>(power * -8.0F) : 255U;
}

/// The digit at which sums over digits, from the first on, reach `target`; what is missing before it goes to `target`.
/// Every warp finds it for itself.
__device__ __forceinline__ unsigned find_digit(WeightSum const* totals, WeightSum& target) {
  int const lane = static_cast<int>(threadIdx.x) % kWarpSize;
  WeightSum counts[8], own = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) own += counts[i] = totals[8 * lane + i];
  WeightSum const through = sum_through_lane(own);
  WeightSum before = through - own;
  bool const here = before < target && target <= through;  // in one lane
  unsigned digit = 0;
  bool found = false;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if (found) continue;
    found = before + counts[i] >= target;
    if (found) digit = static_cast<unsigned>(8 * lane + i);
    if (!found) before += counts[i];
  }
  int const source = __ffs(static_cast<int>(__ballot_sync(kAllLanes, here))) - 1;
  target -= __shfl_sync(kAllLanes, before, source);
  return __shfl_sync(kAllLanes, digit, source);
}

/// The sum of a shared variable over the blocks of the row.
template <class T, class RowPart>
__device__ __forceinline__ WeightSum sum_of_blocks(RowPart const& row, T const* own) {
  WeightSum total = 0;
#pragma unroll
  for (int other = 0; other < tuning::kSampleMostBlocks; ++other) {
    if (other < row.blocks) total += *row.of_block(own, other);
  }
  return total;
}

/// Powers of two with one digit; NaN is in none.
struct PowersOfDigit {
  float above, through;

  [[nodiscard]] static __device__ __forceinline__ PowersOfDigit of(unsigned digit) {
    auto const begin = static_cast<float>(digit);
    return {digit == kDigits - 1U ? -std::numeric_limits<float>::infinity() : (begin + 1.0F) * -0.125F,
            begin * -0.125F};
  }
  [[nodiscard]] __device__ __forceinline__ bool hold(float power) const {
    return power <= through && (power > above || above == -std::numeric_limits<float>::infinity());
  }
};

/// The shortest list of the likeliest tokens of the row that reaches `target` in weight, or in number. Its last key is
/// found digit by digit, from sums over digits of the tokens that agree with it so far. Tokens of a power below
/// `lowest` are not on the list.
template <bool ByWeight, class RowPart>
__device__ SampleCut select_likeliest(RowPart& row, WeightSum target, float lowest) {
  constexpr int pieces = ByWeight ? 3 : 1;
  auto& shared = row.shared;
  auto const thread = static_cast<int>(threadIdx.x);
  PowersOfDigit group{-std::numeric_limits<float>::infinity(), 0.0F};
  std::uint32_t mask = 0, prefix = 0;
  for (int pass = 0; pass < 5; ++pass) {
    int const shift = 32 - kDigitBits * pass;
    WeightSum sum = 0;  // of the digit that is the thread's number
    int const rounds = ByWeight ? row.rounds() : 1;
    for (int round = 0; round < rounds; ++round) {
      if (round > 0) __syncthreads();  // all have read the sums of the last one
      for (int i = thread; i < pieces * kDigits; i += tuning::kSampleThreads) shared.parts[i / kDigits][i % kDigits] = 0;
      __syncthreads();
      int const done = round * static_cast<int>(tuning::kSampleRound);
      int const end = round + 1 < rounds ? min(row.begin + done + static_cast<int>(tuning::kSampleRound), row.end) : row.end;
      for (int at = row.own_begin() + done; at < end; at += RowPart::step) {
        float four[4];
        row.read_values(at, four);
#pragma unroll
        for (float const value : four) {
          float const power = row.power(value);
          if (!(power >= lowest) || !group.hold(power)) continue;
          unsigned digit = power_digit(power);
          if (pass > 0) {
            std::uint32_t const key = math::ordered_key(value);
            if ((key & mask) != prefix) continue;
            digit = kDigits - 1U - (key >> static_cast<unsigned>(shift) & (kDigits - 1U));
          }
          if constexpr (ByWeight) {
            WeightSum const weight = share_weight(power_share(power));
            atomicAdd(&shared.parts[0][digit], static_cast<unsigned>(weight & 0x1fffU));
            atomicAdd(&shared.parts[1][digit], static_cast<unsigned>(weight >> 13U & 0x1fffU));
            atomicAdd(&shared.parts[2][digit], static_cast<unsigned>(weight >> 26U));
          } else {
            atomicAdd(&shared.parts[0][digit], 1U);
          }
        }
      }
      __syncthreads();
      if (thread >= kDigits) continue;
      sum += shared.parts[0][thread];
      if constexpr (ByWeight) {
        sum += (WeightSum{shared.parts[1][thread]} << 13U) + (WeightSum{shared.parts[2][thread]} << 26U);
      }
    }
    if (thread < kDigits) (row.alone() ? shared.totals : shared.digits[pass & 1])[thread] = sum;
    row.barrier();
    if (!row.alone()) {
      if (thread < kDigits) shared.totals[thread] = sum_of_blocks(row, &shared.digits[pass & 1][thread]);
      __syncthreads();
    }
    unsigned const digit = find_digit(shared.totals, target);
    if (pass == 0) {
      group = PowersOfDigit::of(digit);
    } else {
      mask |= std::uint32_t{kDigits - 1} << static_cast<unsigned>(shift);
      prefix |= (kDigits - 1U - digit) << static_cast<unsigned>(shift);
    }
  }
  if constexpr (ByWeight) {
    WeightSum const weight = row.weight(math::ordered_score(prefix));
    target = (target + weight - 1) / weight;
  }
  return {prefix, target};
}

/// What is kept: a cut in the order of likelihood, a least weight, and the weight of a token on the cut.
struct KeptRule {
  SampleCut cut;
  WeightSum least = 0, tie_weight = 0;

  /// The weight of a part, given its sum above the cut, its tokens on the cut, and those before it.
  [[nodiscard]] __device__ __forceinline__ WeightSum weight_of(SumsOfPart part, WeightSum ties_before) const {
    WeightSum const through = ties_before + part.second;
    WeightSum const kept_through = through < cut.ties ? through : cut.ties;
    WeightSum const kept_before = ties_before < cut.ties ? ties_before : cut.ties;
    return part.first + tie_weight * (kept_through - kept_before);
  }
};

template <class RowPart>
__device__ __forceinline__ KeptRule kept_rule(RowPart const& row, SampleCut cut, WeightSum least) {
  KeptRule rule{cut, least, 0};
  if (cut.ties > 0) {
    WeightSum const weight = row.weight(math::ordered_score(cut.key));
    rule.tie_weight = weight >= least ? weight : 0;
  }
  return rule;
}

/// Sums over each warp's, each block's and the whole row's part: weights above the cut, and tokens on it.
template <class RowPart>
__device__ SumsOfPart sum_kept(RowPart& row, KeptRule const& rule) {
  // Where there is no cut, its key is less than that of -infinity, and no tie has a weight.
  float const least_value =
      rule.cut.key == 0 ? -std::numeric_limits<float>::infinity() : math::ordered_score(rule.cut.key);
  SumsOfPart own{};
  for (int at = row.own_begin(); at < row.end; at += RowPart::step) {
    float four[4];
    row.read_values(at, four);
#pragma unroll
    for (float const value : four) {
      if (!(value >= least_value)) continue;
      WeightSum const weight = row.weight(value);
      if (value == least_value) {
        ++own.second;
      } else if (weight >= rule.least) {
        own.first += weight;
      }
    }
  }
  return row.sum(own);
}

/// The place in the part of the token through which kept weights sum to more than `place`, in the one warp that has it;
/// -1 in all others. `total` are the sums of the row as last exchanged, by the same rule.
template <class RowPart>
__device__ int find_place(RowPart& row, KeptRule const& rule, WeightSum place) {
  WeightSum before = 0, ties = 0;
  SumsOfPart part{};
  for (int other = 0; other <= row.rank; ++other) {
    part = row.told_by(other);
    if (other == row.rank) break;
    before += rule.weight_of(part, ties), ties += part.second;
  }
  if (place < before || place >= before + rule.weight_of(part, ties)) return -1;
  for (int other = 0; other < RowPart::warp(); ++other) {
    part = row.shared.sums[other];
    before += rule.weight_of(part, ties), ties += part.second;
  }
  part = row.shared.sums[RowPart::warp()];
  if (place < before || place >= before + rule.weight_of(part, ties)) return -1;
  unsigned const lower_lanes = (1U << static_cast<unsigned>(RowPart::lane())) - 1U;
  for (int first = row.begin; first < row.end; first += kWarpSize) {
    int const at = first + RowPart::lane();
    float const value = at < row.end ? row.value(at) : -std::numeric_limits<float>::infinity();
    std::uint32_t const key = at < row.end ? math::ordered_key(value) : 0U;
    bool const tied = at < row.end && key == rule.cut.key;
    unsigned const tied_lanes = __ballot_sync(kAllLanes, tied);
    WeightSum weight = 0;
    if (tied) {
      weight = ties + static_cast<unsigned>(__popc(tied_lanes & lower_lanes)) < rule.cut.ties ? rule.tie_weight : 0;
    } else if (key > rule.cut.key) {
      weight = row.weight(value);
      weight = weight >= rule.least ? weight : 0;
    }
    WeightSum const through = sum_through_lane(weight);
    unsigned const reached = __ballot_sync(kAllLanes, before + through > place);
    if (reached != 0) return first + __ffs(static_cast<int>(reached)) - 1;
    before += __shfl_sync(kAllLanes, through, kWarpSize - 1);
    ties += static_cast<unsigned>(__popc(tied_lanes));
  }
  return -1;
}

/// A power below which no token is needed to reach `target` of the weight of a vocabulary, or of some of it: all tokens
/// below it together weigh less than what is left.
__device__ __forceinline__ float lowest_power(WeightSum weight, WeightSum target, int vocabulary) {
  WeightSum const least = (weight - target) / static_cast<WeightSum>(vocabulary);
  return least > 0 ? log2f(static_cast<float>(least)) - 40.01F : -41.0F;  // what is rounded away is below a hundredth
}

/// The place in the part of the token that the rule draws, as `find_place`. `count`: tokens of all parts, a list or the
/// whole vocabulary. `weight`: of the vocabulary, or of a list that top-k made.
template <class RowPart>
__device__ int draw_by_digits(RowPart& row, int count, int vocabulary, WeightSum weight) {
  SamplingRule const& rule = row.rule();
  SampleCut cut;
  bool const some = rule.top_k > 0 && rule.top_k < count;
  if (some) {
    cut = select_likeliest<false>(row, static_cast<WeightSum>(rule.top_k), -std::numeric_limits<float>::infinity());
  }
  if (rule.top_p < 1.0F) {
    if (some) {
      KeptRule const all = kept_rule(row, cut, 0);
      weight = all.weight_of(sum_kept(row, all), 0);
    }
    WeightSum const target = math::top_p_target(rule.top_p, weight);
    cut = select_likeliest<true>(row, target, lowest_power(weight, target, vocabulary));
  }
  KeptRule const kept = kept_rule(row, cut, math::min_p_weight(rule.min_p));
  weight = kept.weight_of(sum_kept(row, kept), 0);
  return find_place(row, kept, math::multiply_high(row.shared.random, weight));
}

}  // namespace mor::cuda
