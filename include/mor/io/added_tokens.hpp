// SPDX-License-Identifier: Apache-2.0
/// @file
/// Tokens that are looked for in the text before it is split into words, such as `<|endoftext|>`.
#pragma once

#include "mor/core/types.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mor::io {

/// A token that stands for exactly its own text, outside the merges.
struct AddedToken {
  Token id = 0;
  std::string content;
  bool special = true;      ///< a control token: `encode` may be told to ignore it, `decode` to omit it
  bool normalized = false;  ///< looked for after the other added tokens, as Hugging Face does
  bool operator==(AddedToken const&) const = default;
};

namespace detail {

/// Finds added tokens in a text: the leftmost match, and of those that begin there the longest.
class AddedTokenMatcher {
 public:
  /// A match; `length` is 0 when there is none.
  struct Match {
    std::size_t begin, length;
    Token id;
  };

  /// @param tokens  not empty; of equal ones the first counts
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens = {}) : tokens_(std::move(tokens)) {
    auto const less = [](AddedToken const& a, AddedToken const& b) { return a.content < b.content; };
    auto const same = [](AddedToken const& a, AddedToken const& b) { return a.content == b.content; };
    std::stable_sort(tokens_.begin(), tokens_.end(), less);
    tokens_.erase(std::unique(tokens_.begin(), tokens_.end(), same), tokens_.end());
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      auto& [begin, end] = by_first_byte_[static_cast<unsigned char>(tokens_[i].content[0])];
      if (end == 0) begin = i;
      end = i + 1;
    }
  }

  [[nodiscard]] Match find(std::string_view text, std::size_t from) const {
    if (!tokens_.empty()) {
      for (std::size_t at = from; at < text.size(); ++at) {
        if (by_first_byte_[static_cast<unsigned char>(text[at])].second == 0) continue;
        Match const match = match_at(text, at);
        if (match.length > 0) return match;
      }
    }
    return {text.size(), 0, 0};
  }

 private:
  /// Narrows the sorted range of tokens that agree with the text, byte by byte.
  [[nodiscard]] Match match_at(std::string_view text, std::size_t at) const {
    auto [begin, end] = by_first_byte_[static_cast<unsigned char>(text[at])];
    Match best{at, 0, 0};
    for (std::size_t depth = 1; begin < end; ++depth) {
      if (tokens_[begin].content.size() == depth) {  // the shortest of the range sorts first
        best = {at, depth, tokens_[begin].id};
        ++begin;
      }
      if (at + depth >= text.size()) break;
      auto const wanted = static_cast<unsigned char>(text[at + depth]);
      auto const byte_of = [&](AddedToken const& token) { return static_cast<unsigned char>(token.content[depth]); };
      auto const first = tokens_.begin() + std::ptrdiff_t(begin), last = tokens_.begin() + std::ptrdiff_t(end);
      auto const low = std::partition_point(first, last, [&](AddedToken const& t) { return byte_of(t) < wanted; });
      auto const high = std::partition_point(low, last, [&](AddedToken const& t) { return byte_of(t) == wanted; });
      begin = static_cast<std::size_t>(low - tokens_.begin());
      end = static_cast<std::size_t>(high - tokens_.begin());
    }
    return best;
  }

  std::vector<AddedToken> tokens_;  ///< sorted by content
  std::array<std::pair<std::size_t, std::size_t>, 256> by_first_byte_{};  ///< range of tokens_; end 0: none
};

}  // namespace detail
}  // namespace mor::io
