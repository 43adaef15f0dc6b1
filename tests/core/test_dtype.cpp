// SPDX-License-Identifier: Apache-2.0
#include "mor/core/dtype.hpp"
#include "support/catch.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

using mor::bfloat16;
using mor::DType;
using mor::float16;

namespace {

/// The value of a 16-bit pattern with that many exponent bits, from the definition of the format.
double defined_value(unsigned bits, int exponent_bits) {
  int const fraction_bits = 15 - exponent_bits;
  unsigned const exponent = (bits >> fraction_bits) & ((1U << exponent_bits) - 1U);
  unsigned const fraction = bits & ((1U << fraction_bits) - 1U);
  int const bias = (1 << (exponent_bits - 1)) - 1;
  double const significand = static_cast<double>(fraction) + (exponent == 0 ? 0.0 : std::ldexp(1.0, fraction_bits));
  int const power = (exponent == 0 ? 1 : static_cast<int>(exponent)) - bias - fraction_bits;
  double const magnitude = std::ldexp(significand, power);
  return (bits & 0x8000U) != 0 ? -magnitude : magnitude;
}

/// Counts patterns whose widening is not exact, or whose rounding neighbourhood is wrong: a float just below the middle
/// between two values must give the lower, just above the upper, and the middle itself the even one.
template <class Half>
int wrong_patterns(int exponent_bits) {
  unsigned const infinity = ((1U << exponent_bits) - 1U) << (15 - exponent_bits);
  int wrong = 0;
  for (unsigned sign : {0U, 0x8000U}) {
    for (unsigned bits = 0; bits < infinity; ++bits) {
      auto const low = static_cast<std::uint16_t>(sign | bits), high = static_cast<std::uint16_t>(sign | (bits + 1));
      auto const value = static_cast<float>(Half::from_bits(low));
      wrong += static_cast<double>(value) != defined_value(low, exponent_bits);
      wrong += Half(value).bits != low;
      // Beyond the largest finite value the format rounds as if the next one existed.
      auto const middle =
          static_cast<float>((defined_value(low, exponent_bits) + defined_value(high, exponent_bits)) / 2);
      float const away = sign != 0 ? -std::numeric_limits<float>::infinity() : std::numeric_limits<float>::infinity();
      wrong += Half(middle).bits != ((bits & 1U) == 0 ? low : high);
      wrong += Half(std::nextafter(middle, 0.0F)).bits != low;
      wrong += Half(std::nextafter(middle, away)).bits != high;
    }
  }
  return wrong;
}

template <class Half>
int wrong_nans() {
  int wrong = 0;
  for (std::uint32_t payload = 1; payload <= 0x7fffffU; payload += 997) {
    for (std::uint32_t sign : {0U, 0x80000000U}) {
      Half const half(std::bit_cast<float>(sign | 0x7f800000U | payload));
      wrong += !std::isnan(static_cast<float>(half));
      wrong += (half.bits >> 15) != (sign >> 31);
    }
  }
  return wrong;
}

}  // namespace

TEST_CASE("bfloat16 widens exactly and rounds to nearest even, for every value") {
  REQUIRE(wrong_patterns<bfloat16>(8) == 0);
  REQUIRE(wrong_nans<bfloat16>() == 0);
}

TEST_CASE("float16 widens exactly and rounds to nearest even, for every value and subnormal") {
  REQUIRE(wrong_patterns<float16>(5) == 0);
  REQUIRE(wrong_nans<float16>() == 0);
}

TEST_CASE("16-bit types keep infinities and overflow to them") {
  float const infinity = std::numeric_limits<float>::infinity();
  REQUIRE(float16(infinity).bits == 0x7c00);
  REQUIRE(float16(-infinity).bits == 0xfc00);
  REQUIRE(float16(65519.996F).bits == 0x7bff);
  REQUIRE(float16(65520.0F).bits == 0x7c00);
  REQUIRE(static_cast<float>(float16::from_bits(0xfc00)) == -infinity);
  REQUIRE(bfloat16(infinity).bits == 0x7f80);
  REQUIRE(bfloat16(std::numeric_limits<float>::max()).bits == 0x7f80);
  REQUIRE(static_cast<float>(bfloat16::from_bits(0xff80)) == -infinity);
  REQUIRE(std::isnan(static_cast<float>(float16::from_bits(0x7c01))));
  REQUIRE(float16(1e-10F).bits == 0);
  REQUIRE(float16(-1e-10F).bits == 0x8000);
}

TEST_CASE("conversions are usable at compile time") {
  static_assert(bfloat16(1.0F).bits == 0x3f80);
  static_assert(float16(1.0F).bits == 0x3c00);
  static_assert(float(float16::from_bits(0x0001)) == 0x1p-24F);
  static_assert(float(bfloat16::from_bits(0xc000)) == -2.0F);
  static_assert(mor::byte_size(DType::BF16) == 2 && mor::dtype_of<float> == DType::F32);
  SUCCEED();
}

TEST_CASE("every element type has a name that is read back, and the size of its C++ type") {
  for (auto const& facts : mor::dtype_facts) {
    REQUIRE(mor::parse_dtype(mor::to_text(facts.dtype)) == facts.dtype);
    REQUIRE(mor::byte_size(facts.dtype) == facts.bytes);
  }
  REQUIRE(mor::to_text(DType::Bool) == "BOOL");
  REQUIRE_FALSE(mor::parse_dtype("f32"));
  REQUIRE(mor::byte_size(mor::dtype_of<double>) == sizeof(double));
  REQUIRE(mor::byte_size(mor::dtype_of<std::int64_t>) == sizeof(std::int64_t));
  REQUIRE(mor::byte_size(mor::dtype_of<float16>) == sizeof(float16));
  REQUIRE(mor::is_floating(DType::BF16));
  REQUIRE_FALSE(mor::is_floating(DType::I32));
}
