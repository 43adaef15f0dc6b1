// SPDX-License-Identifier: Apache-2.0
/// @file
/// How one launch multiplies a few rows by the head's weights and draws their tokens: what a block keeps in shared memory,
/// first of the product and then of a row's logits. Plain C++.
///
/// The columns of a logit are summed in one order, 16 at a time from the first on, so a row has the same bits however many
/// rows there are and wherever it stands.
#pragma once

#include "mor/backend/cuda/tuning/sampling.hpp"
#include "mor/core/types.hpp"

#include <algorithm>

namespace mor::cuda::tuning {

struct HeadSampling {
  static constexpr int tile = 64;      ///< tokens of a tile, rows at most, and columns of a box
  static constexpr int most_rows = tile;
  static constexpr int box_bytes = tile * tile * 2;
  static constexpr int threads = kSampleThreads, warps = kSampleWarps;
  /// The last warpgroup multiplies, so that the first warp, which reads the rule, has time for that; and who brings weights.
  static constexpr int product_warps = 4, first_product_warp = warps - product_warps, fetch_warp = first_product_warp - 1;
  /// Boxes of weights on their way at most: more of them, from all blocks, take longer to come.
  static constexpr int most_stages = 8, least_stages = 4;
};

/// Offsets are bytes of shared memory, from a multiple of 1024 on; those of boxes are such multiples themselves.
struct HeadSamplingPlan {
  int tiles = 0, boxes = 0;  ///< of the weights; side by side in a tile
  int stages = 0;            ///< boxes of weights that have room
  int barriers_at = 0, factors_at = 0, rows_at = 0, ring_at = 0;
  Index room = 0;  ///< bytes for a row's logits, from `rows_at` on
  Index shared_bytes = 0;  ///< of a launch
  bool possible = false;

  constexpr HeadSamplingPlan() = default;
  /// @param block_bytes  shared memory that a block may have
  constexpr HeadSamplingPlan(Index columns, Index vocabulary, Index block_bytes)
      : tiles(static_cast<int>((vocabulary + HeadSampling::tile - 1) / HeadSampling::tile)),
        boxes(static_cast<int>((columns + HeadSampling::tile - 1) / HeadSampling::tile)) {
    constexpr int boundary = 1024;
    barriers_at = static_cast<int>(kSampleSmallBytes);
    factors_at = barriers_at + 2 * HeadSampling::most_stages * 8;
    rows_at = (factors_at + HeadSampling::most_rows * 4 + boundary - 1) / boundary * boundary;
    Index const ring = rows_at + Index{boxes} * HeadSampling::box_bytes;
    ring_at = static_cast<int>(ring);
    shared_bytes = block_bytes - boundary;  // leaves what a block of another kernel takes beside this one
    Index const usable = shared_bytes - boundary;  // dynamic shared memory may start anywhere
    room = usable - rows_at;
    Index const fit = (usable - ring) / HeadSampling::box_bytes;
    stages = static_cast<int>(std::min<Index>(fit, HeadSampling::most_stages));
    possible = columns > 0 && columns % 8 == 0 && vocabulary > 0 && stages >= HeadSampling::least_stages;
  }
};

}  // namespace mor::cuda::tuning
