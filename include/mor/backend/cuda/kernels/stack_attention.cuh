// SPDX-License-Identifier: Apache-2.0
/// @file
/// The attention of a layer in a stack. A unit is one row and one key/value head with the query heads that share it; the
/// warps of a block take 16 keys each in turn, straight from memory to registers, and their results are joined in shared
/// memory in the order of the warps. A warp asks for its next keys, of this unit or the next, before it uses those that it
/// has, and has the same keys of the next layer brought to the second-level cache.
///
/// Scores are [heads, keys] and results [heads, columns], so that weights are already the left side of the second product.
/// Of 64 dimensions lane t takes dimensions 8t to 8t + 7 and 32 + 8t to 39 + 8t of queries and keys; of values, lane g takes
/// dimensions 8g to 8g + 7, and column g of the d-th product is dimension 8g + d. Products and sums are spelled out, here and
/// in stack_product.cuh, so that every instance of the kernel has the same bits.
#pragma once

#include "mor/backend/cuda/kernels/attention_arguments.cuh"
#include "mor/backend/cuda/kernels/attention_tile.cuh"
#include "mor/backend/cuda/kernels/computed_here.cuh"
#include "mor/backend/cuda/kernels/mma.cuh"
#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/kernels/stack_block.cuh"

#include <cstdint>
#include <limits>

namespace mor::cuda {

/// Keys and values of one step of a warp.
template <int HeadDim>
struct StackStep {
  static constexpr int kChunks = HeadDim / 32, kHalves = HeadDim / 64;
  uint4 keys[2][kChunks];    ///< key 8n + g
  uint4 values[4][kHalves];  ///< keys 2t, 2t + 1, 8 + 2t, 9 + 2t
};

template <int HeadDim>
class StackAttention {
  using Step = StackStep<HeadDim>;
  using Buffers = tuning::StackBuffers;
  static constexpr int kStride = tuning::Stack::warps * tuning::Stack::step_keys;

 public:
  __device__ __forceinline__ explicit StackAttention(StackBlock& block)
      : block_(block), arguments_(block.arguments), shape_(block.plan.shape),
        warp_(computed_here(StackBlock::warp())), lane_(computed_here(StackBlock::lane())) {}

  __device__ __forceinline__ void run() {
    int const units = (block_.rows * shape_.kv_heads - block_.first_unit() + block_.plan.blocks - 1) / block_.plan.blocks;
    if (units <= 0) return;
    if (!arguments_.rows_apart) wait_for_keys();
#pragma unroll 1
    for (int first = 0; first < units; first += block_.plan.joined_units) {
      int const end = min(first + block_.plan.joined_units, units);
      attend(first, end);
      block_.meet();
      finish(first, end);
      block_.next_room();
    }
  }

  /// Has the first layer's keys brought to the second-level cache.
  __device__ __forceinline__ void prefetch() const {
    int const units = block_.rows * shape_.kv_heads;
#pragma unroll 1
    for (int i = 0; block_.first_unit() + i * block_.plan.blocks < units; ++i) {
      Unit const unit = find(i);
#pragma unroll 1
      for (int base = first_base(); base < unit.limit; base += kStride) prefetch(0, unit, base, place_at(unit, base));
    }
  }

 private:
  [[nodiscard]] __device__ __forceinline__ int g() const { return lane_ / 4; }
  [[nodiscard]] __device__ __forceinline__ int t() const { return lane_ % 4; }

  /// Until the keys of all rows are where they belong.
  __device__ __forceinline__ void wait_for_keys() const {
    int const expected = (2 * shape_.keys / tuning::Stack::tile) * ((block_.rows + 7) / 8) * tuning::Stack::pair - 1;
    int written;
    do {
      asm volatile("ld.acquire.gpu.global.s32 %0, [%1];"
                   : "=r"(written)
                   : "l"(__cvta_generic_to_global(block_.exchange.count(block_.layer)))
                   : "memory");
    } while (written != expected);
  }

  struct Unit {
    int index, row, head, limit;
    int own;  ///< the row's own key, where that comes with the query; else -1
  };
  /// The i-th unit of the block.
  [[nodiscard]] __device__ __forceinline__ Unit find(int i) const {
    auto const unit = static_cast<unsigned>(block_.first_unit() + i * block_.plan.blocks);
    int const row = static_cast<int>(arguments_.by_kv_heads(unit)), limit = block_.limits()[row];
    bool const own = arguments_.rows_apart && block_.places()[row] >= 0;
    return {i, row, static_cast<int>(unit) - row * shape_.kv_heads, limit, own ? limit - 1 : -1};
  }
  /// What the row's projection gave.
  [[nodiscard]] __device__ __forceinline__ bfloat16 const* projected(Unit const& unit) const {
    return block_.exchange.at(block_.slot + block_.plan.offsets[Buffers::Projected] + unit.row * block_.plan.widths[Buffers::Projected]);
  }
  [[nodiscard]] __device__ __forceinline__ int first_base() const { return warp_ * tuning::Stack::step_keys; }

