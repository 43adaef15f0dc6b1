// SPDX-License-Identifier: Apache-2.0
#include "mor/core/utf8.hpp"
#include "support/catch.hpp"

#include <cstddef>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

using mor::first_invalid_utf8;
using mor::to_valid_utf8;
using mor::Utf8Status;
using mor::Utf8Stream;
using mor::valid_utf8;

namespace {

/// UTF-8 by definition, from the number of bits; also of surrogates, which UTF-8 excludes.
std::string encode(char32_t c) {
  auto const tail = [&](int shift) { return static_cast<char>(0x80u | (c >> shift & 0x3Fu)); };
  if (c < 0x80) return {static_cast<char>(c)};
  if (c < 0x800) return {static_cast<char>(0xC0u | c >> 6), tail(0)};
  if (c < 0x10000) return {static_cast<char>(0xE0u | c >> 12), tail(6), tail(0)};
  return {static_cast<char>(0xF0u | c >> 18), tail(12), tail(6), tail(0)};
}

std::string const replacement(mor::utf8_replacement);

/// Text of each kind: one to four bytes a character, combining marks, every sort of invalid bytes, unfinished ends.
std::vector<std::string> samples() {
  return {"",
          "plain",
          "h\xC3\xA9llo \xE2\x82\xAC \xF0\x9F\xA6\x99!",
          "e\xCC\x81 \xF0\x9F\x98\xB6\xE2\x80\x8D\xF0\x9F\x8C\xAB\xEF\xB8\x8F",
          "\x80\xBF\xC0\xAF\xE0\x80\x80\xED\xA0\x80\xF4\x90\x80\x80\xFF\xFE",
          "a\xF1\x80\x80\xE1\x80\xC2"
          "b\x80"
          "c\x80\xBF"
          "d",
          "end\xF0\x9F\xA6",
          "end\xE2\x82",
          "end\xC3"};
}

}  // namespace

TEST_CASE("every code point is valid UTF-8 and decodes to itself, except the surrogates") {
  std::size_t wrong = 0;
  for (char32_t c = 0; c < 0x110000; ++c) {
    std::string const text = encode(c);
    mor::Utf8Step const step = mor::decode_utf8(text, 0);
    bool const surrogate = c >= 0xD800 && c < 0xE000;
    bool const right = surrogate ? step.status == Utf8Status::Invalid && !valid_utf8(text)
                                 : step.status == Utf8Status::Valid && step.code_point == c &&
                                       step.length == text.size() && valid_utf8(text);
    wrong += !right;
  }
  REQUIRE(wrong == 0);
}

TEST_CASE("exactly the well-formed sequences of three bytes are accepted") {
  std::size_t accepted = 0;
  std::string text(3, '\0');
  for (int first = 0xE0; first < 0xF0; ++first) {
    for (int rest = 0; rest < 0x10000; ++rest) {
      text[0] = static_cast<char>(first);
      text[1] = static_cast<char>(rest >> 8);
      text[2] = static_cast<char>(rest & 0xFF);
      accepted += valid_utf8(text);
    }
  }
  // The code points from U+0800 to U+FFFF without the 2048 surrogates; each has one spelling.
  REQUIRE(accepted == 0x10000 - 0x800 - 0x800);
}

TEST_CASE("the first invalid byte is named") {
  REQUIRE(first_invalid_utf8("") == std::nullopt);
  REQUIRE(first_invalid_utf8("h\xC3\xA9") == std::nullopt);
  REQUIRE(first_invalid_utf8("ab\x80") == 2u);
  REQUIRE(first_invalid_utf8("\xC3") == 0u);                  // unfinished
  REQUIRE(first_invalid_utf8("\xC3\xA9\xE2\x82") == 2u);      // unfinished
  REQUIRE(first_invalid_utf8("a\xC0\x80") == 1u);             // overlong
  REQUIRE(first_invalid_utf8("ab\xED\xA0\x80") == 2u);        // surrogate
  REQUIRE(first_invalid_utf8("a\xF4\x90\x80\x80") == 1u);     // beyond U+10FFFF
  REQUIRE(first_invalid_utf8(std::string_view("\0a", 2)) == std::nullopt);
}

TEST_CASE("each maximal invalid part becomes one replacement character") {
  std::string const r = replacement;
  // The examples of the Unicode standard, section 3.9, tables 3-8 to 3-11.
  REQUIRE(to_valid_utf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41") == r + r + r + r + r + r + r + r + "A");
  REQUIRE(to_valid_utf8("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41") == r + r + r + r + r + r + r + r + "A");
  REQUIRE(to_valid_utf8("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42") == r + r + r + r + r + "A" + r + r + "B");
  REQUIRE(to_valid_utf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41") == r + r + r + r + "A");
  REQUIRE(to_valid_utf8("end\xF0\x9F\xA6") == "end" + r);
}

TEST_CASE("a UTF-8 stream cut anywhere gives whole characters and always the same text") {
  for (std::string const& bytes : samples()) {
    std::string const whole = to_valid_utf8(bytes);
    REQUIRE(valid_utf8(whole));
    if (valid_utf8(bytes)) REQUIRE(whole == bytes);
    for (std::size_t first = 0; first <= bytes.size(); ++first) {
      for (std::size_t second = first; second <= bytes.size(); ++second) {
        Utf8Stream stream;
        std::string joined;
        for (std::string const& piece : {stream.push(std::string_view(bytes).substr(0, first)),
                                         stream.push(std::string_view(bytes).substr(first, second - first)),
                                         stream.push(std::string_view(bytes).substr(second)), stream.flush()}) {
          REQUIRE(valid_utf8(piece));
          joined += piece;
        }
        REQUIRE(joined == whole);
      }
    }
  }
}

TEST_CASE("a UTF-8 stream of single random bytes gives the text of the whole") {
  std::mt19937 random(7);
  std::string const alphabet = "aZ\x80\xBF\xC2\xC3\xE0\xA0\xE2\x82\xAC\xED\x9F\xF0\x90\x9F\xF4\x8F\xFF";
  for (int round = 0; round < 2000; ++round) {
    std::string bytes(1 + random() % 24, '\0');
    for (char& byte : bytes) byte = alphabet[random() % alphabet.size()];
    Utf8Stream stream;
    std::string joined;
    bool all_valid = true;
    for (char const byte : bytes) {
      std::string const piece = stream.push({&byte, 1});
      all_valid = all_valid && valid_utf8(piece) && stream.pending() <= 3;
      joined += piece;
    }
    joined += stream.flush();
    REQUIRE(all_valid);
    REQUIRE(joined == to_valid_utf8(bytes));
  }
}

TEST_CASE("a UTF-8 stream shows a character as soon as it is whole, and holds back nothing else") {
  Utf8Stream stream;
  REQUIRE(stream.push("a\xF0\x9F") == "a");
  REQUIRE(stream.pending() == 2);
  REQUIRE(stream.push("\xA6").empty());
  REQUIRE(stream.push("\x99z") == "\xF0\x9F\xA6\x99z");
  REQUIRE(stream.pending() == 0);
  REQUIRE(stream.push("\xE2\x82").empty());
  REQUIRE(stream.push("x") == replacement + "x");  // now definitely invalid
  REQUIRE(stream.push("\xC3").empty());
  REQUIRE(stream.flush() == replacement);
  REQUIRE(stream.flush().empty());
  REQUIRE(stream.push("\xA9") == replacement);  // nothing is left of the first stream
}
