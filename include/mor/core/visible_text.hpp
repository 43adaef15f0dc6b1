// SPDX-License-Identifier: Apache-2.0
/// @file
/// Text of unknown origin made safe to show in a terminal.
#pragma once

#include "mor/core/utf8.hpp"

#include <cstddef>
#include <string>
#include <string_view>

namespace mor {

/// The text with control characters made visible (escape as ^[), so that it cannot command the terminal; line breaks
/// and tabs stay. What is not UTF-8, and C1 controls, become U+FFFD: give whole characters, as Utf8Stream does.
[[nodiscard]] inline std::string visible_text(std::string_view text) {
  std::string const valid = to_valid_utf8(text);
  std::string out;
  for (std::size_t at = 0; at < valid.size();) {
    Utf8Step const step = decode_utf8(valid, at);
    char32_t const code = step.code_point;
    if ((code < 0x20 && code != '\n' && code != '\t') || code == 0x7f) {
      out += '^';
      out += static_cast<char>(code ^ 0x40);
    } else if (code >= 0x80 && code < 0xa0) {
      out += utf8_replacement;
    } else {
      out.append(valid, at, step.length);
    }
    at += step.length;
  }
  return out;
}

}  // namespace mor
