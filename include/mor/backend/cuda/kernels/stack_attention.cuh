// SPDX-License-Identifier: Apache-2.0
/// @file
/// The attention of a layer in a stack. A unit is one row and one key/value head with the query heads that share it; the
/// warps of a block take 16 keys each in turn, straight from memory to registers, and their results are joined in shared
/// memory in the order of the warps. A warp asks for its next keys, of this unit or the next, before it uses those that it
/// has, and has the same keys of the next layer brought to the second-level cache.
///
/// Scores are [heads, keys] and results [dimensions, heads], so that weights are already the right side of the second product.
/// Of 64 dimensions lane t takes dimensions 8t to 8t + 7 and 32 + 8t to 39 + 8t of queries and keys; of values, lane g takes
/// dimensions 8g to 8g + 7, and rows g and g + 8 of the d-th product are dimensions 8g + 2d and 8g + 2d + 1. Products and sums
/// are spelled out, here and in stack_product.cuh, so that every instance of the kernel has the same bits.
#pragma once

#include "mor/backend/cuda/kernels/attention_arguments.cuh"
#include "mor/backend/cuda/kernels/attention_tile.cuh"
#include "mor/backend/cuda/kernels/computed_here.cuh"
#include "mor/backend/cuda/kernels/few_rows_weights.cuh"
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
  uint4 keys[2][kChunks];    ///< of `key_of`
  uint4 values[4][kHalves];  ///< of `value_of`

  /// The key of the step that keys[n] are of.
  [[nodiscard]] static __device__ __forceinline__ int key_of(int n, int lane) { return 8 * n + lane / 4; }
  /// The key of the step that values[i] are of.
  [[nodiscard]] static __device__ __forceinline__ int value_of(int i, int lane) { return i / 2 * 8 + i % 2 + 2 * (lane % 4); }
};

/// The queries of a unit: lane g has some of head g.
template <int HeadDim>
struct StackQuery {
  uint4 words[StackStep<HeadDim>::kChunks];
};

template <int HeadDim>
class StackAttention {
  using Step = StackStep<HeadDim>;
  using Query = StackQuery<HeadDim>;
  using Buffers = tuning::StackBuffers;
  static constexpr int kStride = tuning::Stack::warps * tuning::Stack::step_keys;

 public:
  __device__ __forceinline__ explicit StackAttention(StackBlock& block)
      : block_(block), arguments_(block.arguments), shape_(block.plan.shape),
        warp_(computed_here(StackBlock::warp())), lane_(computed_here(StackBlock::lane())), policy_(cache_policy(true)) {}

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
  /// What the row's projection gave, from a column on that is a multiple of 32.
  [[nodiscard]] __device__ __forceinline__ bfloat16 const* projected(Unit const& unit, int column) const {
    return buffer(block_.slot, Buffers::Projected).at(unit.row, column);
  }
  [[nodiscard]] __device__ __forceinline__ ExchangedRows buffer(int slot, Buffers::Buffer which) const {
    return block_.exchange.buffer(slot, block_.plan.offsets[which], block_.plan.widths[which]);
  }
  [[nodiscard]] __device__ __forceinline__ int first_base() const { return warp_ * tuning::Stack::step_keys; }

