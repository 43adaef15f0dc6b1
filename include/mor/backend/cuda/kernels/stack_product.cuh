// SPDX-License-Identifier: Apache-2.0
/// @file
/// One product of a layer in a stack: a block's tiles of the weights times all rows. A warp holds its part of the rows'
/// columns in registers, for all tiles; weights come through the ring. The warps' sums meet in shared memory, and one warp
/// adds up 8 rows, in the order of the parts, and finishes them.
#pragma once

#include "mor/backend/cuda/kernels/few_rows_team.cuh"
#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/kernels/stack_block.cuh"
#include "mor/backend/cuda/kernels/stack_columns.cuh"

#include <cstdint>

namespace mor::cuda {

/// One product of one layer, by all warps that compute. Each product has code of its own: every instruction counts, since
/// between the arrival of a layer's rows and its results hardly anything runs side by side.
template <int Which, int RowTiles>
class StackMultiplication {
  using Plan = tuning::StackPlan;
  using Columns = StackColumns<RowTiles>;
  static constexpr int kChunks = tuning::Stack::warp_chunks;
  static constexpr bool kNormed = Which == Plan::Project || Which == Plan::GateUp;
  static constexpr bool kOneSlab = Which != Plan::Down;  ///< rows are read once for all tiles
  static constexpr bool kAhead = RowTiles == 1;          ///< registers hold the columns of two slabs

 public:
  __device__ __forceinline__ explicit StackMultiplication(StackBlock& block)
      : block_(block), plan_(block.arguments.plan), recipe_(block.recipes()[Which]), rows_(block.arguments.rows),
        warp_(computed_here(StackBlock::warp())), lane_(computed_here(StackBlock::lane())) {}

  __device__ __forceinline__ void run() {
    if (recipe_.tile >= recipe_.tiles) return;
    StackSource const from = Which == Plan::Project ? input() : exchanged(recipe_.source, recipe_.stride);
    Columns columns;
    if constexpr (kOneSlab) bring_all(from, columns);
    // Each 8 rows of each tile are finished by a warp of their own.
#pragma unroll 1
    for (int tile = recipe_.tile, slot = 0, own = warp_; tile < recipe_.tiles; tile += plan_.blocks, ++slot, own = next_own(own)) {
      bool const finishes = own < RowTiles && 8 * own < rows_;
      float sums[RowTiles][4] = {};
      if constexpr (kOneSlab) {
        multiply(StackPart(slab(0), warp_), columns, sums);
      } else {
        if (slot == 0) wait_for_some(from, StackPart(slab(0), warp_));
        multiply_slabs(from, columns, sums);
      }
      std::uint32_t residual[2];
      StackTile const at(block_.arguments, Which, tile);
      if (!kNormed && finishes) request_residual(at, own, residual);
      give(sums);
      block_.meet();
      if (finishes) finish(slot, at, own, residual);
      block_.next_room();
    }
  }

 private:
  [[nodiscard]] static __device__ __forceinline__ int next_own(int own) {
    return own - RowTiles + (own < RowTiles ? tuning::Stack::warps : 0);
  }
  [[nodiscard]] __device__ __forceinline__ StackSlab slab(int s) const {
    return {s * tuning::Stack::slab_chunks, min(tuning::Stack::slab_chunks, recipe_.chunks - s * tuning::Stack::slab_chunks)};
  }
  [[nodiscard]] __device__ __forceinline__ StackSource exchanged(int element, int stride) const {
    return {block_.exchange.at(block_.slot + element), stride, true};
  }
  /// The layer's input.
  [[nodiscard]] __device__ __forceinline__ StackSource input() const {
    auto const& x = block_.arguments.x;
    if (block_.layer == 0) return {x.data, static_cast<int>(x.stride), false};
    auto const& of = block_.recipes()[Plan::Project];
    return exchanged(of.source, of.stride);
  }
  [[nodiscard]] __device__ __forceinline__ StackSource residual_source() const {
    if (Which == Plan::Output) return input();
    auto const& of = block_.recipes()[Plan::GateUp];
    return exchanged(of.source, of.stride);
  }

