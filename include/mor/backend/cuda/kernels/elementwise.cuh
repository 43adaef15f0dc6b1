// SPDX-License-Identifier: Apache-2.0
/// @file
/// Maps over matrices in packs of 16 bytes: the one kernel that all element-wise verbs and row moves are made of, and
/// the operations copy, fill and add, each with optional lists of rows to read from or write to.
#pragma once

#include "mor/backend/cuda/kernels/listed_row.cuh"
#include "mor/backend/cuda/kernels/pack.cuh"
#include "mor/backend/cuda/tuning/pointwise.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <cstdint>
#include <type_traits>

namespace mor::cuda {

/// N elements as they are stored: moves keep every bit, and values that wait in registers take half the room.
template <class T, int N>
struct RawPack {
  static_assert(N == 1 || N * sizeof(T) == 16 || N * sizeof(T) == 32);
  struct alignas(16) Wide {
    uint4 words[N * sizeof(T) < 16 ? 1 : N * sizeof(T) / 16];
  };
  using Storage = std::conditional_t<N == 1, T, Wide>;
  Storage storage;
};

/// 16 bytes that the kernel reads once. Volatile: the same address may be written later by the same thread.
template <tuning::Reading How>
__device__ __forceinline__ uint4 load_words(uint4 const* from) {
  uint4 words;
  if constexpr (How == tuning::Reading::Cached) {
    words = *from;
  } else {
    asm volatile("ld.global.cs.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
                 : "l"(__cvta_generic_to_global(from)));
  }
  return words;
}

template <int N, tuning::Reading How = tuning::Reading::Cached, class T>
__device__ __forceinline__ RawPack<T, N> load_raw(T const* from) {
  RawPack<T, N> pack;
  if constexpr (N == 1) {
    pack.storage = *from;
  } else {
#pragma unroll
    for (int i = 0; i < static_cast<int>(N * sizeof(T) / 16); ++i) {
      pack.storage.words[i] = load_words<How>(reinterpret_cast<uint4 const*>(from) + i);
    }
  }
  return pack;
}

/// Of data that the kernel reads once.
template <int N, class T>
__device__ __forceinline__ RawPack<T, N> load_once(T const* from) {
  return load_raw<N, tuning::kReading>(from);
}

template <int N, class T>
__device__ __forceinline__ void store_raw(T* to, RawPack<T, N> const& pack) {
  if constexpr (N == 1) {
    *to = pack.storage;
  } else {
#pragma unroll
    for (int i = 0; i < static_cast<int>(N * sizeof(T) / 16); ++i) {
      reinterpret_cast<uint4*>(to)[i] = pack.storage.words[i];
    }
  }
}

/// The elements as floats.
template <class T, int N>
__device__ __forceinline__ Lanes<T, N> widen(RawPack<T, N> const& pack) {
  Lanes<T, N> lanes;
  if constexpr (N == 1) {
    lanes.value[0] = static_cast<float>(pack.storage);
  } else {
#pragma unroll
    for (int i = 0; i < static_cast<int>(N * sizeof(T) / 16); ++i) {
      unsigned const words[4] = {pack.storage.words[i].x, pack.storage.words[i].y, pack.storage.words[i].z,
                                 pack.storage.words[i].w};
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        if constexpr (sizeof(T) == 4) {
          lanes.value[4 * i + w] = __uint_as_float(words[w]);
        } else {
          lanes.value[8 * i + 2 * w] = __uint_as_float(words[w] << 16);
          lanes.value[8 * i + 2 * w + 1] = __uint_as_float(words[w] & 0xffff0000U);
        }
      }
    }
  }
  return lanes;
}

/// Makes the compiler forget what it knows about the pack, so that it keeps the pack in registers and not, at twice the
/// size, the floats it has widened it to before.
template <class T, int N>
__device__ __forceinline__ void keep_packed(RawPack<T, N>& pack) {
  if constexpr (N > 1) {
#pragma unroll
    for (uint4& word : pack.storage.words) {
      asm volatile("" : "+r"(word.x), "+r"(word.y), "+r"(word.z), "+r"(word.w));
    }
  }
}

