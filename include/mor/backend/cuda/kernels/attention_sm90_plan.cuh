// SPDX-License-Identifier: Apache-2.0
/// @file
/// The work lists of the Hopper attention kernels. Each block of those kernels takes pieces of work from a list that is
/// sorted by cost, largest first, forwards and backwards in turn, so that all blocks end at about the same time.
#pragma once

#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/tuning/attention_sm90.hpp"
#include "mor/core/types.hpp"

namespace mor::cuda::sm90 {

/// Rows of a warpgroup's tile, and queries or keys of a copied box.
inline constexpr int kTileRows = tuning::kAttentionSm90TileRows;
inline constexpr int kPlanThreads = 1024;

/// Queries of a sequence, for every key/value head. A unit is 64 queries of one head; the units of a key/value head's
/// group are numbered query tile by query tile, head by head within, and an item has `chunk` times as many before it as
/// a block has warpgroups.
struct alignas(16) QueryItem {
  int first_query;  ///< of the sequence
  int num_queries;  ///< of the sequence
  int key_begin;    ///< of the sequence
  int chunk;
  int limit;  ///< keys that any of the item's queries sees
  int unused[3];
};

/// Keys of a sequence, for every key/value head.
struct alignas(16) KeyItem {
  int first_query;
  int num_queries;
  int key_begin;
  int tile;        ///< which of the sequence's key tiles
  int limit;       ///< keys that any query of the sequence sees
  int first_tile;  ///< the first tile of 64 queries that sees any key of this tile
  int unused[2];
};

/// What the lists are made from, and where they go.
struct PlanArguments {
  Row const* query_offsets = nullptr;
  Row const* key_begin = nullptr;
  Row const* limits = nullptr;
  int num_sequences = 0;
  int group = 1;        ///< query heads of a key/value head
  int chunk_units = 1;  ///< units of an item of queries
  int most_chunks = 0;  ///< of a sequence
  QueryItem* query_items = nullptr;
  int key_rows = 1;    ///< keys of an item of keys
  int most_tiles = 0;  ///< of a sequence
  KeyItem* key_items = nullptr;
  int* num_key_items = nullptr;

  void note_to(auto& log) const {
    log.note(query_offsets, key_begin, limits, num_sequences, group, chunk_units, most_chunks, query_items, key_rows, most_tiles, key_items,
             num_key_items);
  }
};

/// The piece of work that a block takes in a round of the sorted list.
__device__ __forceinline__ int piece_of_round(int round) {
  int const blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
  return round * blocks + (round % 2 == 0 ? block : blocks - 1 - block);
}

/// Sorts pieces by cost, the largest first. `cost(piece)` is negative for a piece that does not exist; `emit(piece,
/// place)` stores it. Pieces of one cost come in any order, on which no result depends. All threads of the block call;
/// returns the number of pieces.
template <class Cost, class Emit>
__device__ __forceinline__ int sort_pieces(int pieces, Cost const& cost, Emit const& emit) {
  __shared__ int places[kPlanThreads];
  __shared__ int sums[kPlanThreads / kWarpSize];
  int const thread = static_cast<int>(threadIdx.x), lane = thread % kWarpSize, warp = thread / kWarpSize;
  places[thread] = 0;
  __syncthreads();
  auto const bin = [](int value) { return kPlanThreads - 1 - (value < kPlanThreads ? value : kPlanThreads - 1); };
  for (int piece = thread; piece < pieces; piece += kPlanThreads) {
    int const value = cost(piece);
    if (value >= 0) atomicAdd(&places[bin(value)], 1);
  }
  __syncthreads();
  // Exclusive sums over the bins.
  int const count = places[thread];
  int sum = count;
#pragma unroll
  for (int distance = 1; distance < kWarpSize; distance *= 2) {
    int const below = __shfl_up_sync(kAllLanes, sum, distance);
    if (lane >= distance) sum += below;
  }
  if (lane == kWarpSize - 1) sums[warp] = sum;
  __syncthreads();
  int before = 0, total = 0;
  for (int i = 0; i < kPlanThreads / kWarpSize; ++i) {
    if (i < warp) before += sums[i];
    total += sums[i];
  }
  places[thread] = before + sum - count;
  __syncthreads();
  for (int piece = thread; piece < pieces; piece += kPlanThreads) {
    int const value = cost(piece);
    if (value >= 0) emit(piece, atomicAdd(&places[bin(value)], 1));
  }
  return total;
}

/// The list of query items, by one block.
__device__ __forceinline__ void plan_queries(PlanArguments const& a) {
  // The limit of the last query of a chunk: limits never decrease.
  auto const item = [&a](int piece) {
    int const s = piece / a.most_chunks, chunk = piece % a.most_chunks;
    QueryItem result{};
    result.first_query = a.query_offsets[s];
    result.num_queries = a.query_offsets[s + 1] - result.first_query;
    result.chunk = chunk;
    result.limit = -1;
    if (chunk * a.chunk_units / a.group * kTileRows >= result.num_queries) return result;  // no such chunk
    int const rows = ((chunk + 1) * a.chunk_units - 1) / a.group * kTileRows + kTileRows;
    result.limit = a.limits[result.first_query + min(rows, result.num_queries) - 1];
    result.key_begin = a.key_begin[s];
    return result;
  };
  sort_pieces(
      a.num_sequences * a.most_chunks,
      [&](int piece) {
        int const limit = item(piece).limit;
        return limit < 0 ? -1 : (limit + kTileRows - 1) / kTileRows;
      },
      [&](int piece, int place) { a.query_items[place] = item(piece); });
}

/// The list of key items and their number, by one block.
__device__ __forceinline__ void plan_keys(PlanArguments const& a) {
  auto const item = [&a](int piece) {
    int const s = piece / a.most_tiles;
    KeyItem result{};
    result.tile = piece % a.most_tiles;
    result.first_query = a.query_offsets[s];
    result.num_queries = a.query_offsets[s + 1] - result.first_query;
    if (result.num_queries == 0) return result;
    Row const* const limits = a.limits + result.first_query;
    result.limit = limits[result.num_queries - 1];
    int const first_key = result.tile * a.key_rows;
    if (result.limit <= first_key) return result;
    int first = 0, last = (result.num_queries - 1) / kTileRows;  // the last tile sees the key
    while (first < last) {
      int const middle = (first + last) / 2;
      if (limits[middle * kTileRows + kTileRows - 1] > first_key) {
        last = middle;
      } else {
        first = middle + 1;
      }
    }
    result.first_tile = first;
    result.key_begin = a.key_begin[s];
    return result;
  };
  int const total = sort_pieces(
      a.num_sequences * a.most_tiles,
      [&](int piece) {
        KeyItem const made = item(piece);
        bool const exists = made.num_queries > 0 && made.limit > made.tile * a.key_rows;
        return exists ? (made.num_queries + kTileRows - 1) / kTileRows - made.first_tile : -1;
      },
      [&](int piece, int place) { a.key_items[place] = item(piece); });
  if (threadIdx.x == 0) *a.num_key_items = total;
}

/// The list of query items alone: what the forward pass needs.
template <int Threads>
__global__ void __launch_bounds__(Threads) plan_forward_kernel(PlanArguments const arguments) {
  plan_queries(arguments);
}

}  // namespace mor::cuda::sm90
