// SPDX-License-Identifier: Apache-2.0
/// @file
/// Splits text into the words within which byte-pair merges happen, in one pass and without a regular expression
/// engine: the rule of GPT-2,
///
///     '(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
///
/// optionally after a split at digits. Any bytes are accepted; one that is not part of valid UTF-8 counts as a
/// character that is neither letter nor number nor space. The words joined are the text.
#pragma once

#include "mor/core/utf8.hpp"
#include "mor/io/unicode_tables.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string_view>

namespace mor::io {

/// What the splitting rule of GPT-2 distinguishes.
enum class CharacterClass : std::uint8_t { Other, Letter, Number, Space };

/// How numbers (general category N) are cut out before the other rules apply.
enum class DigitSplit : std::uint8_t {
  None,        ///< not at all
  Runs,        ///< each run of them is a piece
  Individual   ///< each is a piece
};

/// The rules by which a tokenizer splits text into words.
struct SplitRules {
  DigitSplit digits = DigitSplit::None;
  bool split_words = true;  ///< the rule of GPT-2; without it, what lies between digits is one word
  bool operator==(SplitRules const&) const = default;
};

namespace detail {

template <std::size_t Count>
[[nodiscard]] constexpr bool in_ranges(CodePointRange const (&ranges)[Count], char32_t code_point) noexcept {
  auto const* const next = std::upper_bound(std::begin(ranges), std::end(ranges), code_point,
                                            [](char32_t c, CodePointRange const& range) { return c < range.first; });
  return next != std::begin(ranges) && code_point <= std::prev(next)->last;
}

[[nodiscard]] constexpr CharacterClass classify_by_tables(char32_t code_point) noexcept {
  if (in_ranges(unicode_letters, code_point)) return CharacterClass::Letter;
  if (in_ranges(unicode_numbers, code_point)) return CharacterClass::Number;
  if (in_ranges(unicode_spaces, code_point)) return CharacterClass::Space;
  return CharacterClass::Other;
}

inline constexpr std::array<CharacterClass, 128> ascii_classes = [] {
  std::array<CharacterClass, 128> classes{};
  for (char32_t c = 0; c < 128; ++c) classes[c] = classify_by_tables(c);
  return classes;
}();

/// A character of the text: its class and its bytes.
struct ClassifiedCharacter {
  CharacterClass kind;
  std::uint8_t length;
};

[[nodiscard]] inline ClassifiedCharacter character_at(std::string_view text, std::size_t at) noexcept {
  auto const byte = static_cast<unsigned char>(text[at]);
  if (byte < 128) return {ascii_classes[byte], 1};
  Utf8Step const step = decode_utf8(text, at);
  bool const valid = step.status == Utf8Status::Valid;
  return {valid ? classify_by_tables(step.code_point) : CharacterClass::Other, step.length};
}

/// End of the run of characters of one class that reaches at least to `at`.
[[nodiscard]] inline std::size_t end_of_run(std::string_view text, std::size_t at, CharacterClass kind) noexcept {
  while (at < text.size()) {
    ClassifiedCharacter const next = character_at(text, at);
    if (next.kind != kind) break;
    at += next.length;
  }
  return at;
}

/// Length of the contraction ('s, 't, 're, 've, 'm, 'll or 'd) at an apostrophe, or 0.
[[nodiscard]] inline std::size_t contraction_length(std::string_view text, std::size_t at) noexcept {
  std::string_view const tail = text.substr(at + 1, 2);
  if (tail.empty()) return 0;
  if (tail[0] == 's' || tail[0] == 't' || tail[0] == 'm' || tail[0] == 'd') return 2;
  return tail == "re" || tail == "ve" || tail == "ll" ? 3 : 0;
}

/// End of the match of `\s+(?!\S)|\s+` at a white space character: the run, less its last character when a word follows
/// and that leaves anything.
[[nodiscard]] inline std::size_t end_of_space(std::string_view text, std::size_t at) noexcept {
  std::size_t last = at, end = at;
  while (end < text.size()) {
    ClassifiedCharacter const next = character_at(text, end);
    if (next.kind != CharacterClass::Space) break;
    last = end;
    end += next.length;
  }
  return end < text.size() && last > at ? last : end;
}

/// Calls `visit(word)` for each match of the rule of GPT-2, in order.
template <class Visit>
void split_words(std::string_view text, Visit&& visit) {
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = at;
    if (text[at] == '\'') end += contraction_length(text, at);
    if (end == at) {
      std::size_t const first = at + (text[at] == ' ' && at + 1 < text.size());
      ClassifiedCharacter const character = character_at(text, first);
      end = character.kind == CharacterClass::Space ? end_of_space(text, at)
                                                    : end_of_run(text, first + character.length, character.kind);
    }
    visit(text.substr(at, end - at));
    at = end;
  }
}

/// Calls `visit(piece)` for the numbers and for what lies between them, in order.
template <class Visit>
void split_digits(std::string_view text, DigitSplit rule, Visit&& visit) {
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size();) {
    ClassifiedCharacter const character = character_at(text, at);
    std::size_t end = at + character.length;
    if (character.kind == CharacterClass::Number) {
      if (rule == DigitSplit::Runs) end = end_of_run(text, end, CharacterClass::Number);
      if (begin < at) visit(text.substr(begin, at - begin));
      visit(text.substr(at, end - at));
      begin = end;
    }
    at = end;
  }
  if (begin < text.size()) visit(text.substr(begin));
}

}  // namespace detail

/// The class of a code point: general categories L and N and the property White_Space.
[[nodiscard]] constexpr CharacterClass classify(char32_t code_point) noexcept {
  return code_point < 128 ? detail::ascii_classes[code_point] : detail::classify_by_tables(code_point);
}

/// Calls `visit(std::string_view word)` for each word of the text, in order; no word is empty.
template <class Visit>
void split_text(std::string_view text, SplitRules rules, Visit&& visit) {
  auto const visit_piece = [&](std::string_view piece) {
    if (rules.split_words) {
      detail::split_words(piece, visit);
    } else {
      visit(piece);
    }
  };
  if (rules.digits == DigitSplit::None) {
    if (!text.empty()) visit_piece(text);
  } else {
    detail::split_digits(text, rules.digits, visit_piece);
  }
}

}  // namespace mor::io
