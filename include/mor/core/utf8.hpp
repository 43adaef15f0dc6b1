// SPDX-License-Identifier: Apache-2.0
/// @file
/// UTF-8 in pieces: checking it, decoding one code point, and turning a stream of arbitrary bytes into a stream of
/// whole characters. Invalid bytes become U+FFFD, one for each maximal part of an ill-formed sequence (Unicode 3.9,
/// table 3-8).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace mor {

enum class Utf8Status : std::uint8_t {
  Valid,      ///< a whole code point
  Invalid,    ///< bytes that no continuation can make valid
  Incomplete  ///< the text ends inside a sequence that is valid so far
};

/// One step through UTF-8 text.
struct Utf8Step {
  char32_t code_point;  ///< meaningful only when `status` is Valid
  std::uint8_t length;  ///< bytes this step covers, at least 1
  Utf8Status status;
};

/// What U+FFFD is in UTF-8.
inline constexpr std::string_view utf8_replacement = "\xEF\xBF\xBD";

namespace detail {

/// What a lead byte announces. The second byte is the only one whose range varies: it is what excludes overlong forms,
/// surrogates and values beyond U+10FFFF.
struct Utf8Lead {
  std::uint8_t length;  ///< of the whole sequence; 0 when no sequence begins with this byte
  std::uint8_t second_first, second_last;
};

[[nodiscard]] constexpr Utf8Lead utf8_lead(unsigned byte) noexcept {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte < 0xF0) {
    return {3, std::uint8_t(byte == 0xE0 ? 0xA0 : 0x80), std::uint8_t(byte == 0xED ? 0x9F : 0xBF)};
  }
  if (byte < 0xF5) return {4, std::uint8_t(byte == 0xF0 ? 0x90 : 0x80), std::uint8_t(byte == 0xF4 ? 0x8F : 0xBF)};
  return {0, 0, 0};
}

}  // namespace detail

/// Decodes the code point that begins at byte `at`, which must lie inside `text`.
[[nodiscard]] constexpr Utf8Step decode_utf8(std::string_view text, std::size_t at) noexcept {
  auto const byte_at = [&](std::size_t index) -> unsigned { return static_cast<unsigned char>(text[index]); };
  unsigned const first = byte_at(at);
  detail::Utf8Lead const lead = detail::utf8_lead(first);
  if (lead.length == 1) return {first, 1, Utf8Status::Valid};
  if (lead.length == 0) return {0, 1, Utf8Status::Invalid};
  char32_t code_point = first & (0x7Fu >> lead.length);
  for (std::uint8_t i = 1; i < lead.length; ++i) {
    if (at + i >= text.size()) return {0, i, Utf8Status::Incomplete};
    unsigned const next = byte_at(at + i);
    unsigned const least = i == 1 ? lead.second_first : 0x80u;
    unsigned const most = i == 1 ? lead.second_last : 0xBFu;
    if (next < least || next > most) return {0, i, Utf8Status::Invalid};
    code_point = code_point << 6 | (next & 0x3Fu);
  }
  return {code_point, lead.length, Utf8Status::Valid};
}

/// Offset of the first byte that is not part of a whole, valid code point; nothing when the text is valid UTF-8.
[[nodiscard]] constexpr std::optional<std::size_t> first_invalid_utf8(std::string_view text) noexcept {
  for (std::size_t at = 0; at < text.size();) {
    Utf8Step const step = decode_utf8(text, at);
    if (step.status != Utf8Status::Valid) return at;
    at += step.length;
  }
  return std::nullopt;
}

[[nodiscard]] constexpr bool valid_utf8(std::string_view text) noexcept {
  return !first_invalid_utf8(text).has_value();
}

/// Makes text of bytes that arrive in arbitrary pieces, as the tokens of a model do.
///
/// Every returned piece is valid UTF-8 and ends between two code points. The pieces joined do not depend on where the
/// bytes were cut: they are the bytes themselves when these are valid, and otherwise hold U+FFFD for each maximal
/// invalid part. An unfinished code point is held back until it is finished, proves invalid, or `flush` is called.
class Utf8Stream {
 public:
  /// Takes the next bytes and returns the text that is now certain; it may be empty.
  [[nodiscard]] std::string push(std::string_view bytes) {
    std::string joined;
    if (!pending_.empty()) {
      joined.reserve(pending_.size() + bytes.size());
      joined.append(pending_).append(bytes);
      pending_.clear();
      bytes = joined;
    }
    std::string out;
    out.reserve(bytes.size());
    for (std::size_t at = 0; at < bytes.size();) {
      Utf8Step const step = decode_utf8(bytes, at);
      if (step.status == Utf8Status::Incomplete) {
        pending_ = bytes.substr(at);
        break;
      }
      out += step.status == Utf8Status::Valid ? bytes.substr(at, step.length) : utf8_replacement;
      at += step.length;
    }
    return out;
  }

  /// Ends the stream: an unfinished code point becomes one U+FFFD. The object is then as new.
  [[nodiscard]] std::string flush() {
    std::string out(pending_.empty() ? std::string_view() : utf8_replacement);
    pending_.clear();
    return out;
  }

  /// Bytes held back, at most 3.
  [[nodiscard]] std::size_t pending() const noexcept { return pending_.size(); }

 private:
  std::string pending_;
};

/// The bytes as valid UTF-8, each maximal invalid part replaced by U+FFFD.
[[nodiscard]] inline std::string to_valid_utf8(std::string_view bytes) {
  Utf8Stream stream;
  std::string text = stream.push(bytes);
  return text += stream.flush();
}

}  // namespace mor