  /// Waits until a little of what a product needs is there, so that asking for all is worth it: when all blocks ask again and
  /// again for the same lines, these answer slowly. With few rows one warp waits for all.
  __device__ __forceinline__ void wait_for_some(StackSource const& from, StackPart const& part) const {
    if (!from.exchanged) return;
    if ((RowTiles > 1 || warp_ == 0) && part.count > 0) {
      bfloat16 const* const at = from.data + (rows_ - 1) * from.stride + (part.begin + part.count - 1) * tuning::Stack::chunk + lane_ % 4 * 8;
      while (__any_sync(kAllLanes, largest_word(load_exchanged(at)) == kAbsent)) __nanosleep(tuning::Stack::pause);
    }
    if (RowTiles == 1) block_.meet();
  }
  __device__ __forceinline__ void request(StackSource const& from, int s, Columns& columns) const {
    StackSlab const slab = this->slab(s);
    StackPart const part(slab, warp_);
    columns.request(from, slab.begin + part.begin, part.count, rows_, lane_);
  }
  /// Waits for a slab's columns.
  __device__ __forceinline__ void bring(StackSource const& from, int s, Columns& columns) const {
    do {
      request(from, s, columns);
    } while (from.exchanged && columns.absent());
  }
  /// All columns of a product of one slab, normed where the product says so.
  __device__ __forceinline__ void bring_all(StackSource const& from, Columns& columns) const {
    StackPart const part(slab(0), warp_);
    if constexpr (kNormed) {
      bfloat16 const* const weights = block_.vectors()[block_.layer].norms[Which / Plan::GateUp];
      auto const* const at = reinterpret_cast<uint4 const*>(weights + part.begin * tuning::Stack::chunk) + lane_ % 4;
      uint4 norm[kChunks];
#pragma unroll
      for (int c = 0; c < kChunks; ++c) norm[c] = c < part.count ? __ldg(at + c * 4) : make_uint4(0U, 0U, 0U, 0U);
      wait_for_some(from, part);
      bring(from, 0, columns);
      float squares[RowTiles][4] = {};
      columns.weigh(norm, squares);
      give_squares(squares);
    } else {
      wait_for_some(from, part);
      bring(from, 0, columns);
    }
  }

  /// sums += the ring's next stage times the columns.
  __device__ __forceinline__ void multiply(StackPart const& part, Columns const& columns, float (&sums)[RowTiles][4]) {
    StackFragments const weights(block_.ring, part, lane_);
    weights.multiply(columns, sums);
    __syncwarp();
    if (lane_ == 0) block_.ring.release(weights.all_read() & block_.arguments.zero);
    block_.ring.advance();
  }
  /// All slabs of a tile.
  __device__ __forceinline__ void multiply_slabs(StackSource const& from, Columns& columns, float (&sums)[RowTiles][4]) {
    if constexpr (kAhead) {
      Columns others;
      request(from, 0, columns);
#pragma unroll 1
      for (int s = 0; s < recipe_.slabs; s += 2) {
        multiply_slab(from, s, columns, others, sums);
        if (s + 1 < recipe_.slabs) multiply_slab(from, s + 1, others, columns, sums);
      }
    } else {
#pragma unroll 1
      for (int s = 0; s < recipe_.slabs; ++s) {
        bring(from, s, columns);
        multiply(StackPart(slab(s), warp_), columns, sums);
      }
    }
  }
  /// Asks for the columns of the next slab before it uses those that it has asked for.
  __device__ __forceinline__ void multiply_slab(StackSource const& from, int s, Columns& now, Columns& next,
                                                float (&sums)[RowTiles][4]) {
    if (s + 1 < recipe_.slabs) request(from, s + 1, next);
    while (now.absent()) request(from, s, now);
    multiply(StackPart(slab(s), warp_), now, sums);
  }

