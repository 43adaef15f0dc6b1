// SPDX-License-Identifier: Apache-2.0
/// @file
/// Remembers, within one call that encodes a text, which tokens a word became. Short words only, kept whole in one
/// cache line together with their tokens: a hit touches nothing else.
#pragma once

#include "mor/core/types.hpp"
#include "mor/io/bpe.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace mor::io::detail {

/// The bytes of a word of 1 to 16 bytes as two integers, which overlap where it has less than 16. Words of the same
/// length are equal when these are.
struct WordKey {
  static constexpr std::size_t longest = 16;

  std::uint64_t first = 0, last = 0;
  std::uint32_t length = 0;  ///< 0: the word is too long, or empty

  explicit WordKey(std::string_view word) noexcept {
    std::size_t const size = word.size();
    if (size == 0 || size > longest) return;
    length = static_cast<std::uint32_t>(size);
    if (size >= 8) {
      first = load<std::uint64_t>(word.data());
      last = load<std::uint64_t>(word.data() + size - 8);
    } else if (size >= 4) {
      first = load<std::uint32_t>(word.data());
      last = load<std::uint32_t>(word.data() + size - 4);
    } else {
      auto const byte = [&](std::size_t at) { return std::uint64_t{static_cast<unsigned char>(word[at])}; };
      first = byte(0) | byte(size / 2) << 8 | byte(size - 1) << 16;
    }
  }

  [[nodiscard]] std::size_t hash() const noexcept {
    return static_cast<std::size_t>(mix_bits(first + (last ^ length) * 0x9E3779B97F4A7C15u));
  }

 private:
  template <class Integer>
  [[nodiscard]] static std::uint64_t load(char const* at) noexcept {
    Integer value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
};

/// A table from words to their tokens. It belongs to one call, so encoding stays const and safe to run in several
/// threads; a word that meets another in its slot is simply encoded again.
class WordCache {
 public:
  /// @param text_size  bytes to be encoded; short texts are not worth a table
  explicit WordCache(std::size_t text_size) {
    if (text_size >= 512) entries_.resize(std::bit_ceil(std::clamp<std::size_t>(text_size / 32, 64, 16384)));
  }

  struct Entry {
    std::uint64_t first = 0, last = 0;
    std::uint16_t length = 0, count = 0;  ///< bytes of the word, and how many tokens it became
    std::array<Token, 11> tokens{};

    [[nodiscard]] bool holds(WordKey const& key) const noexcept {
      return first == key.first && last == key.last && length == key.length;
    }
    [[nodiscard]] std::span<Token const> ids() const noexcept { return {tokens.data(), count}; }

    /// Replaces what was here, unless the word has too many tokens.
    void keep(WordKey const& key, std::span<Token const> ids) noexcept {
      if (ids.size() > tokens.size()) return;
      first = key.first;
      last = key.last;
      length = static_cast<std::uint16_t>(key.length);
      count = static_cast<std::uint16_t>(ids.size());
      std::copy(ids.begin(), ids.end(), tokens.begin());
    }
  };

  /// The slot of a word, which may hold another one or none; nullptr when the word is not to be cached.
  [[nodiscard]] Entry* slot(WordKey const& key) noexcept {
    if (key.length == 0 || entries_.empty()) return nullptr;
    return &entries_[key.hash() & (entries_.size() - 1)];
  }

 private:
  std::vector<Entry> entries_;
};

}  // namespace mor::io::detail
