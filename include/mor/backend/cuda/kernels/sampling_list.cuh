// SPDX-License-Identifier: Apache-2.0
/// @file
/// Top-k and top-p where a short list of the likeliest tokens decides: the blocks of a row gather it for the first of
/// them, in the order of ids, and that one draws from it.
#pragma once

#include "mor/backend/cuda/kernels/radix_digits.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/kernels/sampling_digits.cuh"
#include "mor/backend/cuda/kernels/sampling_row.cuh"
#include "mor/backend/cuda/kernels/sampling_weight.cuh"
#include "mor/backend/cuda/tuning/sampling.hpp"
#include "mor/math/sampling.hpp"

#include <cstdint>
#include <limits>

namespace mor::cuda {

/// More than any number of tokens.
inline constexpr WeightSum kAllTokens = WeightSum{1} << 40U;

/// Steps of a sixth in the power of two: the last digit is that of tokens without a weight (and of NaN), and of no
/// other.
__device__ __forceinline__ unsigned list_digit(float power) {
  return power > -41.0F ? static_cast<unsigned>(power * -6.0F) : kDigits - 1U;
}

/// A digit such that at least `wanted` tokens have it or a lower one; the last but one if fewer have a weight. Counts
/// only the largest value of each thread, so more tokens than `wanted` may have it. Exchanges `own`, too: its sums over
/// the row.
template <class RowPart>
__device__ unsigned digit_of_list(RowPart& row, WeightSum wanted, SumsOfPart& own) {
  auto& shared = row.shared;
  auto const thread = static_cast<int>(threadIdx.x);
  if (thread < kDigits) shared.parts[0][thread] = 0;
  __syncthreads();
  if (row.own_begin() < row.end) atomicAdd(&shared.parts[0][list_digit(row.power(row.own_most))], 1U);
  own = row.sum(own, sizeof(shared.counts[0]), [&] {
    int const to = RowPart::warp(), first = 8 * RowPart::lane();  // a warp tells a block
    if (to >= row.blocks) return;
    unsigned const* const counts = &shared.parts[0][first];
    row.send(*reinterpret_cast<uint4*>(&shared.counts[row.rank][first]),
             uint4{counts[0] | counts[1] << 16U, counts[2] | counts[3] << 16U, counts[4] | counts[5] << 16U,
                   counts[6] | counts[7] << 16U},
             to);
  });
  if (thread < kDigits) {
    WeightSum total = thread == kDigits - 1 ? kAllTokens : 0;
    for (int other = 0; other < row.blocks; ++other) total += shared.counts[other][thread];
    shared.totals[thread] = total;
  }
  __syncthreads();
  return min(find_digit(shared.totals, wanted), kDigits - 2U);
}

/// Weights and number of the row's tokens up to a digit.
template <class RowPart>
__device__ SumsOfPart sum_listed(RowPart& row, unsigned digit) {
  SumsOfPart own{};
  if (list_digit(row.power(row.own_most)) <= digit) {
    for (int at = row.own_begin(); at < row.end; at += RowPart::step) {
      float four[4];
      row.read_values(at, four);
#pragma unroll
      for (float const value : four) {
        float const power = row.power(value);
        if (list_digit(power) > digit) continue;
        own.first += share_weight(power_share(power));
        ++own.second;
      }
    }
  }
  return row.sum(own);
}

/// Writes the tokens up to a digit into the first block's list. The sums are those of `sum_listed`, as last exchanged.
template <class RowPart>
__device__ void write_list(RowPart& row, unsigned digit) {
  int const lane = RowPart::lane(), warp = RowPart::warp();
  if (row.shared.sums[warp].second == 0) return;
  auto to = static_cast<unsigned>(row.sum_told(row.rank).second);
  to += __reduce_add_sync(kAllLanes, lane < warp ? static_cast<unsigned>(row.shared.sums[lane].second) : 0U);
  unsigned const lower_lanes = (1U << static_cast<unsigned>(lane)) - 1U;
  for (int first = row.begin; first < row.end; first += RowPart::step) {
    int const at = first + 4 * lane;
    float four[4];
    if (at < row.end) row.read_values(at, four);
    bool listed[4];
    unsigned own = to;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      listed[j] = at < row.end && list_digit(row.power(four[j])) <= digit;
      unsigned const lanes = __ballot_sync(kAllLanes, listed[j]);
      own += static_cast<unsigned>(__popc(lanes & lower_lanes));
      to += static_cast<unsigned>(__popc(lanes));
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (listed[j]) row.send_listed(own++, {four[j], row.first_token + at + j});
    }
  }
}

