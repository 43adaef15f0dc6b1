// SPDX-License-Identifier: Apache-2.0
/// @file
/// Rotary position embedding, in place or on the way to key storage. A block computes the angles of its rows once and applies
/// them to all heads.
#pragma once

#include "mor/backend/cuda/kernels/elementwise.cuh"
#include "mor/backend/cuda/kernels/key_list.cuh"
#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/tuning/pointwise.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

namespace mor::cuda {

/// Cosine and sine of an angle.
struct TurnedUnit {
  float cosine, sine;
};

/// The unit vector turned by `quarter_turns` times pi / 2 radians. The whole quarters are taken off in double, where
/// the difference is exact, so the angle that is left keeps the precision of a float however many turns went before.
/// Series of Taylor in the rest, at most half a quarter: the error of either stays below 1.2e-7.
[[nodiscard]] MOR_HOST_DEVICE inline TurnedUnit turn_unit(double quarter_turns) {
  double const whole = rint(quarter_turns);
  float const rest = static_cast<float>(quarter_turns - whole), square = rest * rest;
  // (pi / 2)^n / n! with alternating signs.
  float sine = 1.6044118e-4F;
  sine = fmaf(sine, square, -4.6817541e-3F);
  sine = fmaf(sine, square, 7.9692626e-2F);
  sine = fmaf(sine, square, -6.4596410e-1F);
  sine = fmaf(sine, square, 1.5707963F);
  sine *= rest;
  float cosine = -2.5202042e-5F;
  cosine = fmaf(cosine, square, 9.1926027e-4F);
  cosine = fmaf(cosine, square, -2.0863481e-2F);
  cosine = fmaf(cosine, square, 2.5366951e-1F);
  cosine = fmaf(cosine, square, -1.2337006F);
  cosine = fmaf(cosine, square, 1.0F);
  int const quarter = static_cast<int>(whole) & 3;
  bool const odd = (quarter & 1) != 0;
  float const x = odd ? sine : cosine, y = odd ? cosine : sine;
  return {quarter == 1 || quarter == 2 ? -x : x, quarter >= 2 ? -y : y};
}

/// How the work of a rope launch is cut. An item is a pack of the first half of a head and the pack it pairs with.
struct RopeGrid {
  Index rows_of_block;
  unsigned half;  ///< pairs of a head
  unsigned items_of_head, items_of_row;
  double log2_step;  ///< 2 log2(theta) / head_dim: pair i turns by 2^(-i log2_step) radians a position
  float direction;   ///< 1 forward, -1 backward
  Divider by_half, by_item_row, by_item_head;

  void note_to(auto& log) const { log.note(rows_of_block, half, items_of_head, items_of_row, log2_step, direction); }
};

/// All heads are turned, and stay where they are.
struct RopeInPlace {
  static constexpr bool moves = false;

  void note_to(auto&) const {}
};
/// A row has queries, keys and values. Queries go to rows of their own, keys and values to their places in a list, and values are not
/// turned.
template <class T>
struct RopeToKeys {
  static constexpr bool moves = true;
  View<T> q, plane_k, plane_v;
  unsigned query_heads, kv_heads;
  KeyPlaces places;

  void note_to(auto& log) const { log.note(q, plane_k, plane_v, query_heads, kv_heads, places); }

