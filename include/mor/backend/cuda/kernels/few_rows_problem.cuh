// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a product of few rows computes and where its results go: as they are, on top of a residual, through a gated
/// activation, or as queries, keys and values that are turned to their positions and put at their places.
#pragma once

#include "mor/backend/cuda/kernels/elementwise.cuh"
#include "mor/backend/cuda/kernels/key_list.cuh"
#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/kernels/pointwise.cuh"
#include "mor/backend/cuda/kernels/rope.cuh"
#include "mor/core/dtype.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <cmath>
#include <cstdint>

namespace mor::cuda {

/// `Plain` writes numbers of T or, where `FewRowsProblem::real_out` has data, floats. A kernel each.
enum class FewRowsResult { Plain, Residual, Swiglu, Keys };

/// Which rows of the weights belong together: a tile has rows from a first one on, and as many from `gap` rows behind
/// them on, so that one thread has both of a pair (gate and value, or the two that a rotation mixes).
struct FewRowsTiles {
  int step = 16;      ///< rows from a tile's first to the next's, in a head
  int head_rows = 0;  ///< of the weights; `Keys` only, as
  int head_tiles = 1;
  Divider by_head_tiles{1};
  int gap = 8;
  Index gap_elements = 0;  ///< from a weight to that of its pair
  int limit = 0;           ///< first rows of pairs lie below
  int rows = 0;            ///< of the weights

  void note_to(auto& log) const { log.note(step, head_rows, head_tiles, gap, gap_elements, limit, rows); }

  /// A tile's first row of the weights, and which pair of a head that is.
  template <FewRowsResult Result>
  __device__ __forceinline__ int first(int tile, int& pair) const {
    if constexpr (Result == FewRowsResult::Keys) {
      int const head = static_cast<int>(by_head_tiles(static_cast<unsigned>(tile)));
      pair = (tile - head * head_tiles) * step;
      return head * head_rows + pair;
    } else {
      return tile * step;
    }
  }
};

/// The angle of pair i is theta^(-2 i / head_dim) radians a position; here in quarter turns, as a product of powers of
/// the second pair's with exponents 1, 2, 4, ..., so that a kernel needs no exponential in double.
struct FewRowsAngles {
  static constexpr int most_bits = 13;
  double powers[most_bits] = {};

  [[nodiscard]] static FewRowsAngles of(double theta, Index head_dim) {
    FewRowsAngles angles;
    double power = std::pow(theta, -2.0 / static_cast<double>(head_dim));
    for (double& of_bit : angles.powers) {
      of_bit = power;
      power *= power;
    }
    return angles;
  }

  [[nodiscard]] __device__ __forceinline__ double of_pair(int pair) const {
    double frequency = 0.63661977236758134308;
#pragma unroll 1
    for (int bit = 0; pair != 0; ++bit, pair /= 2) {
      if (pair % 2 != 0) frequency *= powers[bit];
    }
    return frequency;
  }
};

template <class T>
struct FewRowsProblem {
  T const* norm = nullptr;  ///< weights of the norm of x's rows; null: none
  float eps = 0.0F, scale = 1.0F;
  Row const* count = nullptr;  ///< rows from *count on are left alone
  View<T const> residual;
  View<T> out;
  View<float> real_out;
  // Keys:
  Row const* positions = nullptr;
  FewRowsAngles angles{};
  int head_dim = 2, query_width = 0, key_width = 0;
  KeyPlaces places{};
  View<T> plane_k, plane_v;

