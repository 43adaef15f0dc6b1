// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a warp of a stack's block multiplies: its part of the columns, of all rows in registers, and of a tile's weights from
/// the ring.
///
/// Of 32 columns, lane t of a row's four takes columns 8t to 8t + 7 for two products of 16, in the weights and in x alike:
/// the sum does not mind in which order its columns come.
#pragma once

#include "mor/backend/cuda/kernels/few_rows_input.cuh"
#include "mor/backend/cuda/kernels/mma.cuh"
#include "mor/backend/cuda/kernels/stack_exchange.cuh"
#include "mor/backend/cuda/kernels/stack_weights.cuh"
#include "mor/backend/cuda/tuning/stack.hpp"
#include "mor/core/dtype.hpp"
#include "mor/core/types.hpp"

#include <cstdint>

namespace mor::cuda {

/// A warp's part of a slab's columns.
struct StackPart {
  int begin, count;  ///< chunks; `begin` within the slab

  __device__ __forceinline__ StackPart(tuning::StackSlab const& slab, int warp)
      : begin(warp * slab.count / tuning::Stack::warps),
        count((warp + 1) * slab.count / tuning::Stack::warps - begin) {}
};

/// The part of a slab's columns that a warp holds of all rows, as fragments of the tensor cores.
template <int RowTiles>
class StackColumns {
 public:
  static constexpr int kChunks = tuning::Stack::warp_chunks;

  /// Starts reading `count` chunks from chunk `first` on. Of 8 rows of which some do not exist, those repeat the last one; the
  /// rest is zeros.
  __device__ __forceinline__ void request(ExchangedRows const& from, int first, int count, int rows, int lane) {
    int const at = ExchangedRows::column(first * tuning::Stack::chunk) + lane % 4 * 8;
#pragma unroll
    for (int j = 0; j < RowTiles; ++j) {
      bfloat16 const* const row = from.row(min(8 * j + lane / 4, rows - 1)) + at;
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        words[c][j] = make_uint4(0U, 0U, 0U, 0U);
        if (c < count && 8 * j < rows) words[c][j] = load_exchanged(row + ExchangedRows::column(c * tuning::Stack::chunk));
      }
    }
  }
  /// Starts reading again what was not there yet.
  __device__ __forceinline__ void request_absent(ExchangedRows const& from, int first, int rows, int lane) {
    int const at = ExchangedRows::column(first * tuning::Stack::chunk) + lane % 4 * 8;
#pragma unroll
    for (int j = 0; j < RowTiles; ++j) {
      bfloat16 const* const row = from.row(min(8 * j + lane / 4, rows - 1)) + at;
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        if (largest_word(words[c][j]) == kAbsent) words[c][j] = load_exchanged(row + ExchangedRows::column(c * tuning::Stack::chunk));
      }
    }
  }
  /// Whether something of what was read is not there yet.
  [[nodiscard]] __device__ __forceinline__ bool absent() const {
    std::uint32_t most = 0;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
#pragma unroll
      for (int j = 0; j < RowTiles; ++j) most = max(most, largest_word(words[c][j]));
    }
    return __any_sync(kAllLanes, most == kAbsent);
  }
  /// squares[j] += x x^T of 8 rows, whose diagonal is what counts; then x is multiplied with the norm's weights.
  __device__ __forceinline__ void weigh(uint4 const (&norm)[kChunks], float (&squares)[RowTiles][4]) {
#pragma unroll
    for (int j = 0; j < RowTiles; ++j) {
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        uint4& x = words[c][j];
        std::uint32_t const left[4] = {x.x, 0U, x.y, 0U}, right[4] = {x.z, 0U, x.w, 0U};
        sm80::multiply_add(squares[j], left, x.x, x.y);
        sm80::multiply_add(squares[j], right, x.z, x.w);
        x.x = multiply_pairs(x.x, norm[c].x);
        x.y = multiply_pairs(x.y, norm[c].y);
        x.z = multiply_pairs(x.z, norm[c].z);
        x.w = multiply_pairs(x.w, norm[c].w);
      }
    }
  }

  uint4 words[kChunks][RowTiles];
};

/// A warp's weights of a stage of the ring, as fragments of the tensor cores; zeros where its part has fewer chunks.
struct StackFragments {
  static constexpr int kChunks = tuning::Stack::warp_chunks;

  __device__ __forceinline__ StackFragments(StackRing const& ring, StackPart const& part, int lane) {
    std::uint32_t const at =
        ring.room() + static_cast<std::uint32_t>(lane / 4 * tuning::Stack::pitch + part.begin * 2 * tuning::Stack::chunk +
                                                 lane % 4 * 16);
    ring.wait_until_full();
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      low[c] = high[c] = make_uint4(0U, 0U, 0U, 0U);
      if (c >= part.count) continue;
      low[c] = sm80::load_shared(at + static_cast<std::uint32_t>(c * 2 * tuning::Stack::chunk));
      high[c] = sm80::load_shared(at + static_cast<std::uint32_t>(8 * tuning::Stack::pitch + c * 2 * tuning::Stack::chunk));
    }
  }
  /// Something that is known only when every word has been read.
  [[nodiscard]] __device__ __forceinline__ std::uint32_t all_read() const {
    std::uint32_t all = 0;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) all ^= low[c].w ^ high[c].w;
    return all;
  }

  template <int RowTiles>
  __device__ __forceinline__ void multiply(StackColumns<RowTiles> const& columns, float (&sums)[RowTiles][4]) const {
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      auto const& x = columns.words[c];
      std::uint32_t const left[4] = {low[c].x, high[c].x, low[c].y, high[c].y};
      std::uint32_t const right[4] = {low[c].z, high[c].z, low[c].w, high[c].w};
#pragma unroll
      for (int j = 0; j < RowTiles; ++j) sm80::multiply_add(sums[j], left, x[j].x, x[j].y);
#pragma unroll
      for (int j = 0; j < RowTiles; ++j) sm80::multiply_add(sums[j], right, x[j].z, x[j].w);
    }
  }

  uint4 low[kChunks], high[kChunks];
};

}  // namespace mor::cuda
