// SPDX-License-Identifier: Apache-2.0
/// @file
/// Drawing a token from a row of logits: a cluster of blocks reads the row once, keeps it in shared memory, and finds
/// by exact sums of integers what is kept and where the random number falls. No sum depends on an order.
#pragma once

#include "mor/backend/cuda/kernels/cluster.cuh"
#include "mor/backend/cuda/kernels/overlap.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/kernels/sampling_list.cuh"
#include "mor/backend/cuda/kernels/sampling_row.cuh"
#include "mor/backend/cuda/kernels/sampling_weight.cuh"
#include "mor/backend/cuda/tuning/architecture.hpp"
#include "mor/backend/cuda/tuning/sampling.hpp"
#include "mor/math/ordering.hpp"
#include "mor/math/sampling.hpp"

#include <cstdint>
#include <limits>

namespace mor::cuda {

/// The largest value's token, the lowest of them, in the row's first warp; -1 in all others. `model_sum` is a thread's
/// sum of the model's weights, and becomes the row's there.
template <class RowPart>
__device__ Token take_likeliest(RowPart& row, WeightSum& model_sum) {
  if (row.own_most == row.largest) atomicMin(&row.shared.first, row.own_first());
  SumsOfPart block = row.sum_block({0, model_sum});  // with a barrier
  block.first = static_cast<WeightSum>(row.shared.first);
  row.tell(block, 0, [] {});
  if (row.rank != 0 || row.warp() != 0) return -1;
  model_sum = row.sum_told(row.blocks).second;
  int const token =
      row.lane() < row.blocks ? static_cast<int>(row.told_by(row.lane()).first) : std::numeric_limits<int>::max();
  return static_cast<Token>(__reduce_min_sync(kAllLanes, static_cast<unsigned>(token)));
}

/// The place in the part of the token through which weights sum to more than `place`, in the one warp that has it; -1
/// in all others. The sums of the row are as last exchanged.
template <class RowPart>
__device__ int find_weight(RowPart const& row, WeightSum place, float least_share) {
  WeightSum before = row.sum_told(row.rank).first;
  if (place < before || place - before >= row.told_by(row.rank).first) return -1;
  place -= before;
  auto const& sums = row.shared.sums;
  before = sum_over_warp(RowPart::lane() < RowPart::warp() ? sums[RowPart::lane()].first : 0);
  if (place < before || place - before >= sums[RowPart::warp()].first) return -1;
  place -= before;
  for (int first = row.begin; first < row.end; first += RowPart::step) {
    int const at = first + 4 * RowPart::lane();
    float four[4];
    if (at < row.end) row.read_values(at, four);
    WeightSum weights[4], own = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      float const share = at < row.end ? power_share(row.power(four[j])) : 0.0F;
      own += weights[j] = share_weight(share >= least_share ? share : 0.0F);
    }
    WeightSum const all = sum_over_warp(own);
    if (place < all) return first + place_in_step(weights, own, place);
    place -= all;
  }
  return -1;
}

/// The token that the rule draws, and its value, in one warp; -1 in all others. `model_sum` becomes the row's.
template <class RowPart>
__device__ Token draw(RowPart& row, int vocabulary, WeightSum& model_sum, float& value) {
  SamplingRule const& rule = row.rule();
  bool const ordered = (rule.top_k > 0 && rule.top_k < vocabulary) || rule.top_p < 1.0F;
  float const least = ordered || !(rule.min_p > 0.0F) ? 0.0F : least_share(math::min_p_weight(rule.min_p));
  bool const same = rule.temperature == 1.0F && !row.penalised();
  if (!same) row.scale = math::sample_scale(rule.temperature);
  SumsOfPart sums{model_sum, model_sum};
  if (least > 0.0F) {
    sums.first = row.template own_weights<true>(least);
  } else if (!same) {
    sums.first = row.template own_weights<false>(0.0F);
  }
  Token token;
  if (ordered) {
    token = draw_ordered(row, vocabulary, sums, value);
  } else {
    sums = row.sum(sums);
    int const at = find_weight(row, math::multiply_high(row.shared.random, sums.first), least);
    token = at < 0 ? -1 : row.first_token + at;
    if (at >= 0) value = row.value(at);
  }
  model_sum = sums.second;
  return token;
}

/// Draws from a row. A block ends when all that others send it has come, and when none reads its memory: whoever read it has
/// told it something since.
template <bool Resident, bool Cluster>
__device__ __forceinline__ void sample_row(SampleArguments const& arguments, SampleRow<Resident, Cluster>& row) {
  if (arguments.packed) {
    row.template load<true>();
  } else {
    row.template load<false>();
  }
  row.wait_for_blocks();
  SamplingRule const& rule = row.rule();
  std::uint32_t const key = row.find_largest([&] {
    if (threadIdx.x == kWarpSize) row.shared.random = math::sample_random(rule.seed, rule.counter);
  });
  float const infinity = std::numeric_limits<float>::infinity();
  if (key >= math::ordered_key(infinity) || key == math::ordered_key(-infinity)) {  // all ones: NaN
    if (row.rank == 0 && threadIdx.x == 0) {
      arguments.tokens[row.row] = -1;
      arguments.log_probabilities[row.row] = std::numeric_limits<float>::quiet_NaN();
    }
    return;
  }
  float const most = math::ordered_score(key);
  row.largest = most;
  WeightSum model_sum = row.template own_weights<false>(0.0F);
  if (row.penalised()) row.penalise(arguments.history);
  Token token;
  float value = row.largest;
  if (rule.temperature > 0.0F) {
    token = draw(row, static_cast<int>(arguments.logits.cols), model_sum, value);
  } else {
    token = take_likeliest(row, model_sum);
  }
  if (token < 0 || row.lane() != 0) return;
  float const logit = row.penalised() ? arguments.logits(row.row, token) : value;
  double const below = static_cast<double>(logit) - static_cast<double>(most);
  arguments.tokens[row.row] = token;
  arguments.log_probabilities[row.row] = static_cast<float>(math::sample_log_probability(below, model_sum));
}

/// One cluster of `arguments.blocks` blocks a row.
template <bool Resident, bool Cluster>
__global__ void __launch_bounds__(tuning::kSampleThreads, 2) sample_kernel(SampleArguments arguments) {
  extern __shared__ __align__(16) unsigned char sample_memory[];
  if constexpr (Cluster) {
    wait_for_earlier_kernels<Sm90>();
    let_next_kernel_start<Sm90>();
  }
  if (arguments.count != nullptr && static_cast<Row>(blockIdx.x) >= *arguments.count * arguments.blocks) return;
  SampleRow<Resident, Cluster> row(arguments, *reinterpret_cast<SampleShared*>(sample_memory),
                                   sample_memory + tuning::kSampleSmallBytes);
  sample_row(arguments, row);
}

}  // namespace mor::cuda