  /// The square of row g is at column g: the lane with t = g / 2 has it.
  __device__ __forceinline__ void give_squares(float const (&squares)[RowTiles][4]) const {
    int const g = lane_ / 4;
    if (lane_ % 4 != g / 2) return;
#pragma unroll
    for (int j = 0; j < RowTiles; ++j) {
      block_.squares()[(warp_ * RowTiles + j) * 8 + g] = g % 2 == 0 ? squares[j][0] : squares[j][1];
    }
  }
  /// The warp's sums: [warps, row tiles, lanes].
  __device__ __forceinline__ void give(float const (&sums)[RowTiles][4]) const {
    auto* const to = reinterpret_cast<float4*>(block_.sums_room()) + warp_ * RowTiles * kWarpSize + lane_;
#pragma unroll
    for (int j = 0; j < RowTiles; ++j) to[j * kWarpSize] = make_float4(sums[j][0], sums[j][1], sums[j][2], sums[j][3]);
  }

  /// This lane finishes a pair of neighbouring columns of one row: of its two rows, 2t where g is even and else 2t + 1.
  [[nodiscard]] __device__ __forceinline__ int finished_row(int row_tile) const {
    return 8 * row_tile + lane_ % 4 * 2 + lane_ / 4 % 2;
  }
  [[nodiscard]] __device__ __forceinline__ int finished_column() const { return lane_ / 4 & ~1; }
  /// Results of column g of the lane's two rows become those of columns g, g + 1 (or g - 1, g) of one.
  [[nodiscard]] __device__ __forceinline__ float2 join(float first_row, float second_row) const {
    bool const odd = lane_ / 4 % 2 != 0;
    float const given = __shfl_xor_sync(kAllLanes, odd ? first_row : second_row, 4);
    return odd ? make_float2(given, second_row) : make_float2(first_row, given);
  }

  __device__ __forceinline__ void request_residual(StackTile const& at, int row_tile, std::uint32_t (&words)[2]) const {
    StackSource const from = residual_source();
    bfloat16 const* const row = from.data + min(finished_row(row_tile), rows_ - 1) * from.stride + finished_column();
    words[0] = load_exchanged_pair(row + at.low);
    words[1] = load_exchanged_pair(row + at.high);
  }

  /// Finishes 8 rows of a tile. @param slot  the tile's number among those of the block
  __device__ __forceinline__ void finish(int slot, StackTile const& at, int row_tile, std::uint32_t (&residual)[2]) const {
    auto const* const parts = reinterpret_cast<float4 const*>(block_.sums_room()) + row_tile * kWarpSize + lane_;
    float4 total = parts[0];
#pragma unroll
    for (int p = 1; p < tuning::Stack::warps; ++p) {
      float4 const part = parts[p * RowTiles * kWarpSize];
      total = make_float4(__fadd_rn(total.x, part.x), __fadd_rn(total.y, part.y), __fadd_rn(total.z, part.z), __fadd_rn(total.w, part.w));
    }
    int const row = finished_row(row_tile), column = at.low + finished_column();
    if constexpr (kNormed) {
      float2 const factor = norm_factors(row_tile);
      total = make_float4(__fmul_rn(total.x, factor.x), __fmul_rn(total.y, factor.y), __fmul_rn(total.z, factor.x), __fmul_rn(total.w, factor.y));
      if constexpr (Which == Plan::GateUp) {
        total.x = activated(total.x, total.z);
        total.y = activated(total.y, total.w);
      } else {
        turn(slot, at, row_tile, total);
      }
    }
    float2 low = join(total.x, total.y), high = join(total.z, total.w);
    if constexpr (!kNormed) {
      if (residual_source().exchanged) {
        while (__any_sync(kAllLanes, max(residual[0], residual[1]) == kAbsent)) request_residual(at, row_tile, residual);
      }
      add_pair(low, residual[0]);
      add_pair(high, residual[1]);
    }
    std::uint32_t const pairs[2] = {pack_bfloat16(low.x, low.y), pack_bfloat16(high.x, high.y)};
    int const gap = at.high - at.low;
    if (row < rows_) publish(row, column, gap, pairs);
    if (Which == Plan::Project && at.low >= plan_.shape.queries) write_keys(at, row, pairs);
  }

  /// silu(gate) * value
  [[nodiscard]] static __device__ __forceinline__ float activated(float gate, float value) {
    return __fmul_rn(value, __fmul_rn(gate, __fdividef(1.0F, __fadd_rn(1.0F, __expf(-gate)))));
  }
  static __device__ __forceinline__ void add_pair(float2& sum, std::uint32_t pair) {
    sum.x = __fadd_rn(sum.x, __uint_as_float(pair << 16));
    sum.y = __fadd_rn(sum.y, __uint_as_float(pair & 0xffff0000U));
  }

