// SPDX-License-Identifier: Apache-2.0
/// @file
/// Remembers, within one call that encodes a text, where a word was last seen and which tokens it became.
#pragma once

#include "mor/core/types.hpp"
#include "mor/io/bpe.hpp"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace mor::io::detail {

/// A direct-mapped table from words to ranges of the output. It belongs to one call, so encoding stays const and safe
/// to run in several threads; a word that meets another in its slot is simply encoded again.
class WordCache {
 public:
  /// @param text_size  bytes to be encoded; short texts are not worth a table
  explicit WordCache(std::size_t text_size) {
    if (text_size >= 512) entries_.resize(std::bit_ceil(std::clamp<std::size_t>(text_size / 16, 64, 16384)));
  }

  struct Entry {
    std::string_view word;
    std::size_t begin = 0, count = 0;  ///< the word's tokens in the output

    [[nodiscard]] bool holds(std::string_view other) const noexcept { return word == other; }
  };

  /// The slot of a word, which may hold another one or none (an empty word); nullptr when the word is not to be cached.
  [[nodiscard]] Entry* slot(std::string_view word) noexcept {
    if (entries_.empty() || word.size() > short_word_length) return nullptr;
    return &entries_[hash(word) & (entries_.size() - 1)];
  }

 private:
  [[nodiscard]] static std::size_t hash(std::string_view word) noexcept {
    std::uint64_t state = word.size();
    while (!word.empty()) {
      std::uint64_t block = 0;
      std::size_t const count = std::min<std::size_t>(word.size(), sizeof block);
      std::memcpy(&block, word.data(), count);
      state = mix_bits(state ^ block);
      word.remove_prefix(count);
    }
    return static_cast<std::size_t>(state);
  }

  std::vector<Entry> entries_;
};

}  // namespace mor::io::detail
