// SPDX-License-Identifier: Apache-2.0
#include "mor/core/utf8.hpp"
#include "mor/io/byte_level.hpp"
#include "mor/io/pretokenizer.hpp"
#include "support/catch.hpp"

#include <cstddef>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

using mor::io::CharacterClass;
using mor::io::classify;
using mor::io::DigitSplit;
using mor::io::SplitRules;
using Words = std::vector<std::string>;

namespace {

Words split(std::string_view text, SplitRules rules = {}) {
  Words words;
  mor::io::split_text(text, rules, [&](std::string_view word) { words.emplace_back(word); });
  return words;
}

/// A character of the text for the definition below: its class, its first byte, its length.
struct Character {
  CharacterClass kind;
  char first;
  std::size_t length;
};

/// The rule of GPT-2 by its definition: at each place try the alternatives of the regular expression in order, the
/// greedy ones from the longest match down.
class Definition {
 public:
  explicit Definition(std::string const& text) : text_(text) {
    for (std::size_t at = 0; at < text.size();) {
      mor::Utf8Step const step = mor::decode_utf8(text, at);
      bool const valid = step.status == mor::Utf8Status::Valid;
      std::size_t const length = valid ? step.length : 1;
      characters_.push_back({valid ? classify(step.code_point) : CharacterClass::Other, text[at], length});
      at += length;
    }
  }

  Words split() const {
    Words words;
    for (std::size_t at = 0, byte = 0; at < characters_.size();) {
      std::size_t length = 0;
      for (std::size_t count = match(at); count > 0; --count) length += characters_[at++].length;
      words.push_back(text_.substr(byte, length));
      byte += length;
    }
    return words;
  }

 private:
  std::size_t run(std::size_t at, CharacterClass kind) const {
    std::size_t count = 0;
    while (at + count < characters_.size() && characters_[at + count].kind == kind) ++count;
    return count;
  }

  bool spells(std::size_t at, std::string_view wanted) const {
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if (at + i >= characters_.size() || characters_[at + i].first != wanted[i]) return false;
    }
    return true;
  }

  std::size_t match(std::size_t at) const {
    for (std::string_view const contraction : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
      if (spells(at, contraction)) return contraction.size();
    }
    for (CharacterClass const kind : {CharacterClass::Letter, CharacterClass::Number, CharacterClass::Other}) {
      for (std::size_t const space : {std::size_t(1), std::size_t(0)}) {
        if (space == 1 && characters_[at].first != ' ') continue;
        if (std::size_t const count = run(at + space, kind); count > 0) return space + count;
      }
    }
    std::size_t const spaces = run(at, CharacterClass::Space);
    for (std::size_t count = spaces; count > 0; --count) {
      bool const at_end = at + count == characters_.size();
      if (at_end || characters_[at + count].kind == CharacterClass::Space) return count;
    }
    return spaces;
  }

  std::string const& text_;
  std::vector<Character> characters_;
};

}  // namespace

TEST_CASE("text is split as GPT-2 does") {
  REQUIRE(split("").empty());
  REQUIRE(split("Hello world!") == Words{"Hello", " world", "!"});
  REQUIRE(split(" Hello  World") == Words{" Hello", " ", " World"});
  REQUIRE(split("it's we'll you're I'm he'd they've don't") ==
          Words{"it", "'s", " we", "'ll", " you", "'re", " I", "'m", " he", "'d", " they", "'ve", " don", "'t"});
  REQUIRE(split("'S 's ' 'sx") == Words{"'", "S", " '", "s", " '", " '", "sx"});
  REQUIRE(split("''s'") == Words{"''", "s", "'"});
  REQUIRE(split("'") == Words{"'"});
  REQUIRE(split("'l 'r") == Words{"'", "l", " '", "r"});
  REQUIRE(split("abc123 456def") == Words{"abc", "123", " 456", "def"});
  REQUIRE(split("a\n\n b\t\tc  ") == Words{"a", "\n\n", " b", "\t", "\t", "c", "  "});
  REQUIRE(split("a \n") == Words{"a", " \n"});
  REQUIRE(split("x = y+1;") == Words{"x", " =", " y", "+", "1", ";"});
  REQUIRE(split("\xC3\x84pfel \xC2\xBD\xC2\xB2") == Words{"\xC3\x84pfel", " \xC2\xBD\xC2\xB2"});
  REQUIRE(split("a\xC2\xA0 b") == Words{"a", "\xC2\xA0", " b"});          // no-break space
  REQUIRE(split("a\xE3\x80\x80" "b") == Words{"a", "\xE3\x80\x80", "b"});  // ideographic space
  REQUIRE(split("a\x1C" "b") == Words{"a", "\x1C", "b"});                   // not White_Space
  REQUIRE(split("e\xCC\x81") == Words{"e", "\xCC\x81"});                    // a combining mark is no letter
}

TEST_CASE("invalid bytes are characters like any other sign") {
  REQUIRE(split("a\xFF\xFE b") == Words{"a", "\xFF\xFE", " b"});
  REQUIRE(split("a \xC3") == Words{"a", " \xC3"});
  REQUIRE(split("\xE4\xB8 \xAD!") == Words{"\xE4\xB8", " \xAD!"});
  REQUIRE(split("\xED\xA0\x80x") == Words{"\xED\xA0\x80", "x"});
}

