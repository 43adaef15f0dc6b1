// SPDX-License-Identifier: Apache-2.0
/// @file
/// How a SentencePiece-style tokenizer treats spaces: a space is part of the word that it precedes, U+2581 in the text
/// is a space, and a text may get a space in front, so that its first word looks like any other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace mor::io {

/// How vocabularies spell a space: U+2581.
inline constexpr std::string_view space_mark = "\xE2\x96\x81";

/// Where a space is put in front. Pieces are what lies between added tokens; none is empty.
enum class SpacePrefix : std::uint8_t {
  None,    ///< nowhere
  Start,   ///< before the text, unless it begins with a space or an added token (Metaspace, "first")
  Pieces,  ///< before each piece that does not begin with a space (Metaspace, "always")
  Always   ///< before each piece (normalizer Prepend)
};

/// What decoding drops where a text begins.
enum class SpaceStrip : std::uint8_t {
  None,       ///< nothing
  One,        ///< one space (decoder Strip)
  FirstToken  ///< every space of the first token (decoder Metaspace)
};

/// The rules of one tokenizer; they mean nothing to a byte-level one.
struct SpaceRules {
  SpacePrefix prefix = SpacePrefix::None;
  bool split = false;  ///< each space begins a word that merges do not leave (Metaspace)
  SpaceStrip strip = SpaceStrip::None;
  bool operator==(SpaceRules const&) const = default;
};

namespace detail {

/// The text with a space for each U+2581.
[[nodiscard]] inline std::string marks_to_spaces(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    std::size_t const mark = text.find(space_mark, at);
    out.append(text.substr(at, mark - at));
    if (mark == text.npos) break;
    out += ' ';
    at = mark + space_mark.size();
  }
  return out;
}

/// The text with U+2581 for each space.
[[nodiscard]] inline std::string spaces_to_marks(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (char const c : text) {
    if (c == ' ') {
      out += space_mark;
    } else {
      out += c;
    }
  }
  return out;
}

[[nodiscard]] inline bool begins_with_space(std::string_view text) noexcept {
  return text.starts_with(' ') || text.starts_with(space_mark);
}

/// Whether a space stands after another character.
[[nodiscard]] inline bool has_inner_space(std::string_view text) noexcept {
  for (std::size_t at = 1; at < text.size(); ++at) {
    if (text[at] == ' ' && text[at - 1] != ' ') return true;
  }
  return false;
}

/// Calls `visit(word)` for each word, which begins at a space: at each one, or at the first of each run.
template <class Visit>
void split_at_spaces(std::string_view text, bool each_space, Visit&& visit) {
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t end = text.find(' ', begin + 1);
    while (!each_space && end != text.npos && text[end - 1] == ' ') end = text.find(' ', end + 1);
    if (end == text.npos) end = text.size();
    visit(text.substr(begin, end - begin));
    begin = end;
  }
}

}  // namespace detail
}  // namespace mor::io