  [[nodiscard]] __device__ __forceinline__ bool turns(unsigned head) const { return head < query_heads + kv_heads; }
  /// Where a head of a row begins; null: nowhere. `place`: the row's, as of `place_of_row`.
  [[nodiscard]] __device__ __forceinline__ T* target(unsigned head, unsigned head_dim, Index row, Index place) const {
    if (head < query_heads) return q.row(row) + Index{head} * head_dim;
    if (place < 0) return nullptr;
    unsigned const of_kind = head - query_heads;
    return of_kind < kv_heads ? plane_k.row(place) + Index{of_kind} * head_dim : plane_v.row(place) + Index{of_kind - kv_heads} * head_dim;
  }
};

/// Dynamic shared memory: `half` doubles (quarter turns a position, 2 / pi times the radians), then cosines and sines,
/// each [rows_of_block, half], then positions [rows_of_block], and before them, where heads move, places [rows_of_block].
template <class T, int Width, class Targets>
__global__ void __launch_bounds__(tuning::kRopeThreads, 4) rope_kernel(Row const* positions, RopeGrid grid, View<T> x, Targets targets) {
  constexpr unsigned threads = tuning::kRopeThreads;
  constexpr int loads = tuning::kRopeItems;
  extern __shared__ __align__(16) unsigned char rope_shared[];
  auto* const frequencies = reinterpret_cast<double*>(rope_shared);
  auto* const cosines = reinterpret_cast<float*>(frequencies + grid.half + grid.half % 2);
  Index const first_row = blockIdx.x * grid.rows_of_block;
  auto const rows = static_cast<unsigned>(min(grid.rows_of_block, x.rows - first_row));
  unsigned const entries = rows * grid.half, items = rows * grid.items_of_row;
  Index const table = (grid.rows_of_block * grid.half + 3) / 4 * 4;
  float* const sines = cosines + table;
  auto* const row_places = reinterpret_cast<Index*>(sines + table);
  auto* const row_positions = reinterpret_cast<Row*>(row_places + (Targets::moves ? grid.rows_of_block : 0));
  Row const position = threadIdx.x < rows ? positions[first_row + threadIdx.x] : 0;  // on its way before all else

  for (unsigned base = 0; base < items; base += threads * loads) {
    RawPack<T, Width> low[loads], high[loads];
    T* at[loads];
#pragma unroll
    for (int i = 0; i < loads; ++i) {
      unsigned const item = base + threadIdx.x + i * threads;
      if (item >= items) continue;
      unsigned const row = grid.by_item_row(item), of_row = item - row * grid.items_of_row;
      unsigned const head = grid.by_item_head(of_row), pair = (of_row - head * grid.items_of_head) * Width;
      at[i] = x.row(first_row + row) + Index{head} * (2 * grid.half) + pair;
      low[i] = load_once<Width>(static_cast<T const*>(at[i]));
      high[i] = load_once<Width>(static_cast<T const*>(at[i]) + grid.half);
    }
    if (base == 0) {  // the angles, while the first elements are on their way
      for (unsigned pair = threadIdx.x; pair < grid.half; pair += threads) {
        frequencies[pair] = 0.63661977236758134308 * exp2(-static_cast<double>(pair) * grid.log2_step);
      }
      if (threadIdx.x < rows) row_positions[threadIdx.x] = position;
      for (unsigned row = threadIdx.x + threads; row < rows; row += threads) {
        row_positions[row] = positions[first_row + row];
      }
      if constexpr (Targets::moves) {
        for (unsigned row = threadIdx.x; row < rows; row += threads) row_places[row] = place_of_row(targets.places, first_row + row);
      }
      __syncthreads();
      for (unsigned entry = threadIdx.x; entry < entries; entry += threads) {
        unsigned const row = grid.by_half(entry);
        auto const unit = turn_unit(row_positions[row] * frequencies[entry - row * grid.half]);
        cosines[entry] = unit.cosine;
        sines[entry] = grid.direction * unit.sine;
      }
      __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < loads; ++i) {
      unsigned const item = base + threadIdx.x + i * threads;
      if (item >= items) continue;
      unsigned const row = grid.by_item_row(item), of_row = item - row * grid.items_of_row;
      unsigned const head = grid.by_item_head(of_row), pair = (of_row - head * grid.items_of_head) * Width;
      unsigned const angle = row * grid.half + pair;
      if constexpr (Targets::moves) {
        T* const begin = targets.target(head, 2 * grid.half, first_row + row, row_places[row]);
        if (begin == nullptr) continue;
        at[i] = begin + pair;
        if (!targets.turns(head)) {
          store_raw(at[i], low[i]);
          store_raw(at[i] + grid.half, high[i]);
          continue;
        }
      }
      auto a = widen(low[i]), b = widen(high[i]);
      auto const cosine = load_lanes<Width>(static_cast<float const*>(cosines) + angle);
      auto const sine = load_lanes<Width>(static_cast<float const*>(sines) + angle);
#pragma unroll
      for (int e = 0; e < Width; ++e) {
        float const first = a.value[e], second = b.value[e];
        a.value[e] = fmaf(first, cosine.value[e], -(second * sine.value[e]));
        b.value[e] = fmaf(second, cosine.value[e], first * sine.value[e]);
      }
      store_lanes(at[i], a.value);
      store_lanes(at[i] + grid.half, b.value);
    }
  }
}

}  // namespace mor::cuda