TEST_CASE("digits are cut out first, one by one or in runs") {
  SplitRules const individual{DigitSplit::Individual, true};
  SplitRules const runs{DigitSplit::Runs, true};
  REQUIRE(split("in 1775, 42", individual) == Words{"in", " ", "1", "7", "7", "5", ",", " ", "4", "2"});
  REQUIRE(split("in 1775, 42", runs) == Words{"in", " ", "1775", ",", " ", "42"});
  REQUIRE(split("\xC2\xBD\xD9\xA1", individual) == Words{"\xC2\xBD", "\xD9\xA1"});  // any number, not only 0 to 9
  REQUIRE(split("a  1", individual) == Words{"a", "  ", "1"});                     // the space cannot join the digit
  REQUIRE(split("a 12 b", {DigitSplit::None, false}) == Words{"a 12 b"});
  REQUIRE(split("a 12 b", {DigitSplit::Runs, false}) == Words{"a ", "12", " b"});
}

TEST_CASE("splitting agrees with the regular expression's definition, and loses nothing") {
  std::vector<std::string> const parts = {"a", "B", "1", " ", " ", "\n", "\t", "'", "'s", "'ll", "'re", "!", "\xC3\xA9",
                                          "\xC2\xBD", "\xC2\xA0", "\xE2\x80\x8B", "\xE4\xB8\xAD", "\xF0\x9F\xA6\x99",
                                          "\xFF", "\xE4\xB8", "\xE3\x80\x80", "\xCC\x81", "\xE2\x80\xA8"};
  std::mt19937 random(9);
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (std::size_t count = random() % 14; count > 0; --count) text += parts[random() % parts.size()];
    Words const words = split(text);
    REQUIRE(words == Definition(text).split());
    std::string joined;
    for (std::string const& word : words) joined += word;
    REQUIRE(joined == text);
  }
}

TEST_CASE("characters have the classes of Unicode") {
  for (char32_t const letter : {U'A', U'z', U'\u00AA', U'\u00B5', U'\u00E9', U'\u0416', U'\u05D0', U'\u4E2D', U'\uAC00',
                                U'\U0001D400', U'\U00020000', U'\U0003134A'}) {
    REQUIRE(classify(letter) == CharacterClass::Letter);
  }
  for (char32_t const number : {U'0', U'9', U'\u00B2', U'\u00BD', U'\u0661', U'\u2167', U'\u3007', U'\U0001D7CE'}) {
    REQUIRE(classify(number) == CharacterClass::Number);
  }
  for (char32_t const space : {U' ', U'\t', U'\n', U'\v', U'\f', U'\r', U'\u0085', U'\u00A0', U'\u1680', U'\u2003',
                               U'\u2028', U'\u2029', U'\u202F', U'\u205F', U'\u3000'}) {
    REQUIRE(classify(space) == CharacterClass::Space);
  }
  for (char32_t const other : {U'\0', U'!', U'_', U'\x1C', U'\x7F', U'\u00AD', U'\u0301', U'\u200B', U'\u20AC',
                               U'\uFEFF', U'\uFFFD', U'\U0001F999', U'\U0010FFFF'}) {
    REQUIRE(classify(other) == CharacterClass::Other);
  }
}

TEST_CASE("the tables of Unicode are ascending and disjoint") {
  auto const in_order = [](auto const& ranges) {
    char32_t previous = 0;
    bool good = true;
    for (auto const& range : ranges) {
      good = good && range.first > previous && range.last >= range.first;
      previous = range.last + 1;
    }
    return good && previous <= 0x110000;
  };
  REQUIRE(in_order(mor::io::detail::unicode_letters));
  REQUIRE(in_order(mor::io::detail::unicode_numbers));
  REQUIRE(in_order(mor::io::detail::unicode_spaces));
}

TEST_CASE("the byte-level alphabet spells each byte as a printable character of its own") {
  std::set<std::string> seen;
  for (int byte = 0; byte < 256; ++byte) {
    std::string const bytes(1, static_cast<char>(byte));
    std::string const text = mor::io::to_byte_level(bytes);
    REQUIRE(mor::valid_utf8(text));
    REQUIRE(mor::io::from_byte_level(text) == bytes);
    seen.insert(text);
  }
  REQUIRE(seen.size() == 256);
  REQUIRE(mor::io::to_byte_level("Hi\n \xC3\xA9") == "Hi\xC4\x8A\xC4\xA0\xC3\x83\xC2\xA9");  // HiĊĠÃ©
  REQUIRE(mor::io::to_byte_level("\x7F\xA0\xAD") == "\xC4\xA1\xC5\x82\xC5\x83");              // the last three
  for (char const* outside : {" ", "\n", "\xC5\x84", "\xE4\xB8\xAD", "\xC2\xA0", "\xFF", "\xC4"}) {
    REQUIRE_FALSE(mor::io::from_byte_level(outside).has_value());
  }
}