  /// Keys that the row does not see become zeros, and so does its own, where that comes with the query.
  __device__ __forceinline__ void request(Step& step, Unit const& unit, int base) const {
    int const place = place_at(unit, base), stride = arguments_.plane_stride, end = (unit.own >= 0 ? unit.own : unit.limit) - base;
    auto const& planes = block_.vectors()[block_.layer].planes;
    Index const first = Index{place} * stride + unit.head * HeadDim;
    bfloat16 const* const keys = planes[0] + first + g() * stride + t() * 8;
    bfloat16 const* const values = planes[1] + first + 2 * t() * stride + g() * 8;
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int c = 0; c < Step::kChunks; ++c) {
        step.keys[n][c] = make_uint4(0U, 0U, 0U, 0U);
        if (8 * n + g() < end) step.keys[n][c] = load_exchanged(keys + 8 * n * stride + c * 32);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      int const key = i / 2 * 8 + i % 2;
#pragma unroll
      for (int h = 0; h < Step::kHalves; ++h) {
        step.values[i][h] = make_uint4(0U, 0U, 0U, 0U);
        if (key + 2 * t() < end) step.values[i][h] = load_exchanged(values + key * stride + h * 64);
      }
    }
    if (block_.layer + 1 < arguments_.layers) prefetch(block_.layer + 1, unit, base, place);
  }
  /// Lane l has key l % 16, and of that the key or the value.
  __device__ __forceinline__ void prefetch(int layer, Unit const& unit, int base, int place) const {
    constexpr int keys = tuning::Stack::step_keys, line = 64;
    int const key = lane_ % keys;
    if (base + key >= unit.limit) return;
    bfloat16 const* const from = block_.vectors()[layer].planes[lane_ / keys] + Index{place + key} * arguments_.plane_stride +
                                 unit.head * HeadDim;
#pragma unroll
    for (int at = 0; at < HeadDim; at += line) asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(from + at)));
  }
  /// Waits for the row's own key, the `key`-th of the step.
  __device__ __forceinline__ void add_own(Step& step, Unit const& unit, int key) const {
    bfloat16 const* const own_key = projected(unit) + shape_.queries + unit.head * HeadDim;
    bfloat16 const* const own_value = own_key + shape_.keys;
    uint4 keys[Step::kChunks], values[Step::kHalves];
    bool absent;
    do {
      absent = false;
#pragma unroll
      for (int c = 0; c < Step::kChunks; ++c) keys[c] = load_exchanged(own_key + t() * 8 + c * 32);
#pragma unroll
      for (int h = 0; h < Step::kHalves; ++h) values[h] = load_exchanged(own_value + g() * 8 + h * 64);
#pragma unroll
      for (int c = 0; c < Step::kChunks; ++c) absent = absent || largest_word(keys[c]) == kAbsent;
#pragma unroll
      for (int h = 0; h < Step::kHalves; ++h) absent = absent || largest_word(values[h]) == kAbsent;
    } while (__any_sync(kAllLanes, absent));
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int c = 0; c < Step::kChunks; ++c) {
        if (8 * n + g() == key) step.keys[n][c] = keys[c];
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int h = 0; h < Step::kHalves; ++h) {
        if (i / 2 * 8 + 2 * t() + i % 2 == key) step.values[i][h] = values[h];
      }
    }
  }

  [[nodiscard]] __device__ __forceinline__ int place_at(Unit const& unit, int base) const {
    if (base < kStride && unit.index < tuning::Stack::kept_units) return block_.firsts()[unit.index * tuning::Stack::warps + warp_];
    return block_.place_of(block_.begins()[unit.row], base);
  }

  /// The warp's share of units [first, end).
  __device__ __forceinline__ void attend(int first, int end) {
    Unit unit = find(first);
    Step step;
    if (first_base() < unit.limit) request(step, unit, first_base());
#pragma unroll 1
    for (int i = first; i < end; ++i) {
      Unit const next = i + 1 < end ? find(i + 1) : unit;
      float top = -std::numeric_limits<float>::infinity(), total = 0.0F;
      float sums[8 * Step::kHalves][4] = {};
      uint4 query[Step::kChunks];
      bool waits = first_base() < unit.limit || warp_ == 0;  // somebody waits also in a row without keys
      int base = first_base();
#pragma unroll 1
      do {
        Step ahead;
        int const further = base + kStride;
        if (further < unit.limit) {
          request(ahead, unit, further);
        } else if (i + 1 < end && first_base() < next.limit) {
          request(ahead, next, first_base());
        }
        if (waits) wait_for_query(unit, query);
        if (waits && unit.own < 0 && warp_ == 0) wait_for_unread_key(unit);
        waits = false;
        if (base < unit.limit) {
          if (static_cast<unsigned>(unit.own - base) < tuning::Stack::step_keys) add_own(step, unit, unit.own - base);
          use(step, base, unit.limit, query, top, total, sums);
        }
        step = ahead;
        base = further;
      } while (base < unit.limit);
      total = __fadd_rn(total, __shfl_xor_sync(kAllLanes, total, 1));
      total = __fadd_rn(total, __shfl_xor_sync(kAllLanes, total, 2));
      give(i - first, top, total, sums);
      unit = next;
    }
  }

  __device__ __forceinline__ void wait_for_query(Unit const& unit, uint4 (&query)[Step::kChunks]) const {
    bool const mine = g() < shape_.group();
    bfloat16 const* const from = projected(unit) + Index{unit.head * shape_.group() + (mine ? g() : 0)} * HeadDim + t() * 8;
    bool absent;
    do {
      absent = false;
#pragma unroll
      for (int c = 0; c < Step::kChunks; ++c) query[c] = load_exchanged(from + c * 32);
#pragma unroll
      for (int c = 0; c < Step::kChunks; ++c) absent = absent || largest_word(query[c]) == kAbsent;
    } while (__any_sync(kAllLanes, absent));
    if (mine) return;
#pragma unroll
    for (int c = 0; c < Step::kChunks; ++c) query[c] = make_uint4(0U, 0U, 0U, 0U);
  }
  /// A key that nobody reads is waited for all the same: its block must not fall behind.
  __device__ __forceinline__ void wait_for_unread_key(Unit const& unit) const {
    bfloat16 const* const own_key = projected(unit) + shape_.queries + unit.head * HeadDim + StackBlock::lane() * (HeadDim / 32);
    while (__any_sync(kAllLanes, max(load_exchanged_pair(own_key), load_exchanged_pair(own_key + shape_.keys)) == kAbsent)) {
    }
  }

  __device__ __forceinline__ void use(Step const& step, int base, int limit, uint4 const (&query)[Step::kChunks], float& top, float& total,
                                      float (&sums)[8 * Step::kHalves][4]) const {
    float scores[2][4] = {};
#pragma unroll
    for (int c = 0; c < Step::kChunks; ++c) {
      std::uint32_t const first[4] = {query[c].x, 0U, query[c].y, 0U}, second[4] = {query[c].z, 0U, query[c].w, 0U};
#pragma unroll
      for (int n = 0; n < 2; ++n) sm80::multiply_add(scores[n], first, step.keys[n][c].x, step.keys[n][c].y);
#pragma unroll
      for (int n = 0; n < 2; ++n) sm80::multiply_add(scores[n], second, step.keys[n][c].z, step.keys[n][c].w);
    }
    float highest = top;
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        bool const seen = base + 8 * n + 2 * t() + e < limit;
        scores[n][e] = seen ? __fmul_rn(scores[n][e], arguments_.scale) : -std::numeric_limits<float>::infinity();
        highest = fmaxf(highest, scores[n][e]);
      }
    }
    highest = fmaxf(highest, __shfl_xor_sync(kAllLanes, highest, 1));
    highest = fmaxf(highest, __shfl_xor_sync(kAllLanes, highest, 2));
    highest = fmaxf(highest, kLowestScore);
    float const factor = exp2_fast(__fsub_rn(top, highest));
    top = highest;
    total = __fmul_rn(total, factor);
