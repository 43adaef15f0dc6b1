// SPDX-License-Identifier: Apache-2.0
/// @file
/// One product of a layer in a stack: a pair's tiles of the weights times all rows. A warp holds its part of the rows'
/// columns in registers, for all tiles; weights come through the ring. The warps' sums meet in shared memory, and one warp
/// adds up 8 rows, in the order of the parts. The other block of the pair has the sums of the other half of the columns: each
/// sends the other those of every second row, and finishes the rest (of a lane's two rows the first or the second).
#pragma once

#include "mor/backend/cuda/kernels/computed_here.cuh"
#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/kernels/pointwise.cuh"
#include "mor/backend/cuda/kernels/stack_block.cuh"
#include "mor/backend/cuda/kernels/stack_columns.cuh"

#include <cstdint>

namespace mor::cuda {

/// One product of one layer, by all warps that compute. Each product has code of its own: every instruction counts, since
/// between the arrival of a layer's rows and its results hardly anything runs side by side.
template <int Which, int RowTiles>
class StackMultiplication {
  using Plan = tuning::StackPlan;
  using Stack = tuning::Stack;
  using Columns = StackColumns<RowTiles>;
  static constexpr int kChunks = Stack::warp_chunks;
  static constexpr bool kNormed = Which == Plan::Project || Which == Plan::GateUp;
  static constexpr bool kOneSlab = Which != Plan::Down;  ///< rows are read once for all tiles
  static constexpr bool kAhead = RowTiles <= 4;          ///< registers hold the columns of two slabs
  /// Tiles whose sums meet together: a warp gets 8 rows of one of them. The last product's tiles take long, and are few.
  static constexpr int kTiles = kOneSlab ? Stack::row_tiles / RowTiles : 1;

  /// What a lane has of 8 rows of a tile between its letter and its peer's: sums of column g and g + 8 (or of a pair) of one
  /// row, and that row's square.
  struct Fragment {
    bool any = false;
    int slot = 0, tile = 0, row_tile = 0;  ///< `slot`: the tile's number among those of the block
    float low = 0.0F, high = 0.0F, square = 0.0F;
    std::uint32_t residual = 0;
  };

 public:
  __device__ __forceinline__ explicit StackMultiplication(StackBlock& block)
      : block_(block), plan_(block.arguments.plan), recipe_(block.recipes()[Which]), rows_(block.rows),
        warp_(computed_here(StackBlock::warp())), lane_(computed_here(StackBlock::lane())) {}

  __device__ __forceinline__ void run() {
    if (recipe_.tile >= recipe_.tiles) {
      if (Which == Plan::Project) block_.wait_for_fence();
      return;
    }
    ExchangedRows const from = source(recipe_);
    [[maybe_unused]] Columns columns;
    if constexpr (kOneSlab) bring_all(from, columns);
    if (Which == Plan::Project) block_.wait_for_fence();
    Fragment last;
    // Each 8 rows of each of some tiles belong to a warp of their own. What waits for a letter is finished after the next tiles.
#pragma unroll 1
    for (int slot = 0;; slot += kTiles) {
      Fragment now;
      bool const more = tile_of(slot) < recipe_.tiles;
      if (more) {
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
          if (tile_of(slot + i) >= recipe_.tiles) break;
          float sums[RowTiles][4] = {};
          if constexpr (kOneSlab) {
            multiply(StackPart(slab(0), warp_), columns, sums);
          } else {
            if (slot == 0 && i == 0) wait_for_some(from, StackPart(slab(0), warp_));
            multiply_slabs(from, sums);
          }
          give(i, sums);
        }
        now = fragment_of(slot);
        if (!kNormed && now.any) now.residual = request_residual(now);
        block_.meet();
        if (now.any) halve(now);
        block_.next_room();
      }
      if (last.any) finish(last);
      if (!more) break;
      last = now;
    }
  }

