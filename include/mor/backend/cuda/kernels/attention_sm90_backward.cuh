// SPDX-License-Identifier: Apache-2.0
/// @file
/// Backward attention on Hopper, in two kernels that each compute the weights again from scores and `lse`: one holds 64
/// keys a warpgroup and goes over the queries (d_k, d_v), the other holds 64 queries a warpgroup and goes over the keys
/// (d_q). That is seven products where five would do, but sums stay in registers, in one fixed order, and weights go
/// from one product to the next without passing through shared memory.
///
/// With p = exp(scale q.k - lse), dp = d_out.v and delta = d_out.out: ds = p (dp - delta), d_q = scale ds k,
/// d_k = scale ds^T q, d_v = p^T d_out.
#pragma once

#include "mor/backend/cuda/kernels/attention_sm90.cuh"
#include "mor/backend/cuda/kernels/attention_sm90_tile.cuh"
#include "mor/backend/cuda/tuning/attention_sm90.hpp"
#include "mor/core/view.hpp"

namespace mor::cuda::sm90 {

struct BackwardArguments {
  TensorMap q, k, v, d_out;
  QueryItem const* query_items;
  KeyItem const* key_items;
  int const* num_key_items;
  Row const* limits;
  float const* lse;    ///< [rows, heads] times log2(e); +infinity for rows that see nothing
  float const* delta;  ///< [rows, heads]
  int num_query_pieces;
  int kv_heads;
  int group;
  float scale;
  View<bfloat16> d_q, d_k, d_v;

  void note_to(auto& log) const {
    log.note(q.opaque, k.opaque, v.opaque, d_out.opaque, query_items, key_items, num_key_items, limits, lse, delta, num_query_pieces,
             kv_heads, group, scale, d_q, d_k, d_v);
  }
};

/// Starts copies of what 64 query rows of one head need besides q and d_out, by one warp. Rows that are not there get
/// 0.
__device__ __forceinline__ void copy_row_values(BackwardArguments const& a, int row, int rows, int head, int* limits,
                                                float* lse, float* delta) {
  int const lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
  for (int i = lane; i < kTileRows; i += kWarpSize) {
    bool const valid = i < rows;
    Index const at = valid ? row + i : row;
    Index const value = at * (a.kv_heads * a.group) + head;
    copy_word(limits + i, a.limits + at, valid);
    copy_word(lse + i, a.lse + value, valid);
    copy_word(delta + i, a.delta + value, valid);
  }
}

// ---- Gradients of keys and values ----

struct KeyPiece {
  int first_query, num_queries;
  int key;         ///< the first key of the tile in its list
  int key_row;     ///< its row in the storage
  int keys;        ///< that any query sees; the tile may have more
  int first_tile;  ///< of queries
  int kv_head;
};

template <int Dim>
struct KeyStorage {
  using Tiles = tuning::AttentionSm90KeyGradient<Dim>;
  static constexpr int kTileBytes = kTileRows * Dim * 2;
  alignas(1024) unsigned char k[Tiles::warpgroups][kTileBytes];
  unsigned char v[Tiles::warpgroups][kTileBytes];
  unsigned char q[Tiles::stages][kTileBytes];
  unsigned char d_out[Tiles::stages][kTileBytes];
  alignas(16) float lse[Tiles::stages][kTileRows];
  float delta[Tiles::stages][kTileRows];
  int limits[Tiles::stages][kTileRows];
  KeyPiece piece;
  Barrier k_full, k_empty;
  Barrier q_full[Tiles::stages], q_empty[Tiles::stages];
};

template <int Dim>
__device__ __forceinline__ void fetch_for_keys(BackwardArguments const& a, KeyStorage<Dim>& shared) {
  using Tiles = tuning::AttentionSm90KeyGradient<Dim>;
  constexpr int bytes = KeyStorage<Dim>::kTileBytes;
  int const lane = static_cast<int>(threadIdx.x) % kWarpSize, pieces = *a.num_key_items * a.kv_heads;
  RingCursor<1> key;
  RingCursor<Tiles::stages> query;
  if (lane == 0) {
    for (TensorMap const* map : {&a.q, &a.k, &a.v, &a.d_out}) prefetch_map(*map);
  }
  for (int round = 0;; ++round, key.advance()) {
    int const number = piece_of_round(round);
    if (number >= pieces) break;
    KeyItem const item = a.key_items[number / a.kv_heads];
    int const kv_head = number % a.kv_heads, first_key = item.tile * Tiles::warpgroups * kTileRows;
    wait(shared.k_empty, key.parity ^ 1U);
    if (lane == 0) {
      KeyPiece const piece{item.first_query,       item.num_queries, first_key, item.key_begin + first_key,
                           item.limit - first_key, item.first_tile,  kv_head};
      shared.piece = piece;
      int const parts = min((piece.keys + kTileRows - 1) / kTileRows, Tiles::warpgroups);
      arrive_expecting(shared.k_full, 2 * parts * bytes);
      for (int i = 0; i < parts; ++i) {
        int const row = piece.key_row + i * kTileRows;
        copy_tile<Dim>(shared_address(shared.k[i]), kBoxBytes, a.k, shared.k_full, kv_head * Dim, row);
        copy_tile<Dim>(shared_address(shared.v[i]), kBoxBytes, a.v, shared.k_full, kv_head * Dim, row);
      }
    }
    for (int first = item.first_tile * kTileRows; first < item.num_queries; first += kTileRows) {
      for (int head = kv_head * a.group; head < (kv_head + 1) * a.group; ++head, query.advance()) {
        int const stage = query.stage, row = item.first_query + first;
        wait(shared.q_empty[stage], query.parity ^ 1U);
        copy_row_values(a, row, item.num_queries - first, head, shared.limits[stage], shared.lse[stage],
                        shared.delta[stage]);
        arrive_after_copies(shared.q_full[stage]);
        if (lane == 0) {
          arrive_expecting(shared.q_full[stage], 2 * bytes);
          copy_tile<Dim>(shared_address(shared.q[stage]), kBoxBytes, a.q, shared.q_full[stage], head * Dim, row);
          copy_tile<Dim>(shared_address(shared.d_out[stage]), kBoxBytes, a.d_out, shared.q_full[stage], head * Dim,
                         row);
        }
        __syncwarp();
      }
    }
  }
}

/// Scores [64 keys, 64 queries] become weights.
__device__ __forceinline__ void weigh_columns(float (&scores)[32], float const* lse, int column, float scale) {
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    float2 const pair = *reinterpret_cast<float2 const*>(lse + 8 * j + column);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      scores[4 * j + 2 * half] = fast_exp2(fmaf(scores[4 * j + 2 * half], scale, -pair.x));
      scores[4 * j + 2 * half + 1] = fast_exp2(fmaf(scores[4 * j + 2 * half + 1], scale, -pair.y));
    }
  }
}

