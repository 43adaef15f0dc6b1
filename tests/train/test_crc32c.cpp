// SPDX-License-Identifier: Apache-2.0
#include "mor/train/crc32c.hpp"

#include "support/catch.hpp"

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <string_view>

namespace {

std::uint32_t checksum(std::string_view text) {
  return mor::train::crc32c(std::as_bytes(std::span<char const>(text.data(), text.size())));
}

/// Bit by bit, straight from the definition.
std::uint32_t reference(std::string_view text) {
  std::uint32_t crc = 0xffffffffU;
  for (char const c : text) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1U) != 0 ? (crc >> 1U) ^ 0x82F63B78U : crc >> 1U;
  }
  return ~crc;
}

TEST_CASE("CRC-32C gives the published check values") {
  CHECK(checksum("123456789") == 0xE3069283U);
  CHECK(checksum("") == 0x00000000U);
  CHECK(checksum(std::string(32, '\0')) == 0x8A9136AAU);  // RFC 3720, appendix B.4
  CHECK(checksum(std::string(32, '\xff')) == 0x62A8AB43U);
}

TEST_CASE("CRC-32C agrees with its definition for every length, and in pieces") {
  std::mt19937 random(1);
  for (std::size_t length = 0; length < 200; ++length) {
    std::string text;
    for (std::size_t i = 0; i < length; ++i) text += static_cast<char>(random());
    REQUIRE(checksum(text) == reference(text));
    std::size_t const cut = length == 0 ? 0 : random() % length;
    auto const bytes = std::as_bytes(std::span<char const>(text.data(), text.size()));
    mor::train::Crc32c pieces;
    pieces.update(bytes.first(cut));
    pieces.update(bytes.subspan(cut));
    REQUIRE(pieces.value() == reference(text));
  }
}

}  // namespace
