// SPDX-License-Identifier: Apache-2.0
/// @file
/// Forward attention on Hopper. One warp fetches tiles through the copy engine; each computing warpgroup holds 64
/// queries of one head and goes over the keys with an online softmax (Dao et al., "FlashAttention", 2022), the
/// exponentials of one step running beside the products of the next and of the other warpgroups (Shah et al.,
/// "FlashAttention-3", 2024).
///
/// The query heads that share a key/value head are spread over the warpgroups of a block, so that a block covers few
/// queries: less of the last tile of keys lies behind the limits, and each fetched key serves all of them.
#pragma once

#include "mor/backend/cuda/kernels/attention_sm90_tile.cuh"
#include "mor/backend/cuda/tuning/attention_sm90.hpp"
#include "mor/core/view.hpp"

namespace mor::cuda::sm90 {

struct ForwardArguments {
  TensorMap q, k, v;
  QueryItem const* items;
  Row const* limits;
  int num_pieces;  ///< items times key/value heads
  int kv_heads;
  int group;
  float scale;
  View<bfloat16> out;
  View<float> lse;

  void note_to(auto& log) const { log.note(q.opaque, k.opaque, v.opaque, items, limits, num_pieces, kv_heads, group, scale, out, lse); }
};

/// A piece of work as the fetching warp hands it on.
struct QueryPiece {
  int first_query, num_queries, chunk, limit, kv_head;
};

/// Where a warpgroup's unit of a piece lies.
struct QueryUnit {
  int head;
  int first;  ///< query of the sequence
  int rows;   ///< at most 64; 0 where there is no such unit
};
__device__ __forceinline__ QueryUnit unit_of_piece(QueryPiece const& piece, int unit, int warpgroups, int group) {
  int const number = piece.chunk * warpgroups + unit, first = number / group * kTileRows;
  return {piece.kv_head * group + number % group, first, min(max(piece.num_queries - first, 0), kTileRows)};
}

template <int Dim>
struct ForwardStorage {
  using Tiles = tuning::AttentionSm90Forward<Dim>;
  static constexpr int kQueryBytes = kTileRows * Dim * 2, kKeyBytes = Tiles::keys * Dim * 2;
  static constexpr int kRows = Tiles::warpgroups * kTileRows;
  alignas(1024) unsigned char q[Tiles::query_stages][Tiles::warpgroups][kQueryBytes];
  unsigned char k[Tiles::stages][kKeyBytes];
  unsigned char v[Tiles::stages][kKeyBytes];
  int limits[Tiles::query_stages][kRows];
  QueryPiece pieces[Tiles::query_stages];
  Barrier q_full[Tiles::query_stages], q_empty[Tiles::query_stages];
  Barrier k_full[Tiles::stages], k_empty[Tiles::stages], v_full[Tiles::stages], v_empty[Tiles::stages];
};

/// Fetches a tile of `Keys` keys in boxes of 64.
template <int Dim, int Keys>
__device__ __forceinline__ void fetch_keys(unsigned char* to, TensorMap const& from, Barrier& full, int column,
                                           int row) {
  arrive_expecting(full, Keys * Dim * 2);
#pragma unroll
  for (int part = 0; part < Keys / kTileRows; ++part) {
    copy_tile<Dim>(shared_address(to) + part * kBoxBytes, Keys * kSwizzleRowBytes, from, full, column,
                   row + part * kTileRows);
  }
}

/// The fetching warp.
template <int Dim>
__device__ __forceinline__ void fetch_forward(ForwardArguments const& a, ForwardStorage<Dim>& shared) {
  using Tiles = tuning::AttentionSm90Forward<Dim>;
  int const lane = static_cast<int>(threadIdx.x) % kWarpSize;
  RingCursor<Tiles::query_stages> query;
  RingCursor<Tiles::stages> key;
  if (lane == 0) {
    for (TensorMap const* map : {&a.q, &a.k, &a.v}) prefetch_map(*map);
  }
  for (int round = 0;; ++round, query.advance()) {
    int const number = piece_of_round(round);
    if (number >= a.num_pieces) break;
    QueryItem const item = a.items[number / a.kv_heads];
    QueryPiece const piece{item.first_query, item.num_queries, item.chunk, item.limit, number % a.kv_heads};
    wait(shared.q_empty[query.stage], query.parity ^ 1U);
    for (int row = lane; row < ForwardStorage<Dim>::kRows; row += kWarpSize) {
      int const at = unit_of_piece(piece, row / kTileRows, Tiles::warpgroups, a.group).first + row % kTileRows;
      bool const valid = at < piece.num_queries;
      copy_word(&shared.limits[query.stage][row], a.limits + piece.first_query + (valid ? at : 0), valid);
    }
    arrive_after_copies(shared.q_full[query.stage]);
    if (lane == 0) {
      shared.pieces[query.stage] = piece;
      int units = 0;
      while (units < Tiles::warpgroups && unit_of_piece(piece, units, Tiles::warpgroups, a.group).rows > 0) ++units;
      arrive_expecting(shared.q_full[query.stage], units * ForwardStorage<Dim>::kQueryBytes);
      for (int i = 0; i < units; ++i) {
        QueryUnit const unit = unit_of_piece(piece, i, Tiles::warpgroups, a.group);
        copy_tile<Dim>(shared_address(shared.q[query.stage][i]), kBoxBytes, a.q, shared.q_full[query.stage],
                       unit.head * Dim, piece.first_query + unit.first);
      }
      for (int first = 0; first < piece.limit; first += Tiles::keys, key.advance()) {
        int const row = item.key_begin + first, column = piece.kv_head * Dim;
        wait(shared.k_empty[key.stage], key.parity ^ 1U);
        fetch_keys<Dim, Tiles::keys>(shared.k[key.stage], a.k, shared.k_full[key.stage], column, row);
        wait(shared.v_empty[key.stage], key.parity ^ 1U);
        fetch_keys<Dim, Tiles::keys>(shared.v[key.stage], a.v, shared.v_full[key.stage], column, row);
      }
    }
    __syncwarp();
  }
}

/// The running softmax of a thread's two rows.
struct RunningSoftmax {
  float maximum[2];  ///< what weights are taken against, in unscaled scores; -infinity before the first visible key
  float total[2];    ///< this thread's part of the sum of weights
  float factor[2];   ///< what earlier sums have to be multiplied with
};

/// Scores become weights 2^(scale (score - maximum)), `scale` with log2(e) in it. The maximum is left as it is until a
/// score outgrows it by the slack: weights stay far from overflow, and sums hardly ever have to be corrected.
template <int N>
__device__ __forceinline__ void weigh(float (&scores)[N / 2], RunningSoftmax& state, float scale) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float highest[2] = {scores[2 * half], scores[2 * half + 1]};
#pragma unroll
    for (int i = 4 + 2 * half; i < N / 2; i += 4) {
      highest[0] = fmaxf(highest[0], scores[i]);
      highest[1] = fmaxf(highest[1], scores[i + 1]);
    }
    float top = fmaxf(highest[0], highest[1]);
    top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 1));
    top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2));
    float const before = state.maximum[half];
    bool const outgrown = (top - before) * scale > tuning::kAttentionSm90Slack;  // false where both are -infinity
    state.maximum[half] = outgrown ? top : before;
    state.factor[half] = outgrown ? fast_exp2((before - top) * scale) : 1.0F;
    float const offset = state.maximum[half] == -INFINITY ? 0.0F : state.maximum[half] * scale;
    float sum[2] = {};