/// Quotients of numbers below 2^31 by one divisor in a multiplication, an addition and a shift (Granlund and
/// Montgomery, "Division by invariant integers using multiplication", 1994, figure 4.1).
class Divider {
 public:
  explicit Divider(Index divisor) {
    while ((Index{1} << shift_) < divisor) ++shift_;
    multiplier_ = static_cast<unsigned>(((Index{1} << shift_) - divisor) * (Index{1} << 32) / divisor + 1);
  }
  __device__ __forceinline__ unsigned operator()(unsigned number) const {
    return (__umulhi(number, multiplier_) + number) >> shift_;
  }

 private:
  unsigned multiplier_ = 0, shift_ = 0;
};

/// A matrix cut into packs, row by row. A single row may be as long as it likes and have a rest behind its last pack;
/// with more rows, each is a whole number of packs below 2^30.
struct PackGrid {
  Index packs;
  bool single_row;
  unsigned packs_of_row;
  unsigned rest;  ///< elements behind the last pack
  Divider by_row;

  PackGrid(Index rows, Index cols, int width)
      : packs(rows * (cols / width)),
        single_row(rows == 1),
        packs_of_row(rows == 1 ? 1U << 30 : static_cast<unsigned>(cols / width)),
        rest(rows == 1 ? static_cast<unsigned>(cols % width) : 0U),
        by_row(packs_of_row) {}

  void note_to(auto& log) const { log.note(packs, single_row, packs_of_row, rest); }
};

