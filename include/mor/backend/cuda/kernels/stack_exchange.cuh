// SPDX-License-Identifier: Apache-2.0
/// @file
/// How the blocks of one launch hand results to one another through device memory, without barriers: a word that has not
/// been written yet holds a pair of bf16 that no rounding makes (a NaN is rounded to 0x7fff), and who needs it reads until
/// it holds something else. So a result takes one store and one load to arrive, and each word vouches for itself.
///
/// Layers take three slots in turn. The thread that writes a word of a layer also takes back the one that it wrote at the same
/// place a layer before: all readers have read that by then, since the new word depends on what they made of it (so
/// everybody, also a row without keys, waits for all that a step depends on). Its place is written again two layers later; a
/// fence for all threads of the block between each two layers lies between, and orders what it took back before what it
/// writes next, and what it has read before what it reads next: nobody finds an old word. The first layer's input is written
/// by whoever (`StackInput`), and taken back by who writes the second layer's. There are two halves; a launch
/// uses one, and in its last layer clears the other for the next launch.
///
/// One link is the hardware's and not the memory model's: a block reads the inputs of consecutive layers while the fence of
/// their layer is still under way, so between the read that shows that an older input was taken back and the read, in the next
/// layer, that must not find that one, no fence is sure to lie. It holds because these loads are answered by the second-level
/// cache, where the device's words are, and the second is issued only when the first has been looked at.
#pragma once

#include "mor/backend/cuda/tuning/stack.hpp"
#include "mor/core/dtype.hpp"
#include "mor/core/types.hpp"

#include <cstdint>

namespace mor::cuda {

/// Orders what this thread has read and written before what it reads and writes next, as the whole device sees it.
__device__ __forceinline__ void fence_device() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }

/// Two bf16 that are not there yet.
inline constexpr std::uint32_t kAbsent = 0xffffffffU;

/// Eight elements that other blocks may be writing.
[[nodiscard]] __device__ __forceinline__ uint4 load_exchanged(bfloat16 const* from) {
  uint4 value;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(__cvta_generic_to_global(from))
               : "memory");
  return value;
}
/// The same of what is not read again soon: by a policy (`cache_policy`) that lets it leave the second-level cache first, what every
/// tick needs stays there, exchanged rows, lists and the kernels' code.
[[nodiscard]] __device__ __forceinline__ uint4 load_for_last_time(bfloat16 const* from, std::uint64_t policy) {
  uint4 value;
  asm volatile("ld.relaxed.gpu.global.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(__cvta_generic_to_global(from)), "l"(policy)
               : "memory");
  return value;
}
/// Two elements that other blocks may be writing.
[[nodiscard]] __device__ __forceinline__ std::uint32_t load_exchanged_pair(bfloat16 const* from) {
  std::uint32_t value;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(__cvta_generic_to_global(from)) : "memory");
  return value;
}
__device__ __forceinline__ void store_exchanged(bfloat16* to, std::uint32_t pair) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(__cvta_generic_to_global(to)), "r"(pair) : "memory");
}
/// Eight elements from elsewhere: a pair that would count as absent becomes the NaN that rounding makes.
__device__ __forceinline__ void store_exchanged(bfloat16* to, uint4 pairs) {
  auto const there = [](std::uint32_t pair) { return pair == kAbsent ? 0x7fff7fffU : pair; };
  asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(there(pairs.x)),
               "r"(there(pairs.y)), "r"(there(pairs.z)), "r"(there(pairs.w))
               : "memory");
}
/// The largest word; `kAbsent` where any of them is.
[[nodiscard]] __device__ __forceinline__ std::uint32_t largest_word(uint4 const& words) {
  return max(max(words.x, words.y), max(words.z, words.w));
}

/// A buffer of rows that blocks exchange. Rows lie in pairs, 64 bytes of one beside 64 of the other: lanes that read at once
/// look at two rows, and so at whole lines, which come faster than halves of twice as many.
struct ExchangedRows {
  bfloat16* data;
  int width;  ///< elements of a row

  /// The row's element of column 0; `column` elements further lies another one.
  [[nodiscard]] __device__ __forceinline__ bfloat16* row(int row) const {
    return data + (row & ~1) * width + (row & 1) * tuning::Stack::chunk;
  }
  [[nodiscard]] static __device__ __forceinline__ int column(int column) { return column + (column & ~(tuning::Stack::chunk - 1)); }
  [[nodiscard]] __device__ __forceinline__ bfloat16* at(int row, int column) const { return this->row(row) + this->column(column); }
};

/// The half that a launch uses.
class StackExchange {
 public:
  __device__ __forceinline__ StackExchange(tuning::StackPlan const& plan, bfloat16* memory, int half)
      : plan_(plan), half_(memory + half * plan.half_elements()) {}

  /// The buffer that begins at element `element` of a slot.
  [[nodiscard]] __device__ __forceinline__ ExchangedRows buffer(int slot, int element, int width) const {
    return {half_ + slot + element, width};
  }
  /// Parts of a layer's keys that have been written, counted from -1.
  [[nodiscard]] __device__ __forceinline__ Row* count(int layer) const {
    return reinterpret_cast<Row*>(half_ + tuning::Stack::slots * plan_.slot_elements) + layer;
  }

  /// Makes everything absent that a launch of `rows` rows left; thread `thread` of `threads` in all.
  __device__ __forceinline__ void clear(int rows, unsigned thread, unsigned threads) const {
    constexpr int pack = 8;
#pragma unroll 1
    for (int i = 0; i < tuning::Stack::slots * tuning::StackBuffers::Buffers; ++i) {
      int const slot = i / tuning::StackBuffers::Buffers, buffer = i % tuning::StackBuffers::Buffers;
      auto* const to = reinterpret_cast<uint4*>(half_ + slot * plan_.slot_elements + plan_.offsets[static_cast<std::size_t>(buffer)]);
      auto const packs = static_cast<unsigned>((rows + rows % 2) * plan_.widths[static_cast<std::size_t>(buffer)] / pack);
#pragma unroll 1
      for (unsigned p = thread; p < packs; p += threads) to[p] = make_uint4(kAbsent, kAbsent, kAbsent, kAbsent);
    }
    if (thread < tuning::Stack::most_layers) *count(static_cast<int>(thread)) = -1;
  }

 private:
  tuning::StackPlan const& plan_;
  bfloat16* half_;
};

}  // namespace mor::cuda
