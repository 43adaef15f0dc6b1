// SPDX-License-Identifier: Apache-2.0
/// @file
/// CRC-32C (Castagnoli), the checksum of checkpoint files: finds every single-bit error and every burst of up to 32
/// bits. Eight table look-ups for eight bytes; source: Kounavis and Berry, "Novel table lookup-based algorithms for
/// high-performance CRC generation", IEEE Transactions on Computers 57(11), 2008.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace mor::train {

namespace detail {

using Crc32cTables = std::array<std::array<std::uint32_t, 256>, 8>;

/// Table k maps a byte to its contribution when k more bytes follow it in the block.
[[nodiscard]] constexpr Crc32cTables make_crc32c_tables() {
  constexpr std::uint32_t polynomial = 0x82F63B78U;  // 0x1EDC6F41 with its bits reversed
  Crc32cTables tables{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1U) ^ ((value & 1U) != 0 ? polynomial : 0U);
    tables[0][byte] = value;
  }
  for (std::size_t k = 1; k < 8; ++k) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      std::uint32_t const previous = tables[k - 1][byte];
      tables[k][byte] = (previous >> 8U) ^ tables[0][previous & 0xffU];
    }
  }
  return tables;
}

inline constexpr Crc32cTables crc32c_tables = make_crc32c_tables();

}  // namespace detail

/// A checksum that takes its bytes piece by piece.
class Crc32c {
 public:
  void update(std::span<std::byte const> bytes) {
    auto const& table = detail::crc32c_tables;
    std::uint32_t crc = state_;
    while (bytes.size() >= 8) {
      std::uint32_t const low = crc ^ little_endian(bytes.data());
      std::uint32_t const high = little_endian(bytes.data() + 4);
      crc = table[7][low & 0xffU] ^ table[6][(low >> 8U) & 0xffU] ^ table[5][(low >> 16U) & 0xffU] ^
            table[4][low >> 24U] ^ table[3][high & 0xffU] ^ table[2][(high >> 8U) & 0xffU] ^
            table[1][(high >> 16U) & 0xffU] ^ table[0][high >> 24U];
      bytes = bytes.subspan(8);
    }
    for (std::byte const byte : bytes) {
      crc = (crc >> 8U) ^ table[0][(crc ^ std::to_integer<std::uint32_t>(byte)) & 0xffU];
    }
    state_ = crc;
  }

  /// The checksum of everything given so far.
  [[nodiscard]] std::uint32_t value() const { return ~state_; }

 private:
  static std::uint32_t little_endian(std::byte const* at) {
    return std::to_integer<std::uint32_t>(at[0]) | std::to_integer<std::uint32_t>(at[1]) << 8U |
           std::to_integer<std::uint32_t>(at[2]) << 16U | std::to_integer<std::uint32_t>(at[3]) << 24U;
  }

  std::uint32_t state_ = 0xffffffffU;
};

/// The checksum of one piece of memory.
[[nodiscard]] inline std::uint32_t crc32c(std::span<std::byte const> bytes) {
  Crc32c checksum;
  checksum.update(bytes);
  return checksum.value();
}

}  // namespace mor::train
