// SPDX-License-Identifier: Apache-2.0
/// @file
/// A pull scanner for JSON whose structure is known in advance: the caller says what must come next. It builds no
/// document tree, holds one string at a time, and knows the byte offset of everything.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"
#include "mor/core/types.hpp"
#include "mor/core/utf8.hpp"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

namespace mor::io::detail {

/// Appends a code point (not a surrogate, at most U+10FFFF) as UTF-8.
inline void append_utf8(std::string& out, char32_t code) {
  auto const byte = [&out](char32_t value) { out += static_cast<char>(static_cast<unsigned char>(value)); };
  if (code < 0x80) {
    byte(code);
  } else if (code < 0x800) {
    byte(0xc0 | (code >> 6));
    byte(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    byte(0xe0 | (code >> 12));
    byte(0x80 | ((code >> 6) & 0x3f));
    byte(0x80 | (code & 0x3f));
  } else {
    byte(0xf0 | (code >> 18));
    byte(0x80 | ((code >> 12) & 0x3f));
    byte(0x80 | ((code >> 6) & 0x3f));
    byte(0x80 | (code & 0x3f));
  }
}

/// Scans a text from front to back. All refusals are MalformedFile and name the file, the byte and the subject.
class JsonScanner {
 public:
  /// @param text          the JSON text
  /// @param file          the name that errors carry
  /// @param first_byte    byte offset of the text in the file
  /// @param subject_kind  what `subject` names, for messages
  JsonScanner(std::string_view text, std::string const& file, std::size_t first_byte, std::string subject_kind)
      : text_(text), file_(file), first_byte_(first_byte), subject_kind_(std::move(subject_kind)) {}

  std::string_view subject;  ///< the part being read, named by every refusal; may be empty

  [[nodiscard]] std::size_t at() const noexcept { return at_; }
  [[nodiscard]] std::string const& file() const noexcept { return file_; }

  [[noreturn]] void refuse_at(std::size_t at, std::string what, std::string expected, std::string got,
                              ErrorCode code = ErrorCode::MalformedFile) const {
    std::string where = file_ + ": byte " + std::to_string(first_byte_ + at);
    if (!subject.empty()) where += ": " + subject_kind_ + " " + printable(subject);
    fail(code, std::move(what), std::move(where), std::move(expected), std::move(got));
  }
  [[noreturn]] void refuse(std::string what, std::string expected, std::string got) const {
    refuse_at(at_, std::move(what), std::move(expected), std::move(got));
  }

  /// What comes next, for the `got` part of an error.
  [[nodiscard]] std::string upcoming() const {
    return at_ < text_.size() ? printable(text_.substr(at_), 20) : "the end of the header";
  }

  void skip_space() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) {
      ++at_;
    }
  }