  void note_to(auto& log) const {
    log.note(norm, eps, scale, count, residual, out, real_out, positions, angles.powers, head_dim, query_width, key_width, places, plane_k,
             plane_v);
  }
};

/// Reads past the first-level cache: what an earlier kernel wrote while this one already ran.
__device__ __forceinline__ float load_fresh(float const* from) { return __ldcg(from); }
__device__ __forceinline__ float load_fresh(bfloat16 const* from) {
  return static_cast<float>(bfloat16::from_bits(__ldcg(reinterpret_cast<unsigned short const*>(from))));
}
__device__ __forceinline__ Row load_fresh(Row const* from) { return __ldcg(from); }

/// Whether x is normed: always, never, or where the problem has weights of a norm.
template <FewRowsResult Result, class T>
[[nodiscard]] __device__ __forceinline__ bool has_norm(FewRowsProblem<T> const& problem) {
  if constexpr (Result == FewRowsResult::Residual) return false;
  if constexpr (Result == FewRowsResult::Swiglu || Result == FewRowsResult::Keys) return true;
  return problem.norm != nullptr;
}

/// Rows that the problem really has.
template <class T>
__device__ __forceinline__ Index fresh_rows(FewRowsProblem<T> const& problem, Index rows) {
  return problem.count == nullptr ? rows : min(rows, Index{load_fresh(problem.count)});
}

/// What else the results of one row need. `request` starts reading, `resolve` needs what was read.
template <FewRowsResult Result, class T>
struct FewRowsFacts {
  // The residual at the two rows of the weights; or position, limit and begin of the list, and once they are resolved the
  // place in the planes (negative: none), cosine and sine.
  float values[3];

  __device__ __forceinline__ void request(FewRowsProblem<T> const& problem, Index row, int low, bool has_low, int high,
                                          bool has_high) {
    if constexpr (Result == FewRowsResult::Residual) {
      values[0] = has_low ? load_fresh(problem.residual.row(row) + low) : 0.0F;
      values[1] = has_high ? load_fresh(problem.residual.row(row) + high) : 0.0F;
    } else if constexpr (Result == FewRowsResult::Keys) {
      auto const& places = problem.places;
      int const sequence = sequence_of_row(places, row);
      values[0] = __int_as_float(load_fresh(problem.positions + row));
      values[1] = __int_as_float(sequence < 0 ? 0 : load_fresh(places.limits + row));
      values[2] = __int_as_float(sequence < 0 ? 0 : load_fresh(places.key_begin + sequence));
    }
  }
  __device__ __forceinline__ void resolve(FewRowsProblem<T> const& problem, double frequency) {
    if constexpr (Result == FewRowsResult::Keys) {
      int const limit = __float_as_int(values[1]);
      Index const place = limit > 0 ? key_place(problem.places.table, __float_as_int(values[2]), limit - 1) : -1;
      TurnedUnit const turn = turn_unit(__float_as_int(values[0]) * frequency);
      values[0] = __int_as_float(static_cast<int>(place));
      values[1] = turn.cosine;
      values[2] = turn.sine;
    }
  }

  /// Writes the sums of the rows `low` and `high` of the weights.
  __device__ __forceinline__ void write(FewRowsProblem<T> const& problem, Index row, int low, int high, bool has_high,
                                        float first, float second) const {
    if constexpr (Result == FewRowsResult::Plain) {
      if (problem.real_out.data != nullptr) {
        problem.real_out(row, low) = first;
        if (has_high) problem.real_out(row, high) = second;
      } else {
        problem.out(row, low) = narrow<T>(first);
        if (has_high) problem.out(row, high) = narrow<T>(second);
      }
    } else if constexpr (Result == FewRowsResult::Residual) {
      problem.out(row, low) = narrow<T>(values[0] + first);
      if (has_high) problem.out(row, high) = narrow<T>(values[1] + second);
    } else if constexpr (Result == FewRowsResult::Swiglu) {
      problem.out(row, low) = narrow<T>(second * (first * sigmoid_of<T>(first)));
    } else {
      write_heads(problem, row, low, high, first, second);
    }
  }

 private:
  __device__ __forceinline__ void write_heads(FewRowsProblem<T> const& problem, Index row, int low, int high,
                                              float first, float second) const {
    int const keys_end = problem.query_width + problem.key_width;
    if (low < keys_end) {
      float const cosine = values[1], sine = values[2];
      float const turned = fmaf(first, cosine, -(second * sine));
      second = fmaf(second, cosine, first * sine);
      first = turned;
    }
    T* to;
    int before = 0;  // rows of the weights before this plane's
    if (low < problem.query_width) {
      to = problem.out.row(row);
    } else {
      int const place = __float_as_int(values[0]);
      if (place < 0) return;
      bool const key = low < keys_end;
      to = (key ? problem.plane_k : problem.plane_v).row(place);
      before = key ? problem.query_width : keys_end;
    }
    to[low - before] = narrow<T>(first);
    to[high - before] = narrow<T>(second);
  }
};

}  // namespace mor::cuda
