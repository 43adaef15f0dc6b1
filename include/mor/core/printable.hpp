// SPDX-License-Identifier: Apache-2.0
/// @file
/// Untrusted bytes made safe to show in an error message.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace mor {

/// The text in quotes, cut at `limit` bytes, with anything but printable ASCII escaped: a file cannot put control
/// sequences into a log.
[[nodiscard]] inline std::string printable(std::string_view text, std::size_t limit = 60) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string out = "\"";
  for (std::size_t i = 0; i < text.size() && i < limit; ++i) {
    auto const byte = static_cast<unsigned char>(text[i]);
    if (byte == '"' || byte == '\\') out += '\\';
    if (byte >= 0x20 && byte < 0x7f) {
      out += text[i];
    } else {
      out += {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
    }
  }
  out += text.size() > limit ? "...\"" : "\"";
  return out;
}

}  // namespace mor