#pragma unroll
    for (int i = 2 * half; i < N / 2; i += 4) {
      scores[i] = fast_exp2(fmaf(scores[i], scale, -offset));
      scores[i + 1] = fast_exp2(fmaf(scores[i + 1], scale, -offset));
      sum[0] += scores[i];
      sum[1] += scores[i + 1];
    }
    state.total[half] = state.total[half] * state.factor[half] + (sum[0] + sum[1]);
  }
}

/// Scores of keys that a row does not see become -infinity; `limit` counts the keys of this tile that it sees.
template <int N>
__device__ __forceinline__ void hide_keys(float (&scores)[N / 2], int const (&limit)[2], int column) {
#pragma unroll
  for (int i = 0; i < N / 2; ++i) {
    if (i / 4 * 8 + column + i % 2 >= limit[i / 2 % 2]) scores[i] = -INFINITY;
  }
}

/// Everything one computing warpgroup keeps from piece to piece.
template <int Dim>
struct ForwardCursors {
  using Tiles = tuning::AttentionSm90Forward<Dim>;
  RingCursor<Tiles::query_stages> query;
  RingCursor<Tiles::stages> key, value;
};

template <int Dim>
__device__ __forceinline__ void wait_turn(int warpgroup) {
  using Tiles = tuning::AttentionSm90Forward<Dim>;
  if constexpr (Tiles::in_turns) named_wait(kTurnBarrier + warpgroup, 2 * kWarpgroupSize);
}
template <int Dim>
__device__ __forceinline__ void pass_turn(int warpgroup) {
  using Tiles = tuning::AttentionSm90Forward<Dim>;
  if constexpr (Tiles::in_turns) {
    named_arrive(kTurnBarrier + (warpgroup + 1 == Tiles::warpgroups ? 0 : warpgroup + 1), 2 * kWarpgroupSize);
  }
}

