// SPDX-License-Identifier: Apache-2.0
/// @file
/// How the next token of one sequence is drawn: plain data that goes to wherever the logits are.
#pragma once

#include "mor/core/types.hpp"

#include <cstdint>

namespace mor {

/// Of one row of logits; the defaults draw from the model's own distribution. What each means: `mor::math::sample_row`.
struct SamplingRule {
  std::uint64_t seed = 0;
  std::uint64_t counter = 0;        ///< index of the random number: the position of the new token
  float temperature = 1.0F;         ///< 0 or more, finite; 0: the likeliest token, the lowest id on a tie
  float top_p = 1.0F;               ///< 0 to 1
  float min_p = 0.0F;               ///< 0 to 1
  float repetition_penalty = 1.0F;  ///< above 0, finite
  Row top_k = 0;                    ///< 0: all
  Row history_begin = 0;            ///< where the tokens begin to which the penalty applies, in the list of all rows
  Row history_length = 0;           ///< their number; repeated ones count once, ones outside the vocabulary not at all
};

}  // namespace mor