/// Weights of queries that do not see a key become 0; `key` is the key of the thread's first row.
__device__ __forceinline__ void hide_queries(float (&weights)[32], int const* limits, int column, int key) {
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    int2 const pair = *reinterpret_cast<int2 const*>(limits + 8 * j + column);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (key + 8 * half >= pair.x) weights[4 * j + 2 * half] = 0.0F;
      if (key + 8 * half >= pair.y) weights[4 * j + 2 * half + 1] = 0.0F;
    }
  }
}

/// Gradients of weights become gradients of scores; `weights` are the left operand that they became.
__device__ __forceinline__ void differentiate_columns(float (&d_weights)[32], std::uint32_t const (&weights)[4][4],
                                                      float const* delta, int column) {
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    float2 const pair = *reinterpret_cast<float2 const*>(delta + 8 * j + column);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      std::uint32_t const weight = weights[j / 2][j % 2 * 2 + half];
      float &low = d_weights[4 * j + 2 * half], &high = d_weights[4 * j + 2 * half + 1];
      low = __uint_as_float(weight << 16) * (low - pair.x);
      high = __uint_as_float(weight & 0xffff0000U) * (high - pair.y);
    }
  }
}

/// What a warpgroup holds while it goes over the queries.
template <int Dim>
struct KeyState {
  float d_k[Dim / 2] = {};  ///< without the scale
  float d_v[Dim / 2] = {};
  std::uint32_t weights[4][4] = {}, d_scores[4][4] = {};
};

/// One step: 64 queries of a head. On return the product that adds to d_k is still under way, and so may be the one for
/// d_v. `release` is called when those of the step before are done.
template <int Dim, class Release>
__device__ __forceinline__ void step_over_queries(BackwardArguments const& a, KeyStorage<Dim>& shared, int stage,
                                                  Place const& place, int key, bool hide, KeyState<Dim>& state,
                                                  Release const& release) {
  std::uint32_t const q = shared_address(shared.q[stage]), d_out = shared_address(shared.d_out[stage]);
  std::uint32_t const k = shared_address(shared.k[place.warpgroup]), v = shared_address(shared.v[place.warpgroup]);
  float scores[32], d_weights[32];
  wgmma_fence();
  multiply_rows<Dim, kTileRows>(scores, k, q);
  wgmma_commit();
  wgmma_wait<0>();
  touch(scores);
  touch(state.d_k);
  touch(state.d_v);
  touch(state.weights);
  touch(state.d_scores);
  release();
  weigh_columns(scores, shared.lse[stage], place.column, a.scale * kLog2OfE);
  if (hide) hide_queries(scores, shared.limits[stage], place.column, key + place.row);
  narrow_weights<kTileRows>(scores, state.weights);
  wgmma_fence();
  multiply_rows<Dim, kTileRows>(d_weights, v, d_out);  // only now that the scores' registers are free
  wgmma_commit();
  add_weighted_rows<Dim, kTileRows>(state.d_v, state.weights, d_out);
  wgmma_commit();
  wgmma_wait<1>();
  touch(d_weights);
  differentiate_columns(d_weights, state.weights, shared.delta[stage], place.column);
  narrow_weights<kTileRows>(d_weights, state.d_scores);
  wgmma_fence();
  add_weighted_rows<Dim, kTileRows>(state.d_k, state.d_scores, q);
  wgmma_commit();
}

