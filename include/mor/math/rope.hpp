// SPDX-License-Identifier: Apache-2.0
/// @file
/// Angles of rotary position embeddings (Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding",
/// 2021), in the half-split pairing that Hugging Face Llama uses.
#pragma once

#include "mor/core/types.hpp"

#include <cmath>

namespace mor::math {

/// theta^(-2 pair / head_dim): radians per position of the pair (`pair`, `pair + head_dim / 2`).
[[nodiscard]] MOR_HOST_DEVICE inline double rope_frequency(Index pair, Index head_dim, double theta) {
  return std::pow(theta, -2.0 * static_cast<double>(pair) / static_cast<double>(head_dim));
}

/// The rotation of a pair at a position, in radians. Double, because a float loses the angle at position 10^4.
[[nodiscard]] MOR_HOST_DEVICE inline double rope_angle(Row position, double frequency) {
  return static_cast<double>(position) * frequency;
}

}  // namespace mor::math
