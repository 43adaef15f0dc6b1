// SPDX-License-Identifier: Apache-2.0
/// @file
/// Text and numbers for HTML and SVG pages: escaping, and formatting that no locale changes.
#pragma once

#include "mor/core/types.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <string>
#include <string_view>

namespace mor::io {

/// The text with the five characters that mean something in HTML replaced, for content and quoted attributes.
[[nodiscard]] inline std::string html_escape(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (char const symbol : text) {
    switch (symbol) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += symbol;
    }
  }
  return out;
}

/// "nan", "inf" or "-inf".
[[nodiscard]] inline std::string non_finite_text(double value) {
  return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
}

/// The number with exactly that many decimals: `fixed(2.5, 2)` is "2.50".
[[nodiscard]] inline std::string fixed(double value, int decimals) {
  if (!std::isfinite(value)) return non_finite_text(value);
  std::array<char, 512> buffer{};
  auto const result =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::fixed, decimals);
  std::string text(buffer.data(), result.ptr);
  return text.find_first_not_of("-0.") == std::string::npos && text.front() == '-' ? text.substr(1) : text;
}

/// The number with up to that many significant digits, in the shorter notation: 3.142, 1e-05.
[[nodiscard]] inline std::string significant(double value, int digits = 4) {
  if (!std::isfinite(value)) return non_finite_text(value);
  std::array<char, 64> buffer{};
  auto const result =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::general, digits);
  return std::string(buffer.data(), result.ptr);
}

/// A count with a unit prefix: 950, 12.5k, 3.2M, 1.05B.
[[nodiscard]] inline std::string short_count(double value) {
  double const size = std::abs(value);
  if (size >= 999.5e6) return significant(value / 1e9, 3) + "B";
  if (size >= 999.5e3) return significant(value / 1e6, 3) + "M";
  if (size >= 1e4) return significant(value / 1e3, 3) + "k";
  return significant(std::round(value), 6);
}

/// An integer with a comma between thousands: 1,234,567.
[[nodiscard]] inline std::string grouped(Index value) {
  std::string text = std::to_string(value);
  std::size_t const first = text.front() == '-' ? 1 : 0;
  for (std::size_t place = text.size(); place > first + 3;) text.insert(place -= 3, ",");
  return text;
}

/// A share as a percentage: 0.3333 is "33.3%".
[[nodiscard]] inline std::string percent(double share) {
  return fixed(100.0 * share, 1) + "%";
}

}  // namespace mor::io