/// The place of the drawn token in a short list, in the first warp; -1 in others. Every token is compared with every
/// other: the number and the weights of those before it in the order of likelihood say whether it is kept. `weight`: of
/// what top-k leaves if that leaves all of the list, or of the whole row.
template <class RowPart>
__device__ int draw_from_few(RowPart& row, int count, WeightSum weight) {
  static_assert(tuning::kSampleFew <= 4 * kWarpSize && tuning::kSampleFew <= tuning::kSampleThreads);
  auto& shared = row.shared;
  SamplingRule const& rule = row.rule();
  ListedToken const* const list = shared.list;
  auto const thread = static_cast<int>(threadIdx.x);
  if (thread < tuning::kSampleFew) shared.totals[thread] = thread < count ? row.weight(list[thread].value) : 0;
  __syncthreads();
  int group = kWarpSize;  // lanes of a token
  while (group * count > tuning::kSampleThreads) group /= 2;
  int const own = thread / group, part = thread % group;
  bool const some = rule.top_k > 0 && rule.top_k < count;
  int place = 0;
  WeightSum before = 0;
  for (int other = part; own < count && other < count; other += group) {
    float const value = list[other].value;
    bool const first = value > list[own].value || (value == list[own].value && other < own);
    place += first ? 1 : 0;
    before += first ? shared.totals[other] : 0;
  }
  for (int distance = group / 2; distance > 0; distance /= 2) {
    place += __shfl_xor_sync(kAllLanes, place, distance);
    before += __shfl_xor_sync(kAllLanes, before, distance);
  }
  WeightSum const own_weight = own < count ? shared.totals[own] : 0;
  if (some && own < count && part == 0 && place == rule.top_k - 1) shared.kept = before + own_weight;
  __syncthreads();  // all have read the totals
  if (some) weight = shared.kept;
  bool const kept = (!some || place < rule.top_k) &&
                    (!(rule.top_p < 1.0F) || before < math::top_p_target(rule.top_p, weight)) &&
                    own_weight >= math::min_p_weight(rule.min_p);
  if (own < count && part == 0 && !kept) shared.totals[own] = 0;
  __syncthreads();
  if (RowPart::warp() != 0) return -1;
  WeightSum weights[4], sum = 0;
#pragma unroll
  for (int j = 0; j < 4; ++j) sum += weights[j] = shared.totals[4 * RowPart::lane() + j];
  return place_in_step(weights, sum, math::multiply_high(shared.random, sum_over_warp(sum)));
}

/// The token that a rule with top-k or top-p draws, and its value, in one warp; -1 in all others. `own` are a thread's
/// weights at the temperature and of the model; they become the row's.
template <class RowPart>
__device__ Token draw_ordered(RowPart& row, int vocabulary, SumsOfPart& own, float& value) {
  SamplingRule const& rule = row.rule();
  bool const some = rule.top_k > 0 && rule.top_k < vocabulary;
  WeightSum const wanted = vocabulary <= tuning::kSampleList ? kAllTokens
                           : some                            ? static_cast<WeightSum>(rule.top_k)
                                                             : WeightSum{tuning::kSampleListAim};
  unsigned const digit = digit_of_list(row, wanted, own);
  SumsOfPart const listed = sum_listed(row, digit);
  // Nothing else has a weight, or the list holds the top k, or the share p.
  bool const decides = digit == kDigits - 2U || (some ? listed.second >= static_cast<WeightSum>(rule.top_k)
                                                      : listed.first >= math::top_p_target(rule.top_p, own.first));
  bool const is_short = decides && listed.second <= WeightSum{tuning::kSampleList};
  RowPart part = row;
  int count = vocabulary;
  if (is_short) {
    write_list(row, digit);
    if (row.rank != 0) return -1;
    count = static_cast<int>(listed.second);
    part.become_list(count);
    row.wait_for_list(count);
  }
  WeightSum const weight = some && is_short ? listed.first : own.first;
  int const at = is_short && count <= tuning::kSampleFew ? draw_from_few(part, count, weight)
                                                         : draw_by_digits(part, count, vocabulary, weight);
  if (at < 0) return -1;
  value = part.value(at);
  return is_short ? row.shared.list[at].token : row.first_token + at;
}

}  // namespace mor::cuda
