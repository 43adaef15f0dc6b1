// SPDX-License-Identifier: Apache-2.0
/// @file
/// The largest scores of each sequence, in ascending order of their rows: radix selection of the smallest chosen key,
/// then a compaction that keeps the order. One block a sequence.
#pragma once

#include "mor/backend/cuda/kernels/radix_digits.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/core/types.hpp"
#include "mor/math/ordering.hpp"

#include <cstdint>

namespace mor::cuda {

/// Candidates of all sequences, and where the chosen ones go (`Selection`).
struct SelectionArrays {
  Row const* offsets;       ///< [S + 1] first candidate of each sequence
  Row const* kept_offsets;  ///< [S + 1] first chosen row of each sequence
  Row const* rows;
  Row const* positions;
  Row* chosen_rows;
  Row* chosen_positions;
  Row* chosen_slots;

  void note_to(auto& log) const { log.note(offsets, kept_offsets, rows, positions, chosen_rows, chosen_positions, chosen_slots); }
};

/// One sequence's part of them.
struct SequencePart {
  Row begin, length;     ///< candidates
  Row kept_begin, kept;  ///< room for chosen rows
};

__device__ __forceinline__ SequencePart sequence_part(SelectionArrays const& arrays, unsigned sequence) {
  Row const begin = arrays.offsets[sequence], kept_begin = arrays.kept_offsets[sequence];
  return {begin, arrays.offsets[sequence + 1] - begin, kept_begin, arrays.kept_offsets[sequence + 1] - kept_begin};
}

/// Which keys are chosen: those with (key & mask) > prefix, and the first `ties` of those with (key & mask) == prefix.
struct SelectionCut {
  std::uint32_t mask;
  std::uint32_t prefix;
  int ties;
  int group;  ///< how many have (key & mask) == prefix
};

inline constexpr int kKeyDigits = 32 / kDigitBits;

/// Moves the cut one digit on. `histogram` counts that digit in the keys of the cut's group; every warp does the same
/// work, so that no barrier is needed to share the result. Lane l looks at eight digits, the highest in lane 0.
__device__ __forceinline__ void narrow_cut(int const* histogram, int shift, SelectionCut& cut) {
  int const lane = static_cast<int>(threadIdx.x) % kWarpSize;
  int const lowest = kDigits - 8 * (lane + 1);
  int4 const low = *reinterpret_cast<int4 const*>(histogram + lowest);
  int4 const high = *reinterpret_cast<int4 const*>(histogram + lowest + 4);
  int const counts[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
  int own = 0;
#pragma unroll
  for (int k = 0; k < 8; ++k) own += counts[k];
  int const through = sum_through_lane(own);  // keys of this lane's digits and of higher ones
  int above = through - own;
  bool const here = above < cut.ties && cut.ties <= through;  // true in one lane: 1 <= ties <= group
  int digit = 0, group = 0;
  bool found = false;
#pragma unroll
  for (int k = 7; k >= 0; --k) {
    if (found) continue;
    if (above + counts[k] >= cut.ties) {
      found = true;
      digit = lowest + k;
      group = counts[k];
    } else {
      above += counts[k];
    }
  }
  int const source = __ffs(static_cast<int>(__ballot_sync(kAllLanes, here))) - 1;
  cut.mask |= std::uint32_t{kDigits - 1} << shift;
  cut.prefix |= static_cast<std::uint32_t>(__shfl_sync(kAllLanes, digit, source)) << shift;
  cut.ties -= __shfl_sync(kAllLanes, above, source);
  cut.group = __shfl_sync(kAllLanes, group, source);
}

template <int Items>
__device__ __forceinline__ void load_keys(float const* scores, int first, int length, std::uint32_t (&keys)[Items]) {
#pragma unroll
  for (int j = 0; j < Items; ++j) {
    int const at = first + place_in_tile<Items>(j);
    keys[j] = at < length ? math::ordered_key(scores[at]) : 0U;
  }
}

/// How many candidates before a tile are chosen for certain, and how many stand on the cut.
struct SelectionProgress {
  int chosen = 0;
  int tied = 0;
};

/// Writes the chosen candidates of one tile. Bit j of `chosen` and `tied` belongs to the thread's item j; of the tied
/// ones, the first `ties` of the sequence are chosen. `counts` has room for one pair a warp.
template <int Threads, int Items>
__device__ __forceinline__ void write_chosen(SelectionArrays const& arrays, SequencePart const& part, int first,
                                             unsigned chosen, unsigned tied, int ties, SelectionProgress& progress,
                                             int2* counts) {
  constexpr int warps = Threads / kWarpSize;
  static_assert(warps <= kWarpSize && Items <= 32);
  int const warp = static_cast<int>(threadIdx.x) / kWarpSize, lane = static_cast<int>(threadIdx.x) % kWarpSize;
  int2 const own = {__reduce_add_sync(kAllLanes, __popc(chosen)), __reduce_add_sync(kAllLanes, __popc(tied))};
  if (lane == 0) counts[warp] = own;
  __syncthreads();
  int2 const other = lane < warps ? counts[lane] : int2{0, 0};
  int chosen_before = progress.chosen + __reduce_add_sync(kAllLanes, lane < warp ? other.x : 0);
  int tied_before = progress.tied + __reduce_add_sync(kAllLanes, lane < warp ? other.y : 0);
  progress.chosen += __reduce_add_sync(kAllLanes, other.x);
  progress.tied += __reduce_add_sync(kAllLanes, other.y);
  __syncthreads();  // `counts` may be written again
  unsigned const lower_lanes = (1U << lane) - 1U;
#pragma unroll
  for (int j = 0; j < Items; ++j) {
    unsigned const chosen_lanes = __ballot_sync(kAllLanes, (chosen >> j & 1U) != 0);
    unsigned const tied_lanes = __ballot_sync(kAllLanes, (tied >> j & 1U) != 0);
    int const ties_here = tied_before + __popc(tied_lanes & lower_lanes);
    int const place = chosen_before + __popc(chosen_lanes & lower_lanes) + min(ties_here, ties);
    bool const take = (chosen >> j & 1U) != 0 || ((tied >> j & 1U) != 0 && ties_here < ties);
    if (take && place < part.kept) {
      Row const slot = part.begin + first + place_in_tile<Items>(j);
      int const to = part.kept_begin + place;
      arrays.chosen_rows[to] = arrays.rows[slot];
      arrays.chosen_positions[to] = arrays.positions[slot];
      arrays.chosen_slots[to] = slot;
    }
    chosen_before += __popc(chosen_lanes);
    tied_before += __popc(tied_lanes);
  }
}

/// In each sequence the largest scores, as many as there is room for. Resident: no sequence is longer than a tile, and
/// its keys stay in registers; otherwise every pass reads the scores again.
template <int Threads, int Items, bool Resident>
__global__ void __launch_bounds__(Threads) select_top_k_kernel(float const* scores, SelectionArrays arrays) {
  constexpr int tile = Threads * Items;
  __shared__ alignas(16) int histograms[kKeyDigits][kDigits];  // one a pass: none is cleared between passes
  __shared__ int2 counts[Threads / kWarpSize];
  SequencePart const part = sequence_part(arrays, blockIdx.x);
  if (part.kept <= 0) return;
  scores += part.begin;
  int const tiled_length = Resident ? 1 : part.length;
  std::uint32_t keys[Items];
  if constexpr (Resident) load_keys(scores, 0, part.length, keys);
  for (int i = static_cast<int>(threadIdx.x); i < kKeyDigits * kDigits; i += Threads)
    histograms[i / kDigits][i % kDigits] = 0;
  __syncthreads();

  SelectionCut cut{0U, 0U, part.kept, part.length};
  for (int pass = 0; pass < kKeyDigits && cut.ties < cut.group;
       ++pass) {  // the whole group is taken: no need to look closer
    int const shift = kDigitBits * (kKeyDigits - 1 - pass);
    for (int first = 0; first < tiled_length; first += tile) {
      if constexpr (!Resident) load_keys(scores, first, part.length, keys);
#pragma unroll
      for (int j = 0; j < Items; ++j) {
        bool const candidate = first + place_in_tile<Items>(j) < part.length && (keys[j] & cut.mask) == cut.prefix;
        if (candidate) atomicAdd(&histograms[pass][keys[j] >> shift & (kDigits - 1U)], 1);
      }
    }
    __syncthreads();
    narrow_cut(histograms[pass], shift, cut);
  }

  SelectionProgress progress;
  for (int first = 0; first < tiled_length; first += tile) {
    if constexpr (!Resident) load_keys(scores, first, part.length, keys);
    unsigned chosen = 0, tied = 0;
#pragma unroll
    for (int j = 0; j < Items; ++j) {
      if (first + place_in_tile<Items>(j) >= part.length) continue;
      std::uint32_t const digits = keys[j] & cut.mask;
      chosen |= (digits > cut.prefix ? 1U : 0U) << j;
      tied |= (digits == cut.prefix ? 1U : 0U) << j;
    }
    write_chosen<Threads, Items>(arrays, part, first, chosen, tied, cut.ties, progress, counts);
  }
}

/// The candidates with score >= threshold, in their order.
template <int Threads, int Items>
__global__ void __launch_bounds__(Threads)
    select_at_least_kernel(float const* scores, double threshold, SelectionArrays arrays) {
  __shared__ int2 counts[Threads / kWarpSize];
  SequencePart const part = sequence_part(arrays, blockIdx.x);
  if (part.kept <= 0) return;
  SelectionProgress progress;
  for (int first = 0; first < part.length; first += Threads * Items) {
    unsigned chosen = 0;
#pragma unroll
    for (int j = 0; j < Items; ++j) {
      int const at = first + place_in_tile<Items>(j);
      if (at >= part.length) continue;
      chosen |= (static_cast<double>(scores[part.begin + at]) >= threshold ? 1U : 0U) << j;
    }
    write_chosen<Threads, Items>(arrays, part, first, chosen, 0U, 0, progress, counts);
  }
}

inline constexpr int kThresholdsPerLaunch = 32;

/// Thresholds as a kernel's parameter.
struct Thresholds {
  double value[kThresholdsPerLaunch];

  void note_to(auto& log) const { log.note(value); }
};

/// counts[t * S + s] = candidates of sequence s with score >= threshold t; one block for each.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    count_at_least_kernel(float const* scores, Row const* offsets, Thresholds thresholds, Row* counts) {
  __shared__ int shared[Threads / kWarpSize];
  double const threshold = thresholds.value[blockIdx.y];
  Row const end = offsets[blockIdx.x + 1];
  int count = 0;
  for (Row i = offsets[blockIdx.x] + static_cast<Row>(threadIdx.x); i < end; i += Threads) {
    count += static_cast<double>(scores[i]) >= threshold ? 1 : 0;
  }
  count = block_sum<Threads>(count, shared);
  if (threadIdx.x == 0) counts[Index{blockIdx.y} * gridDim.x + blockIdx.x] = count;
}

}  // namespace mor::cuda
