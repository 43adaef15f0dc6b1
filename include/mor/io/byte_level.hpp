// SPDX-License-Identifier: Apache-2.0
/// @file
/// The byte-level alphabet of GPT-2: how `tokenizer.json` spells arbitrary bytes as printable characters. Printable
/// Latin-1 characters stand for themselves; the other 68 bytes, in ascending order, are U+0100, U+0101, and so on
/// (a space is U+0120).
#pragma once

#include "mor/core/utf8.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace mor::io {

namespace detail {

struct ByteAlphabet {
  static constexpr std::size_t code_point_count = 256 + 68;

  std::array<char32_t, 256> code_point_of{};
  std::array<std::int16_t, code_point_count> byte_of{};  ///< -1 where a code point stands for no byte

  constexpr ByteAlphabet() {
    byte_of.fill(-1);
    char32_t next = 0x100;
    for (unsigned byte = 0; byte < 256; ++byte) {
      bool const printable = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
      char32_t const code_point = printable ? byte : next++;
      code_point_of[byte] = code_point;
      byte_of[code_point] = static_cast<std::int16_t>(byte);
    }
  }
};

inline constexpr ByteAlphabet byte_alphabet{};

}  // namespace detail

/// Spells bytes as UTF-8 text of the byte-level alphabet, one character a byte.
[[nodiscard]] inline std::string to_byte_level(std::string_view bytes) {
  std::string text;
  text.reserve(2 * bytes.size());
  for (char const byte : bytes) {
    char32_t const code_point = detail::byte_alphabet.code_point_of[static_cast<unsigned char>(byte)];
    if (code_point < 0x80) {
      text += static_cast<char>(code_point);
    } else {
      text += static_cast<char>(0xC0u | code_point >> 6);
      text += static_cast<char>(0x80u | (code_point & 0x3Fu));
    }
  }
  return text;
}

/// The bytes that a text of the byte-level alphabet spells; nothing when it holds a character outside the alphabet.
[[nodiscard]] inline std::optional<std::string> from_byte_level(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    Utf8Step const step = decode_utf8(text, at);
    if (step.status != Utf8Status::Valid || step.code_point >= detail::ByteAlphabet::code_point_count) return {};
    std::int16_t const byte = detail::byte_alphabet.byte_of[step.code_point];
    if (byte < 0) return {};
    bytes += static_cast<char>(byte);
    at += step.length;
  }
  return bytes;
}

}  // namespace mor::io
