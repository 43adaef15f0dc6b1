// SPDX-License-Identifier: Apache-2.0
/// @file
/// Backward attention on Hopper: d_q, and what both gradient kernels need first. See attention_sm90_backward.cuh.
#pragma once

#include "mor/backend/cuda/kernels/attention_sm90_backward.cuh"

namespace mor::cuda::sm90 {

template <int Dim>
struct QueryStorage {
  using Tiles = tuning::AttentionSm90QueryGradient<Dim>;
  static constexpr int kTileBytes = kTileRows * Dim * 2;
  alignas(1024) unsigned char q[Tiles::query_stages][Tiles::warpgroups][kTileBytes];
  unsigned char d_out[Tiles::query_stages][Tiles::warpgroups][kTileBytes];
  unsigned char k[Tiles::stages][kTileBytes];
  unsigned char v[Tiles::stages][kTileBytes];
  float lse[Tiles::query_stages][Tiles::warpgroups][kTileRows];
  float delta[Tiles::query_stages][Tiles::warpgroups][kTileRows];
  int limits[Tiles::query_stages][Tiles::warpgroups][kTileRows];
  QueryPiece pieces[Tiles::query_stages];
  Barrier q_full[Tiles::query_stages], q_empty[Tiles::query_stages];
  Barrier k_full[Tiles::stages], k_empty[Tiles::stages];
};

/// The fetching warp.
template <int Dim>
__device__ __forceinline__ void fetch_for_queries(BackwardArguments const& a, QueryStorage<Dim>& shared) {
  using Tiles = tuning::AttentionSm90QueryGradient<Dim>;
  constexpr int bytes = QueryStorage<Dim>::kTileBytes;
  int const lane = static_cast<int>(threadIdx.x) % kWarpSize;
  RingCursor<Tiles::query_stages> query;
  RingCursor<Tiles::stages> key;
  if (lane == 0) {
    for (TensorMap const* map : {&a.q, &a.k, &a.v, &a.d_out}) prefetch_map(*map);
  }
  for (int round = 0;; ++round, query.advance()) {
    int const number = piece_of_round(round);
    if (number >= a.num_query_pieces) break;
    QueryItem const item = a.query_items[number / a.kv_heads];
    QueryPiece const piece{item.first_query, item.num_queries, item.chunk, item.limit, number % a.kv_heads};
    int const stage = query.stage;
    wait(shared.q_empty[stage], query.parity ^ 1U);
    if (lane == 0) shared.pieces[stage] = piece;
    int units = 0;
    for (; units < Tiles::warpgroups; ++units) {
      QueryUnit const unit = unit_of_piece(piece, units, Tiles::warpgroups, a.group);
      if (unit.rows == 0) break;
      int const row = piece.first_query + unit.first;
      copy_row_values(a, row, unit.rows, unit.head, shared.limits[stage][units], shared.lse[stage][units],
                      shared.delta[stage][units]);
    }
    arrive_after_copies(shared.q_full[stage]);
    if (lane == 0) {
      arrive_expecting(shared.q_full[stage], units * 2 * bytes);
      for (int i = 0; i < units; ++i) {
        QueryUnit const unit = unit_of_piece(piece, i, Tiles::warpgroups, a.group);
        int const column = unit.head * Dim, row = piece.first_query + unit.first;
        copy_tile<Dim>(shared_address(shared.q[stage][i]), kBoxBytes, a.q, shared.q_full[stage], column, row);
        copy_tile<Dim>(shared_address(shared.d_out[stage][i]), kBoxBytes, a.d_out, shared.q_full[stage], column, row);
      }
      for (int first = 0; first < piece.limit; first += kTileRows, key.advance()) {
        int const column = piece.kv_head * Dim, row = item.key_begin + first;
        wait(shared.k_empty[key.stage], key.parity ^ 1U);
        arrive_expecting(shared.k_full[key.stage], 2 * bytes);
        copy_tile<Dim>(shared_address(shared.k[key.stage]), kBoxBytes, a.k, shared.k_full[key.stage], column, row);
        copy_tile<Dim>(shared_address(shared.v[key.stage]), kBoxBytes, a.v, shared.k_full[key.stage], column, row);
      }
    }
    __syncwarp();
  }
}

/// What a thread knows of its two rows.
struct QueryRows {
  int limit[2];
  float lse[2], delta[2];
};

/// Goes over the first `tiles` key tiles, of which the piece sees `piece_limit` keys.
template <int Dim>
__device__ __forceinline__ void gather_query_gradient(BackwardArguments const& a, QueryStorage<Dim>& shared,
                                                      int query_stage, RingCursor<QueryStorage<Dim>::Tiles::stages>& at,
                                                      Place const& place, int tiles, int piece_limit, int full_limit,
                                                      QueryRows const& rows, float (&d_q)[Dim / 2]) {
  float const scale = a.scale * kLog2OfE;
  std::uint32_t const q = shared_address(shared.q[query_stage][place.warpgroup]);
  std::uint32_t const d_out = shared_address(shared.d_out[query_stage][place.warpgroup]);
  float scores[kTileRows / 2], d_weights[kTileRows / 2];
  std::uint32_t d_scores[kTileRows / 16][4] = {};
  int unreleased = -1;
  for (int tile = 0; tile < tiles; ++tile, at.advance()) {
    int const stage = at.stage, first = tile * kTileRows;
    wait(shared.k_full[stage], at.parity);
    if (first + kTileRows > piece_limit) {
      clear_rows<Dim, kTileRows>(shared.k[stage], piece_limit - first, place.thread);
      clear_rows<Dim, kTileRows>(shared.v[stage], piece_limit - first, place.thread);
      fence_async();
      named_wait(kOwnBarrier + place.warpgroup, kWarpgroupSize);
    }
    std::uint32_t const k = shared_address(shared.k[stage]);
    wgmma_fence();
    multiply_rows<Dim, kTileRows>(scores, q, k);
    wgmma_commit();
    multiply_rows<Dim, kTileRows>(d_weights, d_out, shared_address(shared.v[stage]));
    wgmma_commit();
    wgmma_wait<1>();
    touch(scores);
    touch(d_q);
    touch(d_scores);
    if (unreleased >= 0) arrive_warp(shared.k_empty[unreleased]);
    unreleased = stage;
#pragma unroll
    for (int i = 0; i < kTileRows / 2; ++i) scores[i] = fast_exp2(fmaf(scores[i], scale, -rows.lse[i / 2 % 2]));
    if (first + kTileRows > full_limit) {
#pragma unroll
      for (int i = 0; i < kTileRows / 2; ++i) {
        if (first + i / 4 * 8 + place.column + i % 2 >= rows.limit[i / 2 % 2]) scores[i] = 0.0F;
      }
    }
    wgmma_wait<0>();
    touch(d_weights);
#pragma unroll
    for (int i = 0; i < kTileRows / 2; ++i) d_weights[i] = scores[i] * (d_weights[i] - rows.delta[i / 2 % 2]);
    narrow_weights<kTileRows>(d_weights, d_scores);
    wgmma_fence();
    add_weighted_rows<Dim, kTileRows>(d_q, d_scores, k);
    wgmma_commit();
  }
  wgmma_wait<0>();
  touch(d_q);
  touch(d_scores);
  if (unreleased >= 0) arrive_warp(shared.k_empty[unreleased]);
}

/// One computing warpgroup.
template <int Dim>
__device__ __forceinline__ void compute_for_queries(BackwardArguments const& a, QueryStorage<Dim>& shared) {
  using Tiles = tuning::AttentionSm90QueryGradient<Dim>;
  Place const place = place_of_thread();
  RingCursor<Tiles::query_stages> query;
  RingCursor<Tiles::stages> key;
  for (int round = 0; piece_of_round(round) < a.num_query_pieces; ++round, query.advance()) {
    int const stage = query.stage, warpgroup = place.warpgroup;
    wait(shared.q_full[stage], query.parity);
    QueryPiece const piece = shared.pieces[stage];
    QueryUnit const unit = unit_of_piece(piece, warpgroup, Tiles::warpgroups, a.group);
    int const all_tiles = uniform((piece.limit + kTileRows - 1) / kTileRows);
    float d_q[Dim / 2] = {};
    int tiles = 0;
    if (unit.rows > 0) {
      int const* const limits = shared.limits[stage][warpgroup];
      float const *const lse = shared.lse[stage][warpgroup], *const delta = shared.delta[stage][warpgroup];
      QueryRows const rows{{limits[place.row], limits[place.row + 8]},
                           {lse[place.row], lse[place.row + 8]},
                           {delta[place.row], delta[place.row + 8]}};
      tiles = uniform((limits[unit.rows - 1] + kTileRows - 1) / kTileRows);
      gather_query_gradient<Dim>(a, shared, stage, key, place, tiles, piece.limit, uniform(limits[0]), rows, d_q);
    }
    arrive_warp(shared.q_empty[stage]);
    for (int tile = tiles; tile < all_tiles; ++tile, key.advance()) {  // of no use to this warpgroup
      wait(shared.k_full[key.stage], key.parity);
      arrive_warp(shared.k_empty[key.stage]);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int const row = place.row + 8 * half;
      bool const valid = row < unit.rows;
      Index const at = piece.first_query + unit.first + (valid ? row : 0);
      store_rows<false, Dim>(d_q, half, a.scale, a.d_q.row(at) + unit.head * Dim, valid, place.quad);
    }
  }
}

template <int Dim>
__global__ void __launch_bounds__((tuning::AttentionSm90QueryGradient<Dim>::warpgroups + 1) * kWarpgroupSize, 1)
    attention_query_gradient_kernel(BackwardArguments const __grid_constant__ arguments) {
  using Tiles = tuning::AttentionSm90QueryGradient<Dim>;
  auto& shared = shared_storage<QueryStorage<Dim>>();
  if (threadIdx.x == 0) {
    int const warps = Tiles::warpgroups * kWarpgroupSize / kWarpSize;
    for (int i = 0; i < Tiles::query_stages; ++i) {
      make_barrier(shared.q_full[i], 1 + kWarpSize);
      make_barrier(shared.q_empty[i], warps);
    }
    for (int i = 0; i < Tiles::stages; ++i) {
      make_barrier(shared.k_full[i], 1);
      make_barrier(shared.k_empty[i], warps);
    }
    publish_barriers();
  }
  __syncthreads();
  if (threadIdx.x < kWarpgroupSize) {
    give_registers<Tiles::fetch_registers>();
    if (threadIdx.x < kWarpSize) fetch_for_queries<Dim>(arguments, shared);
  } else {
    take_registers<Tiles::registers>();
    compute_for_queries<Dim>(arguments, shared);
  }
}

/// What the preparation of the backward pass reads and writes; `out` and `d_out` have `rows` rows.
struct PrepareArguments {
  PlanArguments plan;
  View<bfloat16 const> out, d_out;
  View<float const> lse;
  int rows = 0;
  int heads = 0;
  float* scaled_lse = nullptr;  ///< [rows, heads]
  float* delta = nullptr;       ///< [rows, heads]

