// SPDX-License-Identifier: Apache-2.0
/// @file
/// Logits of a few normed rows: a block takes tiles of 64 tokens in turns. One thread streams their weights through the copy
/// engine, as far ahead as there is room; a warpgroup multiplies all columns of a tile by the rows, both read from shared
/// memory by the tensor cores, so that no sums have to be joined.
#pragma once

#include "mor/backend/cuda/kernels/copy_ring.cuh"
#include "mor/backend/cuda/kernels/few_rows_input.cuh"
#include "mor/backend/cuda/kernels/few_rows_weights.cuh"
#include "mor/backend/cuda/kernels/listed_row.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/kernels/tma.cuh"
#include "mor/backend/cuda/kernels/wgmma.cuh"
#include "mor/backend/cuda/tuning/head_sampling.hpp"
#include "mor/core/dtype.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <cstdint>

namespace mor::cuda {

/// Operands: weights [V, D] as `weights`, rows of x, norm [D].
struct HeadProductArguments {
  TensorMap weights;
  View<bfloat16 const> x;
  Row const* sources = nullptr;  ///< row i is row sources[i] of x; null: row i
  int rows = 0;
  bfloat16 const* norm = nullptr;
  float eps = 0.0F, by_columns = 0.0F;  ///< 1 / D
  View<float> logits;
  tuning::HeadSamplingPlan plan;

  void note_to(auto& log) const { log.note(weights.opaque, x, sources, rows, norm, eps, by_columns, logits); }
};

using HeadRing = CopyRing<tuning::HeadSampling::most_stages, tuning::HeadSampling::box_bytes>;

/// The weights of a block, by one warp, which makes the ring. The first of them are asked for before anything else is known.
class HeadWeights {
 public:
  __device__ __forceinline__ HeadWeights(HeadProductArguments const& arguments, HeadRing const& ring)
      : arguments_(arguments), ring_(ring), first_(ring), policy_(cache_policy(true)), tile_(static_cast<int>(blockIdx.x)) {
    if (leads()) {
      prefetch_map(arguments.weights);
      ring.make(tuning::HeadSampling::product_warps);
      publish_barriers();
    }
    __syncwarp();
    for (; started_ < arguments.plan.stages && more(); ++started_) bring();
  }
  /// All others.
  __device__ __forceinline__ void bring_rest() {
    while (more()) {
      ring_.wait_until_empty();
      bring();
    }
  }
  /// Instead: waits for what has been asked for.
  __device__ __forceinline__ void leave() {
    for (; started_ > 0; --started_, first_.advance()) first_.wait_until_full();
  }

 private:
  [[nodiscard]] static __device__ __forceinline__ bool leads() { return threadIdx.x % kWarpSize == 0; }
  [[nodiscard]] __device__ __forceinline__ bool more() const { return tile_ < arguments_.plan.tiles; }
  __device__ __forceinline__ void bring() {
    using tuning::HeadSampling;
    if (leads()) {
      ring_.expect();
      copy_box(ring_.room(), arguments_.weights, ring_.full(), box_ * HeadSampling::tile, tile_ * HeadSampling::tile, policy_);
    }
    __syncwarp();
    ring_.advance();
    if (++box_ < arguments_.plan.boxes) return;
    box_ = 0;
    tile_ += static_cast<int>(gridDim.x);
  }

