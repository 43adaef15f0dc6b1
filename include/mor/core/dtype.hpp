// SPDX-License-Identifier: Apache-2.0
/// @file
/// Element types of tensors in files and memory, and the two 16-bit floating-point storage types.
#pragma once

#include "mor/core/types.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>

namespace mor {

/// The element type of a tensor. Those from F8E4M3 on are carried as raw bytes: they can be copied, not converted.
enum class DType {
  F64,
  F32,
  F16,
  BF16,
  I64,
  I32,
  I16,
  I8,
  U64,
  U32,
  U16,
  U8,
  Bool,
  F8E4M3,
  F8E5M2,
  F8E8M0,
  F8E4M3Fnuz,
  F8E5M2Fnuz,
  C64
};

/// A type's name in the safetensors format and its size.
struct DTypeFacts {
  DType dtype;
  std::string_view name;
  Index bytes;
};

/// Every element type, in the order of the enumeration.
inline constexpr std::array<DTypeFacts, 19> dtype_facts{{{DType::F64, "F64", 8},
                                                         {DType::F32, "F32", 4},
                                                         {DType::F16, "F16", 2},
                                                         {DType::BF16, "BF16", 2},
                                                         {DType::I64, "I64", 8},
                                                         {DType::I32, "I32", 4},
                                                         {DType::I16, "I16", 2},
                                                         {DType::I8, "I8", 1},
                                                         {DType::U64, "U64", 8},
                                                         {DType::U32, "U32", 4},
                                                         {DType::U16, "U16", 2},
                                                         {DType::U8, "U8", 1},
                                                         {DType::Bool, "BOOL", 1},
                                                         {DType::F8E4M3, "F8_E4M3", 1},
                                                         {DType::F8E5M2, "F8_E5M2", 1},
                                                         {DType::F8E8M0, "F8_E8M0", 1},
                                                         {DType::F8E4M3Fnuz, "F8_E4M3FNUZ", 1},
                                                         {DType::F8E5M2Fnuz, "F8_E5M2FNUZ", 1},
                                                         {DType::C64, "C64", 8}}};

/// Bytes of one element.
[[nodiscard]] constexpr Index byte_size(DType dtype) noexcept {
  return dtype_facts[static_cast<std::size_t>(dtype)].bytes;
}

/// The name in the safetensors format: "F32", "BF16", "BOOL".
[[nodiscard]] constexpr std::string_view to_text(DType dtype) noexcept {
  return dtype_facts[static_cast<std::size_t>(dtype)].name;
}

/// The type of that name, or nothing.
[[nodiscard]] constexpr std::optional<DType> parse_dtype(std::string_view name) noexcept {
  for (DTypeFacts const& facts : dtype_facts) {
    if (facts.name == name) return facts.dtype;
  }
  return std::nullopt;
}

/// True for the types that hold fractions.
[[nodiscard]] constexpr bool is_floating(DType dtype) noexcept {
  return dtype == DType::F64 || dtype == DType::F32 || dtype == DType::F16 || dtype == DType::BF16;
}

// The conversions use the compiler's builtin and not std::bit_cast, which nvcc does not call in device code without
// --expt-relaxed-constexpr.

/// Storage for a bfloat16: the upper half of a float. Widening is exact; narrowing rounds to nearest, ties to even.
struct bfloat16 {
  std::uint16_t bits = 0;

  constexpr bfloat16() = default;

  /// Overflow becomes infinity, a NaN stays a quiet NaN of the same sign.
  MOR_HOST_DEVICE constexpr explicit bfloat16(float value) noexcept : bits(round(value)) {}

  MOR_HOST_DEVICE [[nodiscard]] static constexpr bfloat16 from_bits(std::uint16_t bits) noexcept {
    bfloat16 value;
    value.bits = bits;
    return value;
  }

  MOR_HOST_DEVICE constexpr operator float() const noexcept {
    return __builtin_bit_cast(float, static_cast<std::uint32_t>(bits) << 16);
  }

