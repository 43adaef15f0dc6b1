// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a block of a stack finds out once: places of columns and keys, and the angles of positions.
///
/// All blocks read the same few lines of the rows' lists at the same time, and a line answers one after the other: so of a
/// block no two warps read the same list, where that can be avoided.
#pragma once

#include "mor/backend/cuda/kernels/listed_row.cuh"
#include "mor/backend/cuda/kernels/rope.cuh"
#include "mor/backend/cuda/kernels/stack_places.cuh"
#include "mor/backend/cuda/kernels/stack_weights.cuh"
#include "mor/core/types.hpp"

#include <cstddef>

namespace mor::cuda {

/// By the warps that compute, which do different parts: these take long one after the other.
class StackFacts : public StackPlaces {
  using Stack = tuning::Stack;

 public:
  __device__ __forceinline__ explicit StackFacts(StackPlaces const& places) : StackPlaces(places) {}

  /// What follows from the launch's arguments: places of columns, and addresses of the layers, since the cache for constants
  /// holds less than the arguments.
  __device__ __forceinline__ void find_layers() const {
    if (warp() != 0) return;
    using Buffers = tuning::StackBuffers;
    for (int layer = lane(); layer < arguments.layers; layer += kWarpSize) vectors()[layer] = arguments.vectors[layer];
    if (lane() >= tuning::StackPlan::Products) return;
    auto const& of = plan.products[static_cast<std::size_t>(lane())];
    auto const nibble = [&](unsigned buffers) { return static_cast<std::size_t>(buffers >> (4 * lane()) & 15U); };
    // In the order of the products.
    auto const source = nibble(Buffers::Input | Buffers::Attended << 4 | Buffers::Middle << 8 | Buffers::Activated << 12);
    auto const result = nibble(Buffers::Projected | Buffers::Middle << 4 | Buffers::Activated << 8 | Buffers::Input << 12);
    tuning::StackSlab const half = of.half(side());
    recipes()[lane()] = {of.first_tile(pair(), plan.pairs), of.tiles, half.begin, half.count,
                         plan.offsets[source], plan.widths[source], plan.offsets[result], plan.widths[result]};
  }
  /// What follows from the rows. Then all have met.
  __device__ __forceinline__ void find_rows(int rows) const {
    constexpr int row_warps = Stack::most_rows / kWarpSize, first_row_warp = 1, first_turn_warp = first_row_warp + row_warps;
    static_assert(first_turn_warp < Stack::warps && Stack::kept_units * Stack::warps <= kWarpSize);
    if (warp() == 0) {
      find_first_keys(rows);
    } else if (warp() < first_turn_warp) {
      find_row(static_cast<int>(threadIdx.x) - first_row_warp * kWarpSize, rows);
    } else {
      find_turns(rows, warp() - first_turn_warp, Stack::warps - first_turn_warp);
    }
    meet();
  }

 private:
  __device__ __forceinline__ void find_row(int row, int rows) const {
    if (row >= rows) return;
    bool const same = arguments.read.begins == arguments.write.begins && arguments.read.limits == arguments.write.limits;
    int const begin = arguments.read.begins[row], limit = arguments.read.limits[row];
    int const own_begin = same ? begin : arguments.write.begins[row], own_limit = same ? limit : arguments.write.limits[row];
    limits()[row] = limit;
    begins()[row] = begin;
    targets()[row] = arguments.kept.data != nullptr ? static_cast<int>(listed_row(arguments.targets, row)) : 0;
    places()[row] = own_limit > 0 ? place_of(own_begin, own_limit - 1) : -1;
  }
  /// By `warps` warps, of which this is number `warp`, each four rows at a time.
  __device__ __forceinline__ void find_turns(int rows, int warp, int warps) const {
    constexpr int rows_at_once = kWarpSize / 8;
    static_assert(Stack::finished_rows == kWarpSize);
    int const mine = lane() * Stack::pair + side();
    Row const position = mine < rows ? arguments.positions[mine] : 0;
    auto const& product = plan.products[tuning::StackPlan::Project];
    for (int tile = product.first_tile(pair(), plan.pairs), i = 0; tile < product.tiles; tile += plan.pairs, ++i) {
      StackTile const at(arguments, tuning::StackPlan::Project, tile);
      if (at.low >= plan.shape.queries + plan.shape.keys) continue;
      double const frequency = arguments.angles.of_pair(at.low % plan.shape.head_dim + lane() % 8);
      for (int first = warp * rows_at_once; first * Stack::pair < rows; first += warps * rows_at_once) {
        int const row = first + lane() / 8;  // of those that the block finishes
        TurnedUnit const unit = turn_unit(__shfl_sync(kAllLanes, position, row) * frequency);
        turns()[(i * Stack::finished_rows + row) * 8 + lane() % 8] = make_float2(unit.cosine, unit.sine);
      }
    }
  }
  __device__ __forceinline__ void find_first_keys(int rows) const {
    int const unit = first_unit() + lane() / Stack::warps * plan.blocks;
    if (lane() >= Stack::kept_units * Stack::warps || unit >= rows * plan.shape.kv_heads) return;
    int const row = unit / plan.shape.kv_heads, key = lane() % Stack::warps * Stack::step_keys;
    firsts()[lane()] = key < arguments.read.limits[row] ? place_of(arguments.read.begins[row], key) : 0;
  }
};

}  // namespace mor::cuda