#pragma unroll
    for (auto& sum : sums) sum[0] = __fmul_rn(sum[0], factor), sum[1] = __fmul_rn(sum[1], factor);
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        scores[n][e] = exp2_fast(__fsub_rn(scores[n][e], highest));
        total = __fadd_rn(total, scores[n][e]);
      }
    }
    std::uint32_t const weights[4] = {pack_bfloat16(scores[0][0], scores[0][1]), 0U, pack_bfloat16(scores[1][0], scores[1][1]), 0U};
#pragma unroll
    for (int h = 0; h < Step::kHalves; ++h) {
      std::uint32_t const words[4][4] = {{step.values[0][h].x, step.values[0][h].y, step.values[0][h].z, step.values[0][h].w},
                                         {step.values[1][h].x, step.values[1][h].y, step.values[1][h].z, step.values[1][h].w},
                                         {step.values[2][h].x, step.values[2][h].y, step.values[2][h].z, step.values[2][h].w},
                                         {step.values[3][h].x, step.values[3][h].y, step.values[3][h].z, step.values[3][h].w}};
#pragma unroll
      for (int d = 0; d < 8; ++d) {
        unsigned const halves = d % 2 == 0 ? 0x5410U : 0x7632U;
        sm80::multiply_add(sums[8 * h + d], weights, __byte_perm(words[0][d / 2], words[1][d / 2], halves),
                           __byte_perm(words[2][d / 2], words[3][d / 2], halves));
      }
    }
  }

  /// For each unit that is joined with others, [warps, heads, HeadDim] sums, then [warps, heads] maxima and totals.
  [[nodiscard]] __device__ __forceinline__ float* sums_of(int place, int warp, int head) const {
    return reinterpret_cast<float*>(block_.sums_room() + place * block_.plan.unit_bytes) + (warp * shape_.group() + head) * HeadDim;
  }
  [[nodiscard]] __device__ __forceinline__ float2* state_of(int place, int warp, int head) const {
    return reinterpret_cast<float2*>(sums_of(place, tuning::Stack::warps, 0)) + warp * shape_.group() + head;
  }
  __device__ __forceinline__ void give(int place, float top, float total, float const (&sums)[8 * Step::kHalves][4]) const {
    if (g() >= shape_.group()) return;
    if (t() == 0) *state_of(place, warp_, g()) = make_float2(top, total);
#pragma unroll
    for (int h = 0; h < Step::kHalves; ++h) {
      auto* const to = reinterpret_cast<float4*>(sums_of(place, warp_, g()) + h * 64 + t() * 16);
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        int const d = 8 * h + q % 2 * 4, e = q / 2;
        to[q] = make_float4(sums[d][e], sums[d + 1][e], sums[d + 2][e], sums[d + 3][e]);
      }
    }
  }

  /// Joins the warps' shares of units [first, end).
  __device__ __forceinline__ void finish(int first, int end) const {
    constexpr int pairs = HeadDim / 2;
    int const heads = shape_.group(), items = (end - first) * heads * pairs;
#pragma unroll 1
    for (int item = static_cast<int>(threadIdx.x); item < items; item += StackBlock::kThreads) {
      int place = 0, head = item / pairs;
      for (; head >= heads; head -= heads) ++place;
      int const column = item % pairs * 2;
      float2 state[tuning::Stack::warps];
      float highest = kLowestScore;
#pragma unroll
      for (int w = 0; w < tuning::Stack::warps; ++w) {
        state[w] = *state_of(place, w, head);
        highest = fmaxf(highest, state[w].x);
      }
      float total = 0.0F;
      float2 sum = make_float2(0.0F, 0.0F);
#pragma unroll
      for (int w = 0; w < tuning::Stack::warps; ++w) {
        float const weight = exp2_fast(__fsub_rn(state[w].x, highest));  // 0 where the warp had no keys
        float2 const part = *reinterpret_cast<float2 const*>(sums_of(place, w, head) + column);
        total = __fmaf_rn(state[w].y, weight, total);
        sum.x = __fmaf_rn(part.x, weight, sum.x);
        sum.y = __fmaf_rn(part.y, weight, sum.y);
      }
      float const mean = total > 0.0F ? __fdividef(1.0F, total) : 0.0F;
      Unit const unit = find(first + place);
      int const at = block_.plan.offsets[Buffers::Attended] + unit.row * shape_.queries + (unit.head * heads + head) * HeadDim + column;
      store_exchanged(block_.exchange.at(block_.slot + at),
                      pack_bfloat16(__fmul_rn(sum.x, mean), __fmul_rn(sum.y, mean)));
      store_exchanged(block_.exchange.at(block_.last_slot + at), kAbsent);
    }
  }

  StackBlock& block_;
  StackArguments const& arguments_;
  tuning::StackShape const& shape_;
  int const warp_, lane_;  ///< what follows from them does not wait in registers from layer to layer
};

}  // namespace mor::cuda
