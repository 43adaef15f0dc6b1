// SPDX-License-Identifier: Apache-2.0
/// @file
/// Tile sizes of the Hopper attention kernels. Plain C++.
///
/// A block is one warpgroup that fetches tiles and `warpgroups` that compute, each on 64 rows; it fills a
/// multiprocessor's registers: (fetch_registers + warpgroups * registers) * 128 = 65536 at most, each a multiple of 8.
#pragma once

#include "mor/core/types.hpp"

namespace mor::cuda::tuning {

inline constexpr int kAttentionSm90TileRows = 64;    ///< of a warpgroup, and of a copied box
inline constexpr Index kAttentionSm90ItemBytes = 32;  ///< of an entry of a work list

/// Forward: 64 queries of one head a warpgroup, `keys` keys a step. Keys and values: 2 * keys * HeadDim * 2 bytes a
/// stage.
template <int HeadDim>
struct AttentionSm90Forward;
template <>
struct AttentionSm90Forward<64> {
  static constexpr int warpgroups = 3, keys = 128, stages = 4, query_stages = 2;
  static constexpr int registers = 160, fetch_registers = 32;
  static constexpr bool in_turns = true;  ///< warpgroups issue products one after the other, in rotation
};
template <>
struct AttentionSm90Forward<128> {
  static constexpr int warpgroups = 2, keys = 128, stages = 2, query_stages = 2;
  static constexpr int registers = 232, fetch_registers = 40;
  static constexpr bool in_turns = true;
};

/// Gradients of keys and values: 64 keys a warpgroup, 64 queries of one head a step.
template <int HeadDim>
struct AttentionSm90KeyGradient;
template <>
struct AttentionSm90KeyGradient<64> {
  static constexpr int warpgroups = 2, stages = 6;
  static constexpr int registers = 232, fetch_registers = 40;
};
template <>
struct AttentionSm90KeyGradient<128> {
  static constexpr int warpgroups = 2, stages = 4;
  static constexpr int registers = 232, fetch_registers = 40;
};

/// Gradient of the queries: 64 queries of one head a warpgroup, 64 keys a step.
template <int HeadDim>
struct AttentionSm90QueryGradient;
template <>
struct AttentionSm90QueryGradient<64> {
  static constexpr int warpgroups = 3, stages = 6, query_stages = 2;
  static constexpr int registers = 160, fetch_registers = 32;
};
template <>
struct AttentionSm90QueryGradient<128> {
  static constexpr int warpgroups = 2, stages = 4, query_stages = 1;
  static constexpr int registers = 232, fetch_registers = 40;
};

/// log2 of the factor by which weights may outgrow the maximum they are taken against before sums are rescaled.
inline constexpr float kAttentionSm90Slack = 8.0F;

}  // namespace mor::cuda::tuning
