// SPDX-License-Identifier: Apache-2.0
/// @file
/// A megabyte of mixed text: English from the test data, then characters of many scripts between letters, digits,
/// spaces and line breaks. tests/oracle/make_tokenizer_vectors.py makes the same text and hashes what the reference
/// makes of it.
#pragma once

#include "mor/core/utf8.hpp"
#include "mor/io/file.hpp"
#include "mor/io/json_scanner.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

namespace mor::test {

/// FNV-1a.
class Fnv {
 public:
  void add(std::string_view bytes) {
    for (char const byte : bytes) value_ = (value_ ^ static_cast<unsigned char>(byte)) * 0x100000001B3u;
  }
  [[nodiscard]] std::string text() const {
    static constexpr char digits[] = "0123456789abcdef";
    std::string out;
    for (int shift = 60; shift >= 0; shift -= 4) out += digits[value_ >> shift & 15];
    return out;
  }

 private:
  std::uint64_t value_ = 0xCBF29CE484222325u;
};

[[nodiscard]] inline std::string mixed_text(std::filesystem::path const& data) {
  std::string text;
  for (auto const& [name, size] : {std::pair<char const*, std::size_t>{"tinyshakespeare.txt", 300000},
                                   {"wikitext-2.valid.txt", 300000},
                                   {"wikitext-2.test.txt", 100000}}) {
    std::string const all = io::read_file(data / "text" / name);
    std::string_view part = std::string_view(all).substr(0, size);
    if (auto const end = first_invalid_utf8(part)) part = part.substr(0, *end);
    text += part;
  }
  static constexpr char32_t blocks[][2] = {{0x20, 0x7F},     {0x20, 0x250},    {0x370, 0x600},
                                           {0x900, 0xE00},   {0x2000, 0x2C00}, {0x3000, 0x3400},
                                           {0x4E00, 0x5000}, {0xAC00, 0xAE00}, {0x1F300, 0x1F700}};
  std::uint64_t state = 1;
  for (int i = 0; i < 200000; ++i) {
    state = 6364136223846793005u * state + 1442695040888963407u;
    auto const [first, last] = blocks[(state >> 40) % 9];
    if (state >> 60 < 12) {
      io::detail::append_utf8(text, first + static_cast<char32_t>((state >> 20) % (last - first)));
    } else {
      text += " a1\n"[(state >> 50) % 4];
    }
  }
  return text;
}

}  // namespace mor::test
