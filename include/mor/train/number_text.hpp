// SPDX-License-Identifier: Apache-2.0
/// @file
/// Numbers as text that does not depend on the locale: exact for files, short for people.
#pragma once

#include "mor/core/finite.hpp"
#include "mor/core/types.hpp"

#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>

namespace mor::train::detail {

/// `nan`, `inf` or `-inf`; for numbers that are not finite only. From the bits, as in `is_finite`.
[[nodiscard]] inline char const* non_finite_text(double value) {
  auto const bits = std::bit_cast<std::uint64_t>(value);
  if ((bits & 0x000fffffffffffffULL) != 0) return "nan";
  return bits >> 63U == 0 ? "inf" : "-inf";
}

/// The shortest JSON number that reads back as the same double; a string where JSON has no number.
[[nodiscard]] inline std::string json_number_text(double value) {
  if (!is_finite(value)) return std::string("\"") + non_finite_text(value) + "\"";
  std::array<char, 32> text{};
  auto const [end, problem] = std::to_chars(text.data(), text.data() + text.size(), value);
  static_cast<void>(problem);  // 32 characters hold every double
  return std::string(text.data(), end);
}

/// `digits` decimals, without an exponent unless the number is of 1e15 or more.
[[nodiscard]] inline std::string fixed_text(double value, int digits) {
  if (!is_finite(value)) return non_finite_text(value);
  bool const huge = std::fabs(value) >= 1e15;
  std::array<char, 64> text{};
  auto const [end, problem] = std::to_chars(text.data(), text.data() + text.size(), value,
                                            huge ? std::chars_format::scientific : std::chars_format::fixed, digits);
  static_cast<void>(problem);  // at most 16 digits before the point
  return std::string(text.data(), end);
}

/// `digits` decimals and an exponent of at least two digits: 3.0e-03.
[[nodiscard]] inline std::string scientific_text(double value, int digits) {
  if (!is_finite(value)) return non_finite_text(value);
  std::array<char, 64> text{};
  auto const [end, problem] =
      std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::scientific, digits);
  static_cast<void>(problem);
  return std::string(text.data(), end);
}

/// Spaces in front, up to `width` characters.
[[nodiscard]] inline std::string padded(std::string text, std::size_t width) {
  if (text.size() < width) text.insert(0, width - text.size(), ' ');
  return text;
}

}  // namespace mor::train::detail