  /// 1 / sqrt(mean square + eps) of this lane's two rows.
  [[nodiscard]] __device__ __forceinline__ float2 norm_factors(int row_tile) const {
    float const* from = block_.squares() + row_tile * 8 + lane_ % 4 * 2;
    float2 total = *reinterpret_cast<float2 const*>(from);
#pragma unroll
    for (int p = 1; p < tuning::Stack::warps; ++p) {
      float2 const part = *reinterpret_cast<float2 const*>(from + p * RowTiles * 8);
      total = make_float2(__fadd_rn(total.x, part.x), __fadd_rn(total.y, part.y));
    }
    auto const& arguments = block_.arguments;
    return make_float2(rsqrtf(__fmaf_rn(total.x, arguments.by_hidden, arguments.eps)),
                       rsqrtf(__fmaf_rn(total.y, arguments.by_hidden, arguments.eps)));
  }

  /// Writes a result, and takes back that of the layer before. The second of SwiGLU's sums is no result.
  __device__ __forceinline__ void publish(int row, int column, int gap, std::uint32_t const (&pairs)[2]) const {
    constexpr bool down = Which == Plan::Down, both = Which != Plan::GateUp;
    if (down && block_.layer + 1 == block_.arguments.layers) {
      bfloat16* const to = block_.arguments.out.row(row) + column;
      *reinterpret_cast<std::uint32_t*>(to) = pairs[0];
      *reinterpret_cast<std::uint32_t*>(to + gap) = pairs[1];
      return;
    }
    int const place = recipe_.result + row * recipe_.width + column;
    bfloat16* const to = block_.exchange.at((down ? block_.next_slot : block_.slot) + place);
    store_exchanged(to, pairs[0]);
    if (both) store_exchanged(to + gap, pairs[1]);
    bfloat16* const last = block_.exchange.at((down ? block_.slot : block_.last_slot) + place);
    store_exchanged(last, kAbsent);
    if (both) store_exchanged(last + gap, kAbsent);
  }

  /// Queries and keys are turned to their positions.
  __device__ __forceinline__ void turn(int slot, StackTile const& at, int row_tile, float4& total) const {
    if (at.low >= plan_.shape.queries + plan_.shape.keys) return;
    int const first = (slot * tuning::Stack::most_rows + 8 * row_tile + lane_ % 4 * 2) * 8 + lane_ / 4;
    float2 const a = block_.turns()[first], b = block_.turns()[first + 8];
    total = make_float4(__fmaf_rn(total.x, a.x, -__fmul_rn(total.z, a.y)), __fmaf_rn(total.y, b.x, -__fmul_rn(total.w, b.y)),
                        __fmaf_rn(total.z, a.x, __fmul_rn(total.x, a.y)), __fmaf_rn(total.w, b.x, __fmul_rn(total.y, b.y)));
  }

  /// Keys and values go to their places.
  __device__ __forceinline__ void write_keys(StackTile const& at, int row, std::uint32_t const (&pairs)[2]) const {
    auto const& shape = plan_.shape;
    int const place = row < rows_ ? block_.places()[row] : -1;
    if (place >= 0) {
      int const value = at.low >= shape.queries + shape.keys ? 1 : 0;
      bfloat16* const to = block_.vectors()[block_.layer].planes[value] + Index{place} * block_.arguments.plane_stride + at.low +
                           finished_column() - shape.queries - (value != 0 ? shape.keys : 0);
      *reinterpret_cast<std::uint32_t*>(to) = pairs[0];
      *reinterpret_cast<std::uint32_t*>(to + at.high - at.low) = pairs[1];
    }
    if (block_.arguments.rows_apart) return;
    fence_device();
    __syncwarp();
    if (lane_ == 0) {
      asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(__cvta_generic_to_global(block_.exchange.count(block_.layer)))
                   : "memory");
    }
  }

  StackBlock& block_;
  Plan const& plan_;
  tuning::StackRecipe recipe_;
  int rows_;
  int const warp_, lane_;  ///< what follows from them does not wait in registers from product to product
};

}  // namespace mor::cuda