  void note_to(auto& log) const { log.note(plan, out, d_out, lse, rows, heads, scaled_lse, delta); }
};

/// Blocks 0 and 1 make the work lists; the others compute delta = d_out.out of every row and head, Dim / 8 threads
/// each, and lse in powers of two.
template <int Dim>
__global__ void __launch_bounds__(kPlanThreads) prepare_backward_kernel(PrepareArguments const arguments) {
  if (blockIdx.x == 0) return plan_queries(arguments.plan);
  if (blockIdx.x == 1) return plan_keys(arguments.plan);
  constexpr int lanes = Dim / 8;
  Index const entry = (Index{blockIdx.x} - 2) * (kPlanThreads / lanes) + threadIdx.x / lanes;
  int const part = static_cast<int>(threadIdx.x) % lanes;
  bool const valid = entry < Index{arguments.rows} * arguments.heads;
  Index const row = valid ? entry / arguments.heads : 0, head = valid ? entry % arguments.heads : 0;
  Index const column = head * Dim + part * 8;
  auto const a = load_lanes<8>(arguments.out.row(row) + column), b = load_lanes<8>(arguments.d_out.row(row) + column);
  float sum = 0.0F;
#pragma unroll
  for (int i = 0; i < 8; ++i) sum = fmaf(a.value[i], b.value[i], sum);
#pragma unroll
  for (int distance = lanes / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(kAllLanes, sum, distance);
  if (!valid || part != 0) return;
  float const lse = arguments.lse(row, head);
  arguments.scaled_lse[entry] = lse == -INFINITY ? INFINITY : lse * kLog2OfE;
  arguments.delta[entry] = sum;
}

}  // namespace mor::cuda::sm90