/// The packs of one block: finds all places (which may read lists of rows), then loads all packs, then stores them, so
/// that every kind of access has several in flight. `Whole`: no thread has fewer packs than the others.
template <int Width, bool Whole, class Operation>
__device__ __forceinline__ void map_block(Operation const& operation, PackGrid const& grid, Index first_row,
                                          Index first_pack, unsigned offset, unsigned count) {
  constexpr int loads = Operation::kLoads;
  typename Operation::Place places[loads];
  typename Operation::template Registers<Width> registers[loads];
#pragma unroll
  for (int i = 0; i < loads; ++i) {
    unsigned const local = threadIdx.x + i * tuning::kMapThreads;
    if (!Whole && local >= count) continue;
    unsigned const row = grid.by_row(offset + local);
    Index const pack = first_pack + (offset + local - row * grid.packs_of_row);
    places[i] = operation.find(first_row + row, pack * Width);
  }
#pragma unroll
  for (int i = 0; i < loads; ++i) {
    if (Whole || threadIdx.x + i * tuning::kMapThreads < count) {
      registers[i] = operation.template load<Width>(places[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < loads; ++i) {
    if (Whole || threadIdx.x + i * tuning::kMapThreads < count) {
      operation.template store<Width>(places[i], registers[i]);
    }
  }
}

/// A map: every pack of the grid is found, loaded and stored by the functions of `operation`. Packs of different
/// threads must not overlap, so a map may work in place.
template <int Width, class Operation>
__global__ void __launch_bounds__(tuning::kMapThreads) map_kernel(Operation operation, PackGrid grid) {
  constexpr unsigned block_packs = tuning::kMapThreads * Operation::kLoads;
  Index const start = Index{blockIdx.x} * block_packs, left = grid.packs - start;
  Index first_row = 0;  // the row of the block's first pack
  if (!grid.single_row) {
    first_row = start < (Index{1} << 31) ? Index{grid.by_row(static_cast<unsigned>(start))} : start / grid.packs_of_row;
  }
  Index const first_pack = grid.single_row ? start : 0;
  unsigned const offset = grid.single_row ? 0U : static_cast<unsigned>(start - first_row * grid.packs_of_row);
  if (left >= block_packs) {
    map_block<Width, true>(operation, grid, first_row, first_pack, offset, block_packs);
  } else {
    map_block<Width, false>(operation, grid, first_row, first_pack, offset, static_cast<unsigned>(left));
  }
  if (blockIdx.x == gridDim.x - 1 && threadIdx.x < grid.rest) {
    auto const place = operation.find(0, grid.packs * Width + threadIdx.x);
    operation.template store<1>(place, operation.template load<1>(place));
  }
}

/// The i-th factor; no list means all ones.
__device__ __forceinline__ float listed_factor(float const* list, Index i) {
  return list == nullptr ? 1.0F : list[i];
}

/// out[to[i]] = x[from[i]], bit by bit.
template <class T>
struct MoveOperation {
  static constexpr int kLoads = 4;
  struct Place {
    T const* from;
    T* to;
  };
  template <int N>
  struct Registers {
    RawPack<T, N> value;
  };
  View<T const> x;
  Row const* from;
  View<T> out;
  Row const* to;

  void note_to(auto& log) const { log.note(x, from, out, to); }

  __device__ __forceinline__ Place find(Index i, Index col) const {
    return {x.row(listed_row(from, i)) + col, out.row(listed_row(to, i)) + col};
  }
  template <int N>
  __device__ __forceinline__ Registers<N> load(Place const& at) const {
    return {load_once<N>(at.from)};
  }
  template <int N>
  __device__ __forceinline__ void store(Place const& at, Registers<N> const& now) const {
    store_raw<N>(at.to, now.value);
  }
};

/// out[to[i]] = value.
template <class T>
struct FillOperation {
  static constexpr int kLoads = 4;
  struct Place {
    T* to;
  };
  template <int N>
  struct Registers {};
  T value;
  View<T> out;
  Row const* to;

  void note_to(auto& log) const { log.note(value, out, to); }

  __device__ __forceinline__ Place find(Index i, Index col) const { return {out.row(listed_row(to, i)) + col}; }
  template <int N>
  __device__ __forceinline__ Registers<N> load(Place const&) const {
    return {};
  }
  template <int N>
  __device__ __forceinline__ void store(Place const& at, Registers<N> const&) const {
    if constexpr (N == 1) {
      *at.to = value;
    } else {
      unsigned word = 0;
      if constexpr (sizeof(T) == 2) {
        word = value.bits | static_cast<unsigned>(value.bits) << 16;
      } else {
        word = __builtin_bit_cast(unsigned, value);
      }
      *reinterpret_cast<uint4*>(at.to) = make_uint4(word, word, word, word);
    }
  }
};

/// out[to[i]] += scale[i] * x[from[i]], rounded once.
template <class T>
struct AddOperation {
  static constexpr int kLoads = 2;
  struct Place {
    T const* from;
    T* to;
    float factor;
  };
  template <int N>
  struct Registers {
    RawPack<T, N> value, sum;
  };
  View<T const> x;
  Row const* from;
  float const* scale;
  View<T> out;
  Row const* to;

  void note_to(auto& log) const { log.note(x, from, scale, out, to); }

  __device__ __forceinline__ Place find(Index i, Index col) const {
    return {x.row(listed_row(from, i)) + col, out.row(listed_row(to, i)) + col, listed_factor(scale, i)};
  }
  template <int N>
  __device__ __forceinline__ Registers<N> load(Place const& at) const {
    return {load_once<N>(at.from), load_once<N>(static_cast<T const*>(at.to))};
  }
  template <int N>
  __device__ __forceinline__ void store(Place const& at, Registers<N> const& now) const {
    auto const value = widen(now.value);
    auto sum = widen(now.sum);
#pragma unroll
    for (int e = 0; e < N; ++e) sum.value[e] = fmaf(at.factor, value.value[e], sum.value[e]);
    store_lanes(at.to, sum.value);
  }
};

/// out = x in another type of storage.
template <class From, class To>
struct CastOperation {
  static constexpr int kLoads = 2;
  struct Place {
    From const* from;
    To* to;
  };
  template <int N>
  struct Registers {
    RawPack<From, N> value;
  };
  View<From const> x;
  View<To> out;

  void note_to(auto& log) const { log.note(x, out); }

  __device__ __forceinline__ Place find(Index i, Index col) const { return {x.row(i) + col, out.row(i) + col}; }
  template <int N>
  __device__ __forceinline__ Registers<N> load(Place const& at) const {
    return {load_once<N>(at.from)};
  }
  template <int N>
  __device__ __forceinline__ void store(Place const& at, Registers<N> const& now) const {
    store_lanes(at.to, widen(now.value).value);
  }
};

}  // namespace mor::cuda