/// Weighted sums of values over the `tiles` key tiles that this warpgroup sees, at least one.
template <int Dim>
__device__ __forceinline__ void attend(ForwardArguments const& a, ForwardStorage<Dim>& shared, ForwardCursors<Dim>& at,
                                       Place const& place, int tiles, int piece_limit, int full_limit,
                                       int const (&limits)[2], RunningSoftmax& state, float (&sums)[Dim / 2]) {
  constexpr int keys = ForwardStorage<Dim>::Tiles::keys;
  float const scale = a.scale * kLog2OfE;
  std::uint32_t const q = shared_address(shared.q[at.query.stage][place.warpgroup]);
  float scores[keys / 2];
  std::uint32_t weights[keys / 16][4];
  auto const hide = [&](int first) {
    if (first + keys <= full_limit) return;
    int const left[2] = {limits[0] - first, limits[1] - first};
    hide_keys<keys>(scores, left, place.column);
  };

  wait(shared.k_full[at.key.stage], at.key.parity);
  wait_turn<Dim>(place.warpgroup);
  wgmma_fence();
  multiply_rows<Dim, keys>(scores, q, shared_address(shared.k[at.key.stage]));
  wgmma_commit();
  pass_turn<Dim>(place.warpgroup);
  wgmma_wait<0>();
  touch(scores);
  arrive_warp(shared.k_empty[at.key.stage]);
  at.key.advance();
  hide(0);
  weigh<keys>(scores, state, scale);
  narrow_weights<keys>(scores, weights);

  for (int tile = 1; tile < tiles; ++tile) {
    wait(shared.k_full[at.key.stage], at.key.parity);
    wait_turn<Dim>(place.warpgroup);
    wgmma_fence();
    multiply_rows<Dim, keys>(scores, q, shared_address(shared.k[at.key.stage]));
    wgmma_commit();
    wait(shared.v_full[at.value.stage], at.value.parity);
    wgmma_fence();
    add_weighted_rows<Dim, keys>(sums, weights, shared_address(shared.v[at.value.stage]));
    wgmma_commit();
    pass_turn<Dim>(place.warpgroup);
    wgmma_wait<1>();
    touch(scores);
    hide(tile * keys);
    weigh<keys>(scores, state, scale);
    arrive_warp_after(shared.k_empty[at.key.stage], state.total[0] + state.total[1]);
    at.key.advance();
    wgmma_wait<0>();
    touch(sums);
    touch(weights);
    arrive_warp(shared.v_empty[at.value.stage]);
    at.value.advance();
    if (__any_sync(kAllLanes, state.factor[0] != 1.0F || state.factor[1] != 1.0F)) {
#pragma unroll
      for (int i = 0; i < Dim / 2; ++i) sums[i] *= state.factor[i / 2 % 2];
    }
    narrow_weights<keys>(scores, weights);
  }

  arrive_warp(shared.q_empty[at.query.stage]);
  wait(shared.v_full[at.value.stage], at.value.parity);
  int const valid = piece_limit - (tiles - 1) * keys;
  if (valid < keys) {
    clear_rows<Dim, keys>(shared.v[at.value.stage], valid, place.thread);
    fence_async();
    named_wait(kOwnBarrier + place.warpgroup, kWarpgroupSize);
  }
  wgmma_fence();
  add_weighted_rows<Dim, keys>(sums, weights, shared_address(shared.v[at.value.stage]));
  wgmma_commit();
  wgmma_wait<0>();
  touch(sums);
  touch(weights);
  arrive_warp(shared.v_empty[at.value.stage]);
  at.value.advance();
}

/// Takes part in a tile that this warpgroup has no use for.
template <int Dim>
__device__ __forceinline__ void pass_tile(ForwardStorage<Dim>& shared, ForwardCursors<Dim>& at, int warpgroup) {
  wait_turn<Dim>(warpgroup);
  pass_turn<Dim>(warpgroup);
  wait(shared.k_full[at.key.stage], at.key.parity);
  arrive_warp(shared.k_empty[at.key.stage]);
  at.key.advance();
  wait(shared.v_full[at.value.stage], at.value.parity);
  arrive_warp(shared.v_empty[at.value.stage]);
  at.value.advance();
}