  HeadProductArguments const& arguments_;
  HeadRing ring_, first_;
  std::uint64_t policy_;
  int tile_, box_ = 0, started_ = 0;
};

/// By `warps` warps, of which this is number `warp`: x times the norm's weights in shared memory, as boxes of 64 x 64, and the
/// factor of each row that makes up for its size. Places of rows beyond `rows` keep what they hold: nobody needs their logits.
__device__ __forceinline__ void norm_head_rows(HeadProductArguments const& arguments, unsigned char* shared, int rows, int warp,
                                               int warps) {
  using tuning::HeadSampling;
  constexpr int unit = 8, box_units = HeadSampling::tile / unit, batch = 4;
  int const lane = static_cast<int>(threadIdx.x) % kWarpSize;
  int const valid = static_cast<int>(arguments.x.cols) / unit, units = arguments.plan.boxes * box_units;
  auto* const factors = reinterpret_cast<float*>(shared + arguments.plan.factors_at);
  for (int row = warp; row < rows; row += warps) {
    bfloat16 const* const from = arguments.x.row(listed_row(arguments.sources, row));
    float squares = 0.0F;
    for (int first = lane; first < units; first += batch * kWarpSize) {
      uint4 values[batch], norms[batch];
#pragma unroll
      for (int i = 0; i < batch; ++i) {
        int const at = first + i * kWarpSize;
        bool const inside = at < valid;
        values[i] = inside ? *reinterpret_cast<uint4 const*>(from + at * unit) : make_uint4(0U, 0U, 0U, 0U);
        norms[i] = inside ? __ldg(reinterpret_cast<uint4 const*>(arguments.norm + at * unit)) : make_uint4(0U, 0U, 0U, 0U);
      }
#pragma unroll
      for (int i = 0; i < batch; ++i) {
        int const at = first + i * kWarpSize;
        if (at >= units) continue;
        uint4 const& x = values[i];
        for (std::uint32_t const word : {x.x, x.y, x.z, x.w}) {
          float const low = __uint_as_float(word << 16U), high = __uint_as_float(word & 0xffff0000U);
          squares = fmaf(low, low, squares);
          squares = fmaf(high, high, squares);
        }
        int const place = arguments.plan.rows_at + at / box_units * HeadSampling::box_bytes + row * kSwizzleRowBytes +
                          (at % box_units ^ row % 8) * 16;
        *reinterpret_cast<uint4*>(shared + place) = make_uint4(multiply_pairs(x.x, norms[i].x), multiply_pairs(x.y, norms[i].y),
                                                               multiply_pairs(x.z, norms[i].z), multiply_pairs(x.w, norms[i].w));
      }
    }
    squares = warp_sum(squares);
    if (lane == 0) factors[row] = rsqrtf(__fmaf_rn(squares, arguments.by_columns, arguments.eps));
  }
  fence_async();
}

/// By a warpgroup: the logits of the block's tiles.
class HeadProduct {
  using Sizes = tuning::HeadSampling;

 public:
  __device__ __forceinline__ HeadProduct(HeadProductArguments const& arguments, HeadRing const& ring, unsigned char* shared, int rows)
      : arguments_(arguments), ring_(ring), rows_room_(shared_address(shared + arguments.plan.rows_at)),
        factors_(reinterpret_cast<float const*>(shared + arguments.plan.factors_at)), rows_(rows) {}

  __device__ __forceinline__ void run() {
    for (int tile = static_cast<int>(blockIdx.x); tile < arguments_.plan.tiles; tile += static_cast<int>(gridDim.x)) {
      float sums[Sizes::tile / 2];
      multiply(sums);
      write(tile, sums);
    }
  }

 private:
  static constexpr int kSteps = Sizes::tile / 16;
  [[nodiscard]] static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % kWarpSize; }
  [[nodiscard]] static __device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / kWarpSize % Sizes::product_warps; }

  /// sums [64 tokens, 64 rows] of a tile; a box goes back when the products of the next one are under way.
  __device__ __forceinline__ void multiply(float (&sums)[Sizes::tile / 2]) {
    for (int box = 0; box < arguments_.plan.boxes; ++box) {
      std::uint64_t const weights = row_operand(ring_.room());
      std::uint64_t const rows = row_operand(rows_room_ + static_cast<std::uint32_t>(box * Sizes::box_bytes));
      ring_.wait_until_full();
      wgmma_fence();
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        auto const within = static_cast<std::uint32_t>(step * 32);
        wgmma(sums, advanced(weights, within), advanced(rows, within), box > 0 || step > 0);
      }
      wgmma_commit();
      wgmma_wait<1>();
      if (box > 0 && lane() == 0) ring_.release_last();
      ring_.advance();
    }
    wgmma_wait<0>();
    touch(sums);
    if (lane() == 0) ring_.release_last();
  }
  __device__ __forceinline__ void write(int tile, float const (&sums)[Sizes::tile / 2]) const {
    int const pair = lane() % 4 * 2;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int const token = tile * Sizes::tile + warp() * 16 + lane() / 4 + 8 * half;
      if (token >= static_cast<int>(arguments_.logits.cols)) continue;
      float* to = arguments_.logits.row(pair) + token;
#pragma unroll
      for (int j = 0; j < Sizes::tile / 8; ++j, to += 8 * arguments_.logits.stride) {
        int const row = 8 * j + pair;
        if (row >= rows_) break;
        *to = __fmul_rn(sums[4 * j + 2 * half], factors_[row]);
        if (row + 1 < rows_) to[arguments_.logits.stride] = __fmul_rn(sums[4 * j + 2 * half + 1], factors_[row + 1]);
      }
    }
  }

  HeadProductArguments const& arguments_;
  HeadRing ring_;
  std::uint32_t rows_room_;
  float const* factors_;
  int rows_;
};

}  // namespace mor::cuda