  /// Takes `symbol` if it is the next thing after white space.
  [[nodiscard]] bool take(char symbol) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != symbol) return false;
    ++at_;
    return true;
  }
  void expect(char symbol, std::string_view of) {
    if (!take(symbol)) refuse(std::string(of) + " is not as the format demands", std::string(1, symbol), upcoming());
  }

  /// Reads `{ "key": value, ... }`; `field(key, byte of the key)` reads each value.
  template <class Field>
  void object(std::string_view what, std::size_t longest_key, Field&& field) {
    expect('{', what);
    if (take('}')) return;
    for (;;) {
      skip_space();
      std::size_t const key_at = at_;
      std::string key = read_string(what, longest_key);
      expect(':', what);
      field(std::move(key), key_at);
      if (take('}')) return;
      expect(',', what);
    }
  }

  /// A JSON string, unescaped; refused as soon as it is longer than `longest` bytes.
  [[nodiscard]] std::string read_string(std::string_view what, std::size_t longest) {
    skip_space();
    std::size_t const begin = at_;
    expect('"', what);
    std::string out;
    for (;;) {
      std::size_t run = at_;
      while (run < text_.size() && is_plain(text_[run]) && run - at_ <= longest) ++run;
      out.append(text_, at_, run - at_);
      at_ = run;
      if (out.size() > longest) {
        refuse_at(begin, "a string in " + std::string(what) + " is too long",
                  "at most " + std::to_string(longest) + " bytes", "more");
      }
      if (at_ == text_.size())
        refuse("a string in " + std::string(what) + " does not end", "a closing quote", upcoming());
      if (text_[at_] == '"') break;
      if (text_[at_] == '\\') {
        read_escape(out);
      } else {
        read_multibyte(out, what);
      }
    }
    ++at_;
    return out;
  }

  /// A whole number of at most 63 bits, digits only.
  [[nodiscard]] std::uint64_t read_integer(std::string_view what) {
    skip_space();
    std::size_t const begin = at_;
    std::uint64_t value = 0;
    bool fits = true;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      auto const digit = static_cast<std::uint64_t>(text_[at_] - '0');
      fits = fits && !__builtin_mul_overflow(value, std::uint64_t{10}, &value) &&
             !__builtin_add_overflow(value, digit, &value);
    }
    std::size_t const digits = at_ - begin;
    char const next = at_ < text_.size() ? text_[at_] : ' ';
    bool const leading_zero = digits > 1 && text_[begin] == '0';
    if (digits == 0 || leading_zero || next == '.' || next == 'e' || next == 'E') {
      at_ = begin;
      refuse(std::string(what) + " is not a whole number", "digits", upcoming());
    }
    if (!fits || value > std::uint64_t(std::numeric_limits<Index>::max())) {
      refuse_at(begin, std::string(what) + " is out of range", "at most 9223372036854775807",
                printable(text_.substr(begin, digits), 30));
    }
    return value;
  }

  /// Refuses anything but white space up to the end.
  void expect_end(std::string_view of) {
    skip_space();
    if (at_ != text_.size()) refuse("text after the end of " + std::string(of), "spaces or nothing", upcoming());
  }

 private:
  [[nodiscard]] static bool is_plain(char symbol) {
    auto const byte = static_cast<unsigned char>(symbol);
    return byte >= 0x20 && byte < 0x80 && symbol != '"' && symbol != '\\';
  }

  void read_multibyte(std::string& out, std::string_view what) {
    Utf8Step const step = decode_utf8(text_, at_);
    if (static_cast<unsigned char>(text_[at_]) < 0x20)
      refuse("a string in " + std::string(what) + " holds a control character", "", upcoming());
    if (step.status != Utf8Status::Valid)
      refuse("a string in " + std::string(what) + " is not valid UTF-8", "", upcoming());
    out.append(text_, at_, step.length);
    at_ += step.length;
  }

  void read_escape(std::string& out) {
    static constexpr std::string_view letters = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
    char const letter = at_ + 1 < text_.size() ? text_[at_ + 1] : '\0';
    if (letter != 'u') {
      std::size_t const place = letters.find(letter);
      if (letter == '\0' || place == std::string_view::npos) refuse("unknown escape in a string", "", upcoming());
      out += meanings[place];
      at_ += 2;
      return;
    }
    char32_t code = read_hex(at_);
    std::size_t length = 6;
    if (code >= 0xd800 && code < 0xdc00 && text_.substr(at_ + 6, 2) == "\\u") {
      char32_t const low = read_hex(at_ + 6);
      if (low >= 0xdc00 && low < 0xe000) {
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        length = 12;
      }
    }
    if (code >= 0xd800 && code < 0xe000) refuse("half of a surrogate pair in a string", "", upcoming());
    append_utf8(out, code);
    at_ += length;
  }

  /// The value of `\uXXXX` at the place given.
  [[nodiscard]] char32_t read_hex(std::size_t place) const {
    char32_t code = 0;
    for (std::size_t i = place + 2; i < place + 6; ++i) {
      char const digit = i < text_.size() ? text_[i] : '\0';
      char32_t value = 16;
      if (digit >= '0' && digit <= '9') value = static_cast<char32_t>(digit - '0');
      if (digit >= 'a' && digit <= 'f') value = static_cast<char32_t>(digit - 'a' + 10);
      if (digit >= 'A' && digit <= 'F') value = static_cast<char32_t>(digit - 'A' + 10);
      if (value == 16) refuse("an escape needs four hexadecimal digits", "", upcoming());
      code = code * 16 + value;
    }
    return code;
  }

  std::string_view text_;
  std::string const& file_;
  std::size_t first_byte_;
  std::string subject_kind_;
  std::size_t at_ = 0;
};

}  // namespace mor::io::detail