template <int Dim>
__device__ __forceinline__ void store_attended(ForwardArguments const& a, QueryPiece const& piece,
                                               QueryUnit const& unit, Place const& place, RunningSoftmax const& state,
                                               float const (&sums)[Dim / 2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float total = state.total[half];
    total += __shfl_xor_sync(kAllLanes, total, 1);
    total += __shfl_xor_sync(kAllLanes, total, 2);
    int const row = place.row + 8 * half;
    bool const valid = row < unit.rows;
    Index const query = piece.first_query + unit.first + (valid ? row : 0);
    store_rows<false, Dim>(sums, half, total == 0.0F ? 0.0F : 1.0F / total, a.out.row(query) + unit.head * Dim, valid,
                           place.quad);
    if (valid && place.quad == 0) {
      a.lse(query, unit.head) =
          total == 0.0F ? -INFINITY : fmaf(state.maximum[half], a.scale, kLogOf2 * __log2f(total));
    }
  }
}

/// One computing warpgroup.
template <int Dim>
__device__ __forceinline__ void compute_forward(ForwardArguments const& a, ForwardStorage<Dim>& shared) {
  using Tiles = tuning::AttentionSm90Forward<Dim>;
  Place const place = place_of_thread();
  ForwardCursors<Dim> at;
  if (place.warpgroup == Tiles::warpgroups - 1) pass_turn<Dim>(place.warpgroup);
  for (int round = 0; piece_of_round(round) < a.num_pieces; ++round, at.query.advance()) {
    wait(shared.q_full[at.query.stage], at.query.parity);
    QueryPiece const piece = shared.pieces[at.query.stage];
    QueryUnit const unit = unit_of_piece(piece, place.warpgroup, Tiles::warpgroups, a.group);
    int const* const row_limits = shared.limits[at.query.stage] + place.warpgroup * kTileRows;
    int const limits[2] = {row_limits[place.row], row_limits[place.row + 8]};
    int const full_limit = uniform(row_limits[0]);
    int const last_limit = uniform(unit.rows > 0 ? row_limits[unit.rows - 1] : 0);
    int const all_tiles = uniform((piece.limit + Tiles::keys - 1) / Tiles::keys);
    int const tiles = uniform((last_limit + Tiles::keys - 1) / Tiles::keys);

    float sums[Dim / 2] = {};
    RunningSoftmax state{{-INFINITY, -INFINITY}, {}, {}};
    if (tiles > 0) {
      // Values behind the piece's limit are cleared in the tile where it lies.
      int const seen = tiles == all_tiles ? piece.limit : tiles * Tiles::keys;
      attend<Dim>(a, shared, at, place, tiles, seen, full_limit, limits, state, sums);
    } else {
      arrive_warp(shared.q_empty[at.query.stage]);
    }
    for (int tile = tiles; tile < all_tiles; ++tile) pass_tile<Dim>(shared, at, place.warpgroup);
    store_attended<Dim>(a, piece, unit, place, state, sums);
  }
  if (place.warpgroup == 0) wait_turn<Dim>(0);  // the last turn passed on
}

template <int Dim>
__global__ void __launch_bounds__((tuning::AttentionSm90Forward<Dim>::warpgroups + 1) * kWarpgroupSize, 1)
    attention_forward_kernel(ForwardArguments const __grid_constant__ arguments) {
  using Tiles = tuning::AttentionSm90Forward<Dim>;
  auto& shared = shared_storage<ForwardStorage<Dim>>();
  if (threadIdx.x == 0) {
    int const warps = Tiles::warpgroups * kWarpgroupSize / kWarpSize;
    for (int i = 0; i < Tiles::query_stages; ++i) {
      make_barrier(shared.q_full[i], 1 + kWarpSize);
      make_barrier(shared.q_empty[i], warps);
    }
    for (int i = 0; i < Tiles::stages; ++i) {
      make_barrier(shared.k_full[i], 1);
      make_barrier(shared.k_empty[i], warps);
      make_barrier(shared.v_full[i], 1);
      make_barrier(shared.v_empty[i], warps);
    }
    publish_barriers();
  }
  __syncthreads();
  if (threadIdx.x < kWarpgroupSize) {
    give_registers<Tiles::fetch_registers>();
    if (threadIdx.x < kWarpSize) fetch_forward<Dim>(arguments, shared);
  } else {
    take_registers<Tiles::registers>();
    compute_forward<Dim>(arguments, shared);
  }
}

}  // namespace mor::cuda::sm90