 private:
  MOR_HOST_DEVICE static constexpr std::uint16_t round(float value) noexcept {
    auto const wide = __builtin_bit_cast(std::uint32_t, value);
    // Rounding up could carry a NaN's payload into the sign or clear it, so NaN only loses its low bits.
    if ((wide & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>((wide >> 16) | 0x0040U);
    std::uint32_t const tie_to_even = (wide >> 16) & 1U;
    return static_cast<std::uint16_t>((wide + 0x7fffU + tie_to_even) >> 16);
  }
};

/// Storage for an IEEE 754 binary16. Widening is exact; narrowing rounds to nearest, ties to even.
struct float16 {
  std::uint16_t bits = 0;

  constexpr float16() = default;

  /// From 65520 on the result is infinity, below 2^-14 subnormal; a NaN stays a quiet NaN of the same sign.
  MOR_HOST_DEVICE constexpr explicit float16(float value) noexcept : bits(round(value)) {}

  MOR_HOST_DEVICE [[nodiscard]] static constexpr float16 from_bits(std::uint16_t bits) noexcept {
    float16 value;
    value.bits = bits;
    return value;
  }

  MOR_HOST_DEVICE constexpr operator float() const noexcept {
    std::uint32_t const sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
    std::uint32_t const exponent = (bits >> 10) & 0x1fU;
    std::uint32_t const fraction = bits & 0x3ffU;
    if (exponent == 0) {
      // A multiple of 2^-24: both the integer and the scaling are exact in float.
      float const magnitude = static_cast<float>(fraction) * 0x1p-24F;
      return __builtin_bit_cast(float, sign | __builtin_bit_cast(std::uint32_t, magnitude));
    }
    std::uint32_t const wide_exponent = exponent == 0x1fU ? 0xffU : exponent + (127U - 15U);
    return __builtin_bit_cast(float, sign | (wide_exponent << 23) | (fraction << 13));
  }

 private:
  MOR_HOST_DEVICE static constexpr std::uint16_t round(float value) noexcept {
    auto const wide = __builtin_bit_cast(std::uint32_t, value);
    auto const sign = static_cast<std::uint16_t>((wide >> 16) & 0x8000U);
    std::uint32_t const magnitude = wide & 0x7fffffffU;
    if (magnitude > 0x7f800000U) {
      return static_cast<std::uint16_t>(sign | 0x7e00U | ((magnitude >> 13) & 0x3ffU));
    }
    if (magnitude >= 0x477ff000U) return static_cast<std::uint16_t>(sign | 0x7c00U);  // >= 65520
    if (magnitude >= 0x38800000U) {                                                   // >= 2^-14: a normal number
      std::uint32_t const tie_to_even = (magnitude >> 13) & 1U;
      std::uint32_t const rounded = magnitude - ((127U - 15U) << 23) + 0xfffU + tie_to_even;
      return static_cast<std::uint16_t>(sign | (rounded >> 13));
    }
    if (magnitude < 0x33000000U) return sign;  // below 2^-25, half of the smallest subnormal
    // Subnormal: shift the 24-bit significand to units of 2^-24, and round what falls off.
    std::uint32_t const shift = 126U - (magnitude >> 23);
    std::uint32_t const significand = (magnitude & 0x7fffffU) | 0x800000U;
    std::uint32_t const whole = significand >> shift;
    std::uint32_t const rest = significand & ((1U << shift) - 1U);
    std::uint32_t const half = 1U << (shift - 1U);
    std::uint32_t const up = rest > half || (rest == half && (whole & 1U) != 0U) ? 1U : 0U;
    return static_cast<std::uint16_t>(sign | (whole + up));
  }
};

static_assert(sizeof(bfloat16) == 2 && sizeof(float16) == 2, "stored as two bytes in files and device memory");
static_assert(std::numeric_limits<float>::is_iec559, "the conversions rely on IEEE 754 floats");

/// The DType of a C++ element type: `dtype_of<float>` is F32. Other types do not compile.
template <class T>
struct DTypeOf;
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::F64;
};
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::F32;
};
template <>
struct DTypeOf<float16> {
  static constexpr DType value = DType::F16;
};
template <>
struct DTypeOf<bfloat16> {
  static constexpr DType value = DType::BF16;
};
template <>
struct DTypeOf<std::int64_t> {
  static constexpr DType value = DType::I64;
};
template <>
struct DTypeOf<std::int32_t> {
  static constexpr DType value = DType::I32;
};
template <>
struct DTypeOf<std::int16_t> {
  static constexpr DType value = DType::I16;
};
template <>
struct DTypeOf<std::int8_t> {
  static constexpr DType value = DType::I8;
};
template <>
struct DTypeOf<std::uint64_t> {
  static constexpr DType value = DType::U64;
};
template <>
struct DTypeOf<std::uint32_t> {
  static constexpr DType value = DType::U32;
};
template <>
struct DTypeOf<std::uint16_t> {
  static constexpr DType value = DType::U16;
};
template <>
struct DTypeOf<std::uint8_t> {
  static constexpr DType value = DType::U8;
};
template <>
struct DTypeOf<bool> {
  static constexpr DType value = DType::Bool;
};
template <class T>
inline constexpr DType dtype_of = DTypeOf<T>::value;

}  // namespace mor