/// Goes over the queries for the warpgroup's keys; `active` where it has any.
template <int Dim>
__device__ __forceinline__ void gather_key_gradients(BackwardArguments const& a, KeyStorage<Dim>& shared,
                                                     RingCursor<KeyStorage<Dim>::Tiles::stages>& at, Place const& place,
                                                     KeyPiece const& piece, bool active, KeyState<Dim>& state) {
  int const key = piece.key + place.warpgroup * kTileRows;
  int unreleased = -1;
  for (int first = piece.first_tile * kTileRows; first < piece.num_queries; first += kTileRows) {
    int const rows = min(piece.num_queries - first, kTileRows);
    for (int head = 0; head < a.group; ++head, at.advance()) {
      int const stage = at.stage;
      wait(shared.q_full[stage], at.parity);
      if (!active || uniform(shared.limits[stage][rows - 1]) <= key) {  // only before the first that sees a key
        arrive_warp(shared.q_empty[stage]);
        continue;
      }
      bool const hide = rows < kTileRows || uniform(shared.limits[stage][0]) < key + kTileRows;
      step_over_queries<Dim>(a, shared, stage, place, key, hide, state, [&] {
        if (unreleased >= 0) arrive_warp(shared.q_empty[unreleased]);
      });
      unreleased = stage;
    }
  }
  wgmma_wait<0>();
  touch(state.d_k);
  touch(state.d_v);
  touch(state.weights);
  touch(state.d_scores);
  if (unreleased >= 0) arrive_warp(shared.q_empty[unreleased]);
  arrive_warp(shared.k_empty);
}

template <int Dim>
__device__ __forceinline__ void compute_for_keys(BackwardArguments const& a, KeyStorage<Dim>& shared) {
  using Tiles = tuning::AttentionSm90KeyGradient<Dim>;
  Place const place = place_of_thread();
  int const pieces = *a.num_key_items * a.kv_heads;
  RingCursor<1> key;
  RingCursor<Tiles::stages> query;
  for (int round = 0; piece_of_round(round) < pieces; ++round, key.advance()) {
    wait(shared.k_full, key.parity);
    KeyPiece const piece = shared.piece;
    int const rows = uniform(min(piece.keys - place.warpgroup * kTileRows, kTileRows));
    KeyState<Dim> state;
    gather_key_gradients<Dim>(a, shared, query, place, piece, rows > 0, state);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int const row = place.row + 8 * half;
      bool const valid = row < rows;
      Index const at = piece.key_row + (valid ? place.warpgroup * kTileRows + row : 0);
      int const column = piece.kv_head * Dim;
      store_rows<true, Dim>(state.d_v, half, 1.0F, a.d_v.row(at) + column, valid, place.quad);
      store_rows<true, Dim>(state.d_k, half, a.scale, a.d_k.row(at) + column, valid, place.quad);
    }
  }
}

template <int Dim>
__global__ void __launch_bounds__((tuning::AttentionSm90KeyGradient<Dim>::warpgroups + 1) * kWarpgroupSize, 1)
    attention_key_gradient_kernel(BackwardArguments const __grid_constant__ arguments) {
  using Tiles = tuning::AttentionSm90KeyGradient<Dim>;
  auto& shared = shared_storage<KeyStorage<Dim>>();
  if (threadIdx.x == 0) {
    int const warps = Tiles::warpgroups * kWarpgroupSize / kWarpSize;
    make_barrier(shared.k_full, 1);
    make_barrier(shared.k_empty, warps);
    for (int i = 0; i < Tiles::stages; ++i) {
      make_barrier(shared.q_full[i], 1 + kWarpSize);
      make_barrier(shared.q_empty[i], warps);
    }
    publish_barriers();
  }
  __syncthreads();
  if (threadIdx.x < kWarpgroupSize) {
    give_registers<Tiles::fetch_registers>();
    if (threadIdx.x < kWarpSize) fetch_for_keys<Dim>(arguments, shared);
  } else {
    take_registers<Tiles::registers>();
    compute_for_keys<Dim>(arguments, shared);
  }
}

}  // namespace mor::cuda::sm90
