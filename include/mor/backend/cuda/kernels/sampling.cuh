// SPDX-License-Identifier: Apache-2.0
/// @file
/// Drawing a token from a row of logits: a cluster of blocks reads the row once, keeps it in shared memory, and finds by
/// exact sums of integers what is kept and where the random number falls. No sum depends on an order.
#pragma once

#include "mor/backend/cuda/kernels/cluster.cuh"
#include "mor/backend/cuda/kernels/radix_digits.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/kernels/sampling_row.cuh"
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

/// The shortest list of the likeliest tokens of the row that reaches `target` in weight, or in number. Its last key is
/// found digit by digit, from sums over digits of the tokens that agree with it so far.
template <bool ByWeight, class RowPart>
__device__ SampleCut select_likeliest(RowPart& row, WeightSum target) {
  constexpr int pieces = ByWeight ? 3 : 1;
  auto& shared = row.shared;
  auto const thread = static_cast<int>(threadIdx.x);
  unsigned first_digit = 0;
  std::uint32_t mask = 0, prefix = 0;
  for (int pass = 0; pass < 5; ++pass) {
    int const shift = 32 - kDigitBits * pass;
    for (int i = thread; i < pieces * kDigits; i += tuning::kSampleThreads) shared.parts[i / kDigits][i % kDigits] = 0;
    __syncthreads();
    for (int at = row.begin + RowPart::lane(); at < row.end; at += kWarpSize) {
      float const value = row.value(at);
      float const power = row.power(value);
      unsigned digit = power_digit(power);
      if (pass > 0) {
        std::uint32_t const key = math::ordered_key(value);
        if (digit != first_digit || (key & mask) != prefix) continue;
        digit = kDigits - 1U - (key >> static_cast<unsigned>(shift) & (kDigits - 1U));
      }
      if constexpr (ByWeight) {
        WeightSum const weight = math::sample_weight(power);
        if (weight == 0) continue;
        atomicAdd(&shared.parts[0][digit], static_cast<unsigned>(weight & 0x1fffU));
        atomicAdd(&shared.parts[1][digit], static_cast<unsigned>(weight >> 13U & 0x1fffU));
        atomicAdd(&shared.parts[2][digit], static_cast<unsigned>(weight >> 26U));
      } else {
        atomicAdd(&shared.parts[0][digit], 1U);
      }
    }
    __syncthreads();
    row.turn ^= 1;
    if (thread < kDigits) {
      WeightSum sum = shared.parts[0][thread];
      if constexpr (ByWeight) {
        sum += (WeightSum{shared.parts[1][thread]} << 13U) + (WeightSum{shared.parts[2][thread]} << 26U);
      }
      shared.digits[row.turn][thread] = sum;
    }
    row.barrier();
    if (thread < kDigits) {
      WeightSum total = 0;
      for (int other = 0; other < row.blocks; ++other) total += *row.of_block(&shared.digits[row.turn][thread], other);
      shared.totals[thread] = total;
    }
    __syncthreads();
    unsigned const digit = find_digit(shared.totals, target);
    if (pass == 0) {
      first_digit = digit;
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
  SumsOfPart own{};
  for (int at = row.begin + RowPart::lane(); at < row.end; at += kWarpSize) {
    float const value = row.value(at);
    std::uint32_t const key = math::ordered_key(value);
    if (key < rule.cut.key) continue;
    WeightSum const weight = row.weight(value);
    if (key == rule.cut.key) {
      ++own.second;
    } else if (weight >= rule.least) {
      own.first += weight;
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
    part = row.sums_of(other);
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

/// The weights of all tokens at the rule's temperature, and those of the model.
template <class RowPart>
__device__ SumsOfPart sum_weights(RowPart& row, bool greedy) {
  bool const same = greedy || (!row.penalised && row.rule.temperature == 1.0F);
  float const most = math::ordered_score(row.found.logit);
  SumsOfPart own{};
  for (int at = row.begin + RowPart::lane(); at < row.end; at += kWarpSize) {
    float const value = row.value(at);
    float const logit = row.was_seen(at) ? row.logits[at] : value;
    own.second += math::sample_weight(math::sample_power(math::below_largest(logit, most), math::kSampleLog2E));
    if (!same) own.first += row.weight(value);
  }
  if (same) own.first = own.second;
  return row.sum(own);
}

/// One cluster of `arguments.blocks` blocks a row.
template <bool Resident, bool Cluster>
__global__ void __launch_bounds__(tuning::kSampleThreads, 2) sample_kernel(SampleArguments arguments) {
  extern __shared__ __align__(16) unsigned char sample_memory[];
  __shared__ SampleShared shared;
  SampleRow<Resident, Cluster> row(arguments, shared, sample_memory);
  row.mark_history(arguments.history);
  if (arguments.packed) {
    row.template load<4>();
  } else {
    row.template load<1>();
  }
  SamplingRule const& rule = row.rule;
  bool const first_thread = row.rank == 0 && threadIdx.x == 0;
  float const most = math::ordered_score(row.found.logit);
  if (row.found.unsound != 0 || most == -std::numeric_limits<float>::infinity()) {
    if (first_thread) {
      arguments.tokens[row.row] = -1;
      arguments.log_probabilities[row.row] = std::numeric_limits<float>::quiet_NaN();
    }
  } else {
    bool const greedy = !(rule.temperature > 0.0F);
    row.scale = greedy ? 1.0F : math::sample_scale(rule.temperature);
    SumsOfPart total = sum_weights(row, greedy);
    WeightSum const model_sum = total.second;
    int at = first_thread ? static_cast<int>(~static_cast<std::uint32_t>(row.found.penalised)) : -1;  // rank 0: a token
    if (!greedy) {
      SampleCut cut;
      WeightSum const least = math::min_p_weight(rule.min_p);
      WeightSum weight = total.first;
      bool const some = rule.top_k > 0 && rule.top_k < arguments.logits.cols;
      if (some) cut = select_likeliest<false>(row, static_cast<WeightSum>(rule.top_k));
      if (rule.top_p < 1.0F) {
        if (some) {
          KeptRule const all = kept_rule(row, cut, 0);
          weight = all.weight_of(sum_kept(row, all), 0);
        }
        cut = select_likeliest<true>(row, math::top_p_target(rule.top_p, weight));
      }
      KeptRule const kept = kept_rule(row, cut, least);
      if (some || rule.top_p < 1.0F || least > 0) total = sum_kept(row, kept);
      weight = kept.weight_of(total, 0);
      at = find_place(row, kept, math::sample_place(rule.seed, rule.counter, weight));
      if (threadIdx.x % kWarpSize != 0) at = -1;
    }
    if (at >= 0) {
      Token const token = greedy ? at : row.first_token + at;
      double const below = static_cast<double>(arguments.logits(row.row, token)) - static_cast<double>(most);
      arguments.tokens[row.row] = token;
      arguments.log_probabilities[row.row] = static_cast<float>(math::sample_log_probability(below, model_sum));
    }
  }
  row.barrier();  // no block ends while another reads its shared memory
}

}  // namespace mor::cuda
