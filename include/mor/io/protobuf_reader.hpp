// SPDX-License-Identifier: Apache-2.0
/// @file
/// Walks through a message in the wire format of protocol buffers, strictly: every length is checked against what is
/// left, and every error names the file and the byte.
#pragma once

#include "mor/core/error.hpp"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace mor::io::detail {

/// One message. Call `next`, then exactly one of the `read` functions or `skip` for the field it found.
class ProtobufReader {
 public:
  /// @param first_byte  where `message` lies in the file
  ProtobufReader(std::string_view message, std::string const& file, std::size_t first_byte = 0)
      : message_(message), file_(file), first_byte_(first_byte) {}

  /// Goes to the next field. @return false at the end of the message
  [[nodiscard]] bool next() {
    field_at_ = at_;
    if (at_ == message_.size()) return false;
    std::uint64_t const tag = varint();
    field_ = tag >> 3;
    wire_ = static_cast<unsigned>(tag & 7);
    if (field_ == 0 || field_ > 0x1FFFFFFF)
      refuse("field number out of range", "1 to 536870911", std::to_string(field_));
    if (wire_ == 3 || wire_ == 4 || wire_ > 5) refuse("unknown wire type", "0, 1, 2 or 5", std::to_string(wire_));
    return true;
  }

  [[nodiscard]] std::uint64_t field() const noexcept { return field_; }

  /// @param name  of the field, for errors
  [[nodiscard]] std::uint64_t read_integer(char const* name) {
    expect_wire(0, name);
    return varint();
  }
  [[nodiscard]] bool read_boolean(char const* name) { return read_integer(name) != 0; }
  [[nodiscard]] float read_float(char const* name) {
    expect_wire(5, name);
    std::uint32_t value = 0;
    std::string_view const bytes = take(4);
    for (std::size_t i = 0; i < 4; ++i) value |= std::uint32_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
    return std::bit_cast<float>(value);
  }
  /// Text, bytes, or a message within this one.
  [[nodiscard]] std::string_view read_bytes(char const* name) {
    expect_wire(2, name);
    return take(varint());
  }
  [[nodiscard]] ProtobufReader read_message(char const* name) {
    std::string_view const bytes = read_bytes(name);
    return ProtobufReader(bytes, file_, first_byte_ + at_ - bytes.size());
  }
  void skip() {
    if (wire_ == 0) (void)varint();
    if (wire_ == 1) (void)take(8);
    if (wire_ == 2) (void)take(varint());
    if (wire_ == 5) (void)take(4);
  }

  /// The place of the current field, for errors.
  [[nodiscard]] std::string where() const { return file_ + ": byte " + std::to_string(first_byte_ + field_at_); }

  /// An error at the current field.
  [[noreturn]] void refuse(std::string what, std::string expected, std::string got,
                           ErrorCode code = ErrorCode::MalformedFile) const {
    fail(code, std::move(what), where(), std::move(expected), std::move(got));
  }

 private:
  void expect_wire(unsigned wire, char const* name) const {
    if (wire_ == wire) return;
    refuse(std::string(name) + " has the wrong wire type", std::to_string(wire), std::to_string(wire_));
  }

  [[nodiscard]] std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      std::uint64_t const byte = static_cast<unsigned char>(take(1)[0]);
      if (shift == 63 && byte > 1) break;
      value |= (byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    refuse("an integer is too long", "at most 64 bits", "more");
  }

  [[nodiscard]] std::string_view take(std::uint64_t count) {
    std::size_t const left = message_.size() - at_;
    if (count > left) {
      refuse("the file ends inside a field", std::to_string(count) + " bytes", std::to_string(left));
    }
    std::string_view const bytes = message_.substr(at_, static_cast<std::size_t>(count));
    at_ += bytes.size();
    return bytes;
  }

  std::string_view message_;
  std::string const& file_;
  std::size_t first_byte_;
  std::size_t at_ = 0, field_at_ = 0;
  std::uint64_t field_ = 0;
  unsigned wire_ = 0;
};

}  // namespace mor::io::detail