  /// Keys that the row does not see become zeros. Its own comes from the projection, where it may still be missing.
  __device__ __forceinline__ void request(Step& step, Unit const& unit, int base) const {
    int const place = base < unit.limit ? place_at(unit, base) : 0, stride = arguments_.plane_stride;
    int const end = (unit.own >= 0 ? unit.own : unit.limit) - base;
    auto const& planes = block_.vectors()[block_.layer].planes;
    Index const first = Index{place} * stride + unit.head * HeadDim;
    bfloat16 const* const keys = planes[0] + first + g() * stride + t() * 8;
    bfloat16 const* const values = planes[1] + first + 2 * t() * stride + g() * 8;
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int c = 0; c < Step::kChunks; ++c) {
        step.keys[n][c] = make_uint4(0U, 0U, 0U, 0U);
        if (Step::key_of(n, lane_) < end) step.keys[n][c] = load_for_last_time(keys + 8 * n * stride + c * 32, policy_);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      int const key = i / 2 * 8 + i % 2;
#pragma unroll
      for (int h = 0; h < Step::kHalves; ++h) {
        step.values[i][h] = make_uint4(0U, 0U, 0U, 0U);
        if (Step::value_of(i, lane_) < end) step.values[i][h] = load_for_last_time(values + key * stride + h * 64, policy_);
      }
    }
    if (has_own(unit, base)) request_own(step, unit, unit.own - base);
    if (block_.layer + 1 < arguments_.layers) {
      block_.template prefetch_keys<HeadDim>(block_.vectors()[block_.layer + 1], unit.head, base, unit.limit, place);
    }
  }
  [[nodiscard]] static __device__ __forceinline__ bool has_own(Unit const& unit, int base) {
    return static_cast<unsigned>(unit.own - base) < tuning::Stack::step_keys;
  }
  /// Starts reading the row's own key, the `key`-th of the step.
  __device__ __forceinline__ void request_own(Step& step, Unit const& unit, int key) const {
    bfloat16 const* const own_key = projected(unit, shape_.queries + unit.head * HeadDim) + t() * 8;
    bfloat16 const* const own_value =
        projected(unit, shape_.queries + shape_.keys + unit.head * HeadDim) + ExchangedRows::column(g() * 8);
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int c = 0; c < Step::kChunks; ++c) {
        if (Step::key_of(n, lane_) == key) step.keys[n][c] = load_exchanged(own_key + ExchangedRows::column(c * 32));
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int h = 0; h < Step::kHalves; ++h) {
        if (Step::value_of(i, lane_) == key) step.values[i][h] = load_exchanged(own_value + ExchangedRows::column(h * 64));
      }
    }
  }
  /// Whether that key is not there yet.
  [[nodiscard]] __device__ __forceinline__ bool absent_own(Step const& step, int key) const {
    bool absent = false;
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int c = 0; c < Step::kChunks; ++c) {
        absent = absent || (Step::key_of(n, lane_) == key && largest_word(step.keys[n][c]) == kAbsent);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int h = 0; h < Step::kHalves; ++h) {
        absent = absent || (Step::value_of(i, lane_) == key && largest_word(step.values[i][h]) == kAbsent);
      }
    }
    return absent;
  }
  [[nodiscard]] __device__ __forceinline__ int place_at(Unit const& unit, int base) const {
    if (base < kStride && unit.index < tuning::Stack::kept_units) return block_.firsts()[unit.index * tuning::Stack::warps + warp_];
    return block_.place_of(block_.begins()[unit.row], base);
  }

  /// The warp's share of units [first, end). Nothing stays undefined on any way through the loop: a register that does is
  /// taken from the kernel's begin to its end.
  __device__ __forceinline__ void attend(int first, int end) {
    Unit unit = find(first);
    int base = first_base();
    Step step;
    Query query;
    request(step, unit, base);
    request(query, unit);
    float top = -std::numeric_limits<float>::infinity(), total = 0.0F;
    float sums[4 * Step::kHalves][4] = {};
    bool waits = waits_for(unit);
    Step other{};
    Query other_query{};
    // By turns: what is on its way is not copied, which would wait for it.
    auto const take = [&](Step& now, Query& now_query, Step& ahead, Query& next_query) {
      bool const ends = base + kStride >= unit.limit, more = unit.index + 1 < end;
      Unit next = unit;
      int next_base = base + kStride;
      if (ends && more) {
        next = find(unit.index + 1);
        next_base = first_base();
        request(next_query, next);
      }
      if (!ends || more) request(ahead, next, next_base);
      if (waits || has_own(unit, base)) wait_for(now_query, now, unit, base);
      if (base < unit.limit) use(now, base, unit.limit, now_query.words, top, total, sums);
      waits = false;
      if (ends) {
        total = __fadd_rn(total, __shfl_xor_sync(kAllLanes, total, 1));
        total = __fadd_rn(total, __shfl_xor_sync(kAllLanes, total, 2));
        give(unit.index - first, top, total, sums);
        if (!more) return false;
        top = -std::numeric_limits<float>::infinity();
        total = 0.0F;
#pragma unroll
        for (auto& sum : sums) sum[0] = sum[1] = sum[2] = sum[3] = 0.0F;
        waits = waits_for(next);
      } else {
        next_query = now_query;
      }
      unit = next;
      base = next_base;
      return true;
    };
#pragma unroll 1
    while (take(step, query, other, other_query) && take(other, other_query, step, query)) {
    }
  }

  /// Whether the warp waits for a row's queries: somebody does also for a row without keys.
  [[nodiscard]] __device__ __forceinline__ bool waits_for(Unit const& unit) const { return first_base() < unit.limit || warp_ == 0; }
  /// Starts reading them.
  __device__ __forceinline__ void request(Query& query, Unit const& unit) const {
    int const head = min(g(), shape_.group() - 1);
    bfloat16 const* const from = projected(unit, (unit.head * shape_.group() + head) * HeadDim) + t() * 8;
#pragma unroll
    for (int c = 0; c < Step::kChunks; ++c) query.words[c] = load_exchanged(from + ExchangedRows::column(c * 32));
  }
  [[nodiscard]] static __device__ __forceinline__ bool absent(Query const& query) {
    std::uint32_t most = 0;
#pragma unroll
    for (int c = 0; c < Step::kChunks; ++c) most = max(most, largest_word(query.words[c]));
    return most == kAbsent;
  }
  /// Waits for the queries of a unit, and for the row's own key in the step that has it.
  __device__ __forceinline__ void wait_for(Query& query, Step& step, Unit const& unit, int base) const {
    bool const own = has_own(unit, base);
    while (__any_sync(kAllLanes, absent(query) || (own && absent_own(step, unit.own - base)))) {
      request(query, unit);
      if (own) request_own(step, unit, unit.own - base);
    }
    if (unit.own < 0 && warp_ == 0) wait_for_unread_key(unit);
  }
  /// A key that nobody reads is waited for all the same: its block must not fall behind.
  __device__ __forceinline__ void wait_for_unread_key(Unit const& unit) const {
    int const column = ExchangedRows::column(StackBlock::lane() * (HeadDim / 32));
    bfloat16 const* const own_key = projected(unit, shape_.queries + unit.head * HeadDim) + column;
    bfloat16 const* const own_value = projected(unit, shape_.queries + shape_.keys + unit.head * HeadDim) + column;
    while (__any_sync(kAllLanes, max(load_exchanged_pair(own_key), load_exchanged_pair(own_value)) == kAbsent)) {
    }
  }

  __device__ __forceinline__ void use(Step const& step, int base, int limit, uint4 const (&query)[Step::kChunks], float& top, float& total,
                                      float (&sums)[4 * Step::kHalves][4]) const {
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
    float const factors[2] = {__shfl_sync(kAllLanes, factor, 8 * t()), __shfl_sync(kAllLanes, factor, 8 * t() + 4)};
#pragma unroll
    for (auto& sum : sums) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sum[e] = __fmul_rn(sum[e], factors[e % 2]);
    }
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        scores[n][e] = exp2_fast(__fsub_rn(scores[n][e], highest));
        total = __fadd_rn(total, scores[n][e]);
      }
    }
    std::uint32_t const near = pack_bfloat16(scores[0][0], scores[0][1]), far = pack_bfloat16(scores[1][0], scores[1][1]);
