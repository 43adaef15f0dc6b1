// SPDX-License-Identifier: Apache-2.0
/// @file
/// How many tokens of a sequence a recursion keeps (mor-spec section 3.2): k = max(1, floor(c S)), S being the length
/// of the whole sequence and not of what the previous recursion left.
#pragma once

#include "mor/core/config.hpp"
#include "mor/core/error.hpp"
#include "mor/core/types.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>

namespace mor {

namespace detail {

inline void check_capacity_arguments(RecursionConfig const& config, Index step, Index sequence_length) {
  bool const known = step >= 0 && step < config.num_recursions &&
                     (config.capacities.empty() || static_cast<std::size_t>(step) < config.capacities.size());
  if (!known) {
    fail(ErrorCode::InvalidArgument, "no such recursion", "kept_tokens",
         "a step in [0, " + std::to_string(config.num_recursions) + ")", std::to_string(step));
  }
  if (sequence_length < 0) {
    fail(ErrorCode::InvalidArgument, "negative sequence length", "kept_tokens", "at least 0",
         std::to_string(sequence_length));
  }
}

}  // namespace detail

/// The share of tokens of recursion `step` (0-based): the configured one, or (Nr - step) / Nr.
[[nodiscard]] inline double capacity(RecursionConfig const& config, Index step) {
  detail::check_capacity_arguments(config, step, 0);
  if (!config.capacities.empty()) return config.capacities[static_cast<std::size_t>(step)];
  return static_cast<double>(config.num_recursions - step) / static_cast<double>(config.num_recursions);
}

/// Tokens that recursion `step` (0-based) keeps of a sequence: max(1, floor(c S)), and 0 of an empty sequence.
/// Without configured capacities, c = (Nr - step) / Nr and the product is exact: floor((Nr - step) S / Nr) in integers.
/// @throws mor::error InvalidArgument for a step or a length out of range
[[nodiscard]] inline Index kept_tokens(RecursionConfig const& config, Index step, Index sequence_length) {
  detail::check_capacity_arguments(config, step, sequence_length);
  if (sequence_length == 0) return 0;
  if (config.capacities.empty()) {
    // Splitting S into whole multiples of Nr and a rest keeps every product in range.
    Index const recursions = config.num_recursions, left = recursions - step;
    Index const whole = sequence_length / recursions, rest = sequence_length % recursions;
    return std::max<Index>(1, left * whole + left * rest / recursions);
  }
  double const product = std::floor(capacity(config, step) * static_cast<double>(sequence_length));
  return std::clamp<Index>(static_cast<Index>(product), 1, sequence_length);
}

/// The same while capacities warm up in training: the share is c + (1 - c) (1 + cos(pi min(1, t / W))) / 2, which falls
/// from nearly 1 to c over the first W forward calls.
/// @param forward_calls  t: forward calls (micro-batches) made, this one included, so 1 for the first
/// @param warmup_calls   W: length of the warm-up; 0 is none
[[nodiscard]] inline Index kept_tokens(RecursionConfig const& config, Index step, Index sequence_length,
                                       Index forward_calls, Index warmup_calls) {
  if (warmup_calls <= 0 || forward_calls >= warmup_calls) return kept_tokens(config, step, sequence_length);
  detail::check_capacity_arguments(config, step, sequence_length);
  if (sequence_length == 0) return 0;
  constexpr double pi = 3.14159265358979323846;
  double const progress = static_cast<double>(std::max<Index>(0, forward_calls)) / static_cast<double>(warmup_calls);
  double const share = capacity(config, step);
  double const warm = share + (1.0 - share) * 0.5 * (1.0 + std::cos(pi * progress));
  double const product = std::floor(warm * static_cast<double>(sequence_length));
  return std::clamp<Index>(static_cast<Index>(product), 1, sequence_length);
}

}  // namespace mor
