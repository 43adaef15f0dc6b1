// SPDX-License-Identifier: Apache-2.0
/// @file
/// Names in commands that a reader is to copy.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

namespace examples {

/// The text as one word of a shell: in quotes where it needs them.
[[nodiscard]] inline std::string shell_word(std::string const& text) {
  bool const plain = !text.empty() && std::all_of(text.begin(), text.end(), [](char symbol) {
    bool const letter = (symbol >= 'a' && symbol <= 'z') || (symbol >= 'A' && symbol <= 'Z');
    bool const digit = symbol >= '0' && symbol <= '9';
    return letter || digit || std::string_view("%+,-./:=@_").find(symbol) != std::string_view::npos;
  });
  if (plain) return text;
  std::string out = "'";
  for (char const symbol : text) out += symbol == '\'' ? std::string("'\\''") : std::string(1, symbol);
  return out + "'";
}

}  // namespace examples