#pragma unroll
    for (int h = 0; h < Step::kHalves; ++h) {
      std::uint32_t const words[4][4] = {{step.values[0][h].x, step.values[0][h].y, step.values[0][h].z, step.values[0][h].w},
                                         {step.values[1][h].x, step.values[1][h].y, step.values[1][h].z, step.values[1][h].w},
                                         {step.values[2][h].x, step.values[2][h].y, step.values[2][h].z, step.values[2][h].w},
                                         {step.values[3][h].x, step.values[3][h].y, step.values[3][h].z, step.values[3][h].w}};
      constexpr unsigned low = 0x5410U, high = 0x7632U;
#pragma unroll
      for (int d = 0; d < 4; ++d) {
        std::uint32_t const columns[4] = {__byte_perm(words[0][d], words[1][d], low), __byte_perm(words[0][d], words[1][d], high),
                                          __byte_perm(words[2][d], words[3][d], low), __byte_perm(words[2][d], words[3][d], high)};
        sm80::multiply_add(sums[4 * h + d], columns, near, far);
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
  __device__ __forceinline__ void give(int place, float top, float total, float const (&sums)[4 * Step::kHalves][4]) const {
    if (t() == 0 && g() < shape_.group()) *state_of(place, warp_, g()) = make_float2(top, total);
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      int const head = 2 * t() + e;
      if (head >= shape_.group()) break;
#pragma unroll
      for (int h = 0; h < Step::kHalves; ++h) {
        auto* const to = reinterpret_cast<float4*>(sums_of(place, warp_, head) + h * 64 + g() * 8);
        to[0] = make_float4(sums[4 * h][e], sums[4 * h][2 + e], sums[4 * h + 1][e], sums[4 * h + 1][2 + e]);
        to[1] = make_float4(sums[4 * h + 2][e], sums[4 * h + 2][2 + e], sums[4 * h + 3][e], sums[4 * h + 3][2 + e]);
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
      int const to = (unit.head * heads + head) * HeadDim + column;
      std::uint32_t const pair = pack_bfloat16(__fmul_rn(sum.x, mean), __fmul_rn(sum.y, mean));
      store_exchanged(buffer(block_.slot, Buffers::Attended).at(unit.row, to), pair);
      store_exchanged(buffer(block_.last_slot, Buffers::Attended).at(unit.row, to), kAbsent);
    }
  }

  StackBlock& block_;
  StackArguments const& arguments_;
  tuning::StackShape const& shape_;
  int const warp_, lane_;  ///< what follows from them does not wait in registers from layer to layer
  std::uint64_t const policy_;  ///< keys are not read again before the next tick: they make room first
};

}  // namespace mor::cuda
