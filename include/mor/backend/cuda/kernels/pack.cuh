// SPDX-License-Identifier: Apache-2.0
/// @file
/// Elements in registers: 16-byte loads and stores of bf16 and float, widened to float for arithmetic.
#pragma once

#include "mor/core/dtype.hpp"
#include "mor/core/types.hpp"

#include <cuda_bf16.h>

#include <cstdint>

namespace mor::cuda {

/// Elements of T in the widest access that a thread makes.
template <class T>
inline constexpr int kPackSize = 16 / static_cast<int>(sizeof(T));

/// Rounds to nearest even in one instruction; the same result as `bfloat16(float)`.
__device__ __forceinline__ bfloat16 to_bfloat16(float value) {
  return bfloat16::from_bits(__bfloat16_as_ushort(__float2bfloat16_rn(value)));
}

/// A float as an element of storage.
template <class T>
__device__ __forceinline__ T narrow(float value);
template <>
__device__ __forceinline__ float narrow<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ bfloat16 narrow<bfloat16>(float value) {
  return to_bfloat16(value);
}

/// Two floats as the two halves of a word, the first in the low half.
__device__ __forceinline__ std::uint32_t pack_bfloat16(float low, float high) {
  __nv_bfloat162 const pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<std::uint32_t const*>(&pair);
}

/// N floats read from N consecutive elements; N * sizeof(T) is 16, 8, 4 or 2 bytes and the address is a multiple of it.
template <class T, int N>
struct Lanes {
  float value[N];
};

template <int N>
__device__ __forceinline__ Lanes<bfloat16, N> load_lanes(bfloat16 const* from) {
  Lanes<bfloat16, N> lanes;
  if constexpr (N == 1) {
    lanes.value[0] = static_cast<float>(*from);
  } else {
    std::uint32_t words[N / 2];
    if constexpr (N == 8) {
      uint4 const raw = *reinterpret_cast<uint4 const*>(from);
      words[0] = raw.x, words[1] = raw.y, words[2] = raw.z, words[3] = raw.w;
    } else if constexpr (N == 4) {
      uint2 const raw = *reinterpret_cast<uint2 const*>(from);
      words[0] = raw.x, words[1] = raw.y;
    } else {
      words[0] = *reinterpret_cast<std::uint32_t const*>(from);
    }
#pragma unroll
    for (int i = 0; i < N / 2; ++i) {
      lanes.value[2 * i] = __uint_as_float(words[i] << 16);
      lanes.value[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000U);
    }
  }
  return lanes;
}

template <int N>
__device__ __forceinline__ Lanes<float, N> load_lanes(float const* from) {
  Lanes<float, N> lanes;
  if constexpr (N % 4 == 0) {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      float4 const raw = *reinterpret_cast<float4 const*>(from + i);
      lanes.value[i] = raw.x, lanes.value[i + 1] = raw.y, lanes.value[i + 2] = raw.z, lanes.value[i + 3] = raw.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) lanes.value[i] = from[i];
  }
  return lanes;
}

template <int N>
__device__ __forceinline__ void store_lanes(bfloat16* to, float const (&value)[N]) {
  if constexpr (N == 1) {
    *to = to_bfloat16(value[0]);
  } else {
    std::uint32_t words[N / 2];
#pragma unroll
    for (int i = 0; i < N / 2; ++i) words[i] = pack_bfloat16(value[2 * i], value[2 * i + 1]);
    if constexpr (N == 8) {
      *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
    } else if constexpr (N == 4) {
      *reinterpret_cast<uint2*>(to) = make_uint2(words[0], words[1]);
    } else {
      *reinterpret_cast<std::uint32_t*>(to) = words[0];
    }
  }
}

template <int N>
__device__ __forceinline__ void store_lanes(float* to, float const (&value)[N]) {
  if constexpr (N % 4 == 0) {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      *reinterpret_cast<float4*>(to + i) = make_float4(value[i], value[i + 1], value[i + 2], value[i + 3]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = value[i];
  }
}

namespace detail {
__device__ __forceinline__ void store_global_words(void* to, std::uint32_t a, std::uint32_t b, std::uint32_t c,
                                                   std::uint32_t d) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(a), "r"(b), "r"(c),
               "r"(d)
               : "memory");
}
}  // namespace detail

/// `store_lanes` to device memory, in one access: where its address is an induction variable, or among branches, the
/// compiler cuts a pack's store into four.
template <int N>
__device__ __forceinline__ void store_global(bfloat16* to, float const (&value)[N]) {
  if constexpr (N == 8) {
    detail::store_global_words(to, pack_bfloat16(value[0], value[1]), pack_bfloat16(value[2], value[3]),
                               pack_bfloat16(value[4], value[5]), pack_bfloat16(value[6], value[7]));
  } else {
    store_lanes(to, value);
  }
}
template <int N>
__device__ __forceinline__ void store_global(float* to, float const (&value)[N]) {
  if constexpr (N == 4) {
    detail::store_global_words(to, __float_as_uint(value[0]), __float_as_uint(value[1]), __float_as_uint(value[2]),
                               __float_as_uint(value[3]));
  } else {
    store_lanes(to, value);
  }
}

}  // namespace mor::cuda
