// SPDX-License-Identifier: Apache-2.0
/// @file
/// The tokens of byte fallback, spelled `<0x00>` to `<0xFF>` in SentencePiece vocabularies.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace mor::io {

/// The spelling of a byte: `<0x0A>`.
[[nodiscard]] inline std::string byte_token_text(unsigned char byte) {
  static constexpr char digits[] = "0123456789ABCDEF";
  return {'<', '0', 'x', digits[byte >> 4], digits[byte & 15], '>'};
}

/// The byte that a token spells, its digits in upper or lower case; nothing when it spells none.
[[nodiscard]] constexpr std::optional<unsigned char> parse_byte_token(std::string_view text) noexcept {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return std::nullopt;
  unsigned value = 0;
  for (char const digit : {text[3], text[4]}) {
    if (digit >= '0' && digit <= '9') {
      value = value * 16 + static_cast<unsigned>(digit - '0');
    } else if (digit >= 'A' && digit <= 'F') {
      value = value * 16 + static_cast<unsigned>(digit - 'A') + 10;
    } else if (digit >= 'a' && digit <= 'f') {
      value = value * 16 + static_cast<unsigned>(digit - 'a') + 10;
    } else {
      return std::nullopt;
    }
  }
  return static_cast<unsigned char>(value);
}

}  // namespace mor::io