 private:
  /// The block's `slot`-th tile.
  [[nodiscard]] __device__ __forceinline__ int tile_of(int slot) const { return recipe_.tile + slot * plan_.pairs; }
  /// The warp's 8 rows of the tiles from `slot` on that meet together.
  [[nodiscard]] __device__ __forceinline__ Fragment fragment_of(int slot) const {
    int const own = slot + warp_ / RowTiles, row_tile = warp_ % RowTiles, tile = tile_of(own);
    return {warp_ / RowTiles < kTiles && tile < recipe_.tiles && 8 * row_tile < rows_, own, tile, row_tile};
  }
  [[nodiscard]] __device__ __forceinline__ tuning::StackSlab slab(int s) const { return tuning::stack_slab(recipe_.chunks, s); }
  /// The rows of this layer that a product multiplies.
  [[nodiscard]] __device__ __forceinline__ ExchangedRows source(tuning::StackRecipe const& of) const {
    return block_.exchange.buffer(block_.slot, of.source, of.stride);
  }
  /// The layer's input, or what the MLP gets.
  [[nodiscard]] __device__ __forceinline__ ExchangedRows residual_source() const {
    return source(block_.recipes()[Which == Plan::Output ? Plan::Project : Plan::GateUp]);
  }

  /// Waits until a little of what a product needs is there, so that asking for all is worth it: when many ask again and again
  /// for the same lines, these answer slowly. So nobody looks at more than one line, and with few rows one warp looks for all,
  /// each pair at another place. A row in the middle comes as late as most.
  __device__ __forceinline__ void wait_for_some(ExchangedRows const& from, StackPart const& part) const {
    if (RowTiles > 2) {
      if (part.count > 0) wait_for_words(from, part.begin, rows_ / 2);
    } else {
      if (warp_ == 0) wait_for_words(from, StackBlock::pair() % slab(0).count, rows_ / 2);
      block_.meet();
    }
  }
  __device__ __forceinline__ void wait_for_words(ExchangedRows const& from, int chunk, int row) const {
    bfloat16 const* const at = from.at(row, (recipe_.begin + chunk) * Stack::chunk) + lane_ % 4 * 8;
    while (__any_sync(kAllLanes, largest_word(load_exchanged(at)) == kAbsent)) __nanosleep(Stack::pause);
  }
  __device__ __forceinline__ void request(ExchangedRows const& from, int s, Columns& columns) const {
    tuning::StackSlab const slab = this->slab(s);
    StackPart const part(slab, warp_);
    columns.request(from, recipe_.begin + slab.begin + part.begin, part.count, rows_, lane_);
  }
  /// Waits for a slab's columns that have been asked for.
  __device__ __forceinline__ void wait_for(ExchangedRows const& from, int s, Columns& columns) const {
    tuning::StackSlab const slab = this->slab(s);
    while (columns.absent()) columns.request_absent(from, recipe_.begin + slab.begin + StackPart(slab, warp_).begin, rows_, lane_);
  }
  __device__ __forceinline__ void bring(ExchangedRows const& from, int s, Columns& columns) const {
    request(from, s, columns);
    wait_for(from, s, columns);
  }
  /// All columns of a product of one slab, normed where the product says so.
  __device__ __forceinline__ void bring_all(ExchangedRows const& from, Columns& columns) const {
    StackPart const part(slab(0), warp_);
    if constexpr (kNormed) {
      bfloat16 const* const weights = block_.vectors()[block_.layer].norms[Which / Plan::GateUp];
      auto const* const at = reinterpret_cast<uint4 const*>(weights + (recipe_.begin + part.begin) * Stack::chunk) + lane_ % 4;
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
  __device__ __forceinline__ void multiply_slabs(ExchangedRows const& from, float (&sums)[RowTiles][4]) {
    int const slabs = (recipe_.chunks + Stack::slab_chunks - 1) / Stack::slab_chunks;
    Columns columns;
    if constexpr (kAhead) {
      Columns others;
      request(from, 0, columns);
#pragma unroll 1
      for (int s = 0; s < slabs; s += 2) {
        multiply_slab(from, s, slabs, columns, others, sums);
        if (s + 1 < slabs) multiply_slab(from, s + 1, slabs, others, columns, sums);
      }
    } else {
#pragma unroll 1
      for (int s = 0; s < slabs; ++s) {
        bring(from, s, columns);
        multiply(StackPart(slab(s), warp_), columns, sums);
      }
    }
  }
  /// Asks for the columns of the next slab before it uses those that it has asked for.
  __device__ __forceinline__ void multiply_slab(ExchangedRows const& from, int s, int slabs, Columns& now, Columns& next,
                                                float (&sums)[RowTiles][4]) {
    if (s + 1 < slabs) request(from, s + 1, next);
    wait_for(from, s, now);
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
  /// The warp's sums of the i-th tile of those that meet: [warps, tiles, row tiles, lanes].
  __device__ __forceinline__ void give(int i, float const (&sums)[RowTiles][4]) const {
    auto* const to = reinterpret_cast<float4*>(block_.sums_room()) + (warp_ * kTiles + i) * RowTiles * kWarpSize + lane_;
#pragma unroll
    for (int j = 0; j < RowTiles; ++j) {
      if (8 * j < rows_) to[j * kWarpSize] = make_float4(sums[j][0], sums[j][1], sums[j][2], sums[j][3]);
    }
  }

  /// Adds up the warps' sums of 8 rows, and sends the other block those of the rows that it finishes.
  __device__ __forceinline__ void halve(Fragment& fragment) const {
    int const place = kTiles > 1 ? warp_ : fragment.row_tile;  // tile by tile
    auto const* const parts = reinterpret_cast<float4 const*>(block_.sums_room()) + place * kWarpSize + lane_;
    float4 total = parts[0];
#pragma unroll
    for (int p = 1; p < Stack::warps; ++p) {
      float4 const part = parts[p * kTiles * RowTiles * kWarpSize];
      total = make_float4(__fadd_rn(total.x, part.x), __fadd_rn(total.y, part.y), __fadd_rn(total.z, part.z), __fadd_rn(total.w, part.w));
    }
    float2 const square = kNormed ? squares(fragment.row_tile) : make_float2(0.0F, 0.0F);
    bool const second = StackBlock::side() != 0;
    block_.mail.send(make_float4(second ? total.x : total.y, second ? total.z : total.w, second ? square.x : square.y, 0.0F));
    fragment.low = second ? total.y : total.x;
    fragment.high = second ? total.w : total.z;
    fragment.square = second ? square.y : square.x;
  }
  /// Sums of squares of this lane's two rows, over the block's columns.
  [[nodiscard]] __device__ __forceinline__ float2 squares(int row_tile) const {
    float const* from = block_.squares() + row_tile * 8 + lane_ % 4 * 2;
    float2 total = *reinterpret_cast<float2 const*>(from);
#pragma unroll
    for (int p = 1; p < Stack::warps; ++p) {
      float2 const part = *reinterpret_cast<float2 const*>(from + p * RowTiles * 8);
      total = make_float2(__fadd_rn(total.x, part.x), __fadd_rn(total.y, part.y));
    }
    return total;
  }

  [[nodiscard]] __device__ __forceinline__ bool odd_column() const { return lane_ / 4 % 2 != 0; }
  [[nodiscard]] __device__ __forceinline__ int finished_row(Fragment const& fragment) const {
    return 8 * fragment.row_tile + lane_ % 4 * 2 + StackBlock::side();
  }
  /// A lane writes a pair of neighbouring columns: of column g's pair the low one where g is even, and else the high one.
  [[nodiscard]] __device__ __forceinline__ int finished_column(StackTile const& at) const {
    return (odd_column() ? at.high : at.low) + (lane_ / 4 & ~1);
  }
  /// That pair, of which each lane has one.
  [[nodiscard]] __device__ __forceinline__ float2 join(float low, float high) const {
    float const given = __shfl_xor_sync(kAllLanes, odd_column() ? low : high, 4);
    return odd_column() ? make_float2(given, high) : make_float2(low, given);
  }

  [[nodiscard]] __device__ __forceinline__ std::uint32_t request_residual(Fragment const& fragment) const {
    ExchangedRows const from = residual_source();
    StackTile const at(block_.arguments, Which, fragment.tile);
    return load_exchanged_pair(from.at(min(finished_row(fragment), rows_ - 1), finished_column(at)));
  }

  __device__ __forceinline__ void finish(Fragment& fragment) const {
    float4 const letter = block_.mail.receive();
    StackTile const at(block_.arguments, Which, fragment.tile);
    float low = __fadd_rn(fragment.low, letter.x), high = __fadd_rn(fragment.high, letter.y);
    if constexpr (kNormed) {
      auto const& arguments = block_.arguments;
      float const factor = rsqrtf(__fmaf_rn(__fadd_rn(fragment.square, letter.z), arguments.by_hidden, arguments.eps));
      low = __fmul_rn(low, factor);
      high = __fmul_rn(high, factor);
      if constexpr (Which == Plan::GateUp) {
        low = activated(low, high);
      } else {
        turn(fragment, at, low, high);
      }
    }
    int const row = finished_row(fragment);
    if constexpr (Which == Plan::GateUp) {
      float const next = __shfl_xor_sync(kAllLanes, low, 4);
      if (row < rows_ && !odd_column()) publish(row, finished_column(at), pack_bfloat16(low, next));
      return;
    }
    float2 pair = join(low, high);
    if constexpr (!kNormed) {
      while (__any_sync(kAllLanes, fragment.residual == kAbsent)) fragment.residual = request_residual(fragment);
      pair.x = __fadd_rn(pair.x, __uint_as_float(fragment.residual << 16));
      pair.y = __fadd_rn(pair.y, __uint_as_float(fragment.residual & 0xffff0000U));
    }
    std::uint32_t const words = pack_bfloat16(pair.x, pair.y);
    if (row < rows_) publish(row, finished_column(at), words);
    if (Which == Plan::Project && at.low >= plan_.shape.queries) write_key(at, row, words);
  }

  /// silu(gate) * value
  [[nodiscard]] static __device__ __forceinline__ float activated(float gate, float value) {
    return __fmul_rn(value, __fmul_rn(gate, sigmoid_of<bfloat16>(gate)));
  }

  /// Writes a result, and takes back that of the layer before.
  __device__ __forceinline__ void publish(int row, int column, std::uint32_t pair) const {
    constexpr bool down = Which == Plan::Down;
    if (down && block_.layer + 1 == block_.arguments.layers) {
      auto const& arguments = block_.arguments;
      *reinterpret_cast<std::uint32_t*>(arguments.out.row(row) + column) = pair;
      if (arguments.kept.data != nullptr) *reinterpret_cast<std::uint32_t*>(arguments.kept.row(block_.targets()[row]) + column) = pair;
      return;
    }
    auto const in = [&](int slot) { return block_.exchange.buffer(slot, recipe_.result, recipe_.width).at(row, column); };
    store_exchanged(in(down ? block_.next_slot : block_.slot), pair);
    store_exchanged(in(down ? block_.slot : block_.last_slot), kAbsent);
  }

  /// Queries and keys are turned to their positions.
  __device__ __forceinline__ void turn(Fragment const& fragment, StackTile const& at, float& low, float& high) const {
    if (at.low >= plan_.shape.queries + plan_.shape.keys) return;
    float2 const angle = block_.turns()[(fragment.slot * Stack::finished_rows + 4 * fragment.row_tile + lane_ % 4) * 8 + lane_ / 4];
    float const turned = __fmaf_rn(low, angle.x, -__fmul_rn(high, angle.y));
    high = __fmaf_rn(high, angle.x, __fmul_rn(low, angle.y));
    low = turned;
  }

  /// Keys and values go to their places.
  __device__ __forceinline__ void write_key(StackTile const& at, int row, std::uint32_t pair) const {
    auto const& shape = plan_.shape;
    int const place = row < rows_ ? block_.places()[row] : -1;
    if (place >= 0) {
      int const value = at.low >= shape.queries + shape.keys ? 1 : 0;
      bfloat16* const to = block_.vectors()[block_.layer].planes[value] + Index{place} * block_.arguments.plane_stride +
                           finished_column(at) - shape.queries - (value != 0 ? shape.keys : 0);
      *reinterpret_cast<std::uint32_t*>(to) = pair;
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
