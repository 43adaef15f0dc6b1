// SPDX-License-Identifier: Apache-2.0
/// @file
/// Byte-pair encoding of one word: of all adjacent pairs of symbols that have a merge, the one listed first is merged,
/// the leftmost where it occurs more than once, until no pair has a merge.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <queue>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace mor::io {

/// Two adjacent tokens and the token they become. The position in the list of merges is the rank: lower goes first.
struct Merge {
  Token left = 0, right = 0, result = 0;
  bool same_rank = false;  ///< has the rank of the merge listed before it: of both, the leftmost in the text goes first
  bool operator==(Merge const&) const = default;
};

namespace detail {

/// Two token ids as one key.
[[nodiscard]] constexpr std::uint64_t pair_key(Token left, Token right) noexcept {
  return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
}

/// Spreads the bits of a key (the finalizer of splitmix64).
[[nodiscard]] constexpr std::uint64_t mix_bits(std::uint64_t key) noexcept {
  key = (key ^ (key >> 30)) * 0xBF58476D1CE4E5B9u;
  key = (key ^ (key >> 27)) * 0x94D049BB133111EBu;
  return key ^ (key >> 31);
}

/// From a pair of tokens to its rank, by open addressing in one flat array.
class MergeTable {
 public:
  static constexpr std::uint32_t no_merge = std::numeric_limits<std::uint32_t>::max();

  MergeTable() = default;

  /// @throws mor::error InvalidArgument when a pair occurs twice
  explicit MergeTable(std::span<Merge const> merges) : slots_(std::bit_ceil(2 * merges.size() + 1)) {
    std::uint32_t rank = 0;
    for (std::size_t i = 0; i < merges.size(); ++i) {
      Merge const& merge = merges[i];
      Slot& slot = slots_[find(pair_key(merge.left, merge.right))];
      if (slot.rank != no_merge) {
        fail(ErrorCode::InvalidArgument, "a merge repeats the pair of one before it", "merge " + std::to_string(i));
      }
      if (!merge.same_rank) rank = static_cast<std::uint32_t>(i);
      slot = {pair_key(merge.left, merge.right), rank, merge.result};
    }
  }

  /// Rank and result of the pair's merge; the rank is `no_merge` when it has none.
  [[nodiscard]] std::pair<std::uint32_t, Token> operator()(Token left, Token right) const noexcept {
    Slot const& slot = slots_[find(pair_key(left, right))];
    return {slot.rank, slot.result};
  }

 private:
  struct Slot {
    std::uint64_t key = 0;
    std::uint32_t rank = no_merge;  ///< no_merge: the slot is free
    Token result = 0;
  };

  /// The slot of the key, or the free slot where it would go; at most half of the slots are taken.
  [[nodiscard]] std::size_t find(std::uint64_t key) const noexcept {
    std::size_t const mask = slots_.size() - 1;
    std::size_t index = static_cast<std::size_t>(mix_bits(key)) & mask;
    while (slots_[index].rank != no_merge && slots_[index].key != key) index = (index + 1) & mask;
    return index;
  }

  std::vector<Slot> slots_ = std::vector<Slot>(1);
};

/// Words up to this length are merged by plain search: quadratic, but the fastest for the words of real text.
inline constexpr std::size_t short_word_length = 64;

/// Merges in place and returns the number of symbols left. At most `short_word_length` symbols.
inline std::size_t merge_short_word(MergeTable const& table, std::span<Token> symbols) {
  std::array<std::uint32_t, short_word_length> ranks;  // of the pair that begins at each symbol
  std::array<Token, short_word_length> results;
  std::size_t count = symbols.size();
  auto const look_up = [&](std::size_t i) {
    std::tie(ranks[i], results[i]) = table(symbols[i], symbols[i + 1]);
  };
  for (std::size_t i = 0; i + 1 < count; ++i) look_up(i);
  while (count > 1) {
    auto const* const best = std::min_element(ranks.data(), ranks.data() + count - 1);
    if (*best == MergeTable::no_merge) break;
    std::size_t const at = static_cast<std::size_t>(best - ranks.data());
    symbols[at] = results[at];
    // Symbol at + 1 goes, and with it the pair that began there.
    std::copy(symbols.begin() + std::ptrdiff_t(at) + 2, symbols.begin() + std::ptrdiff_t(count),
              symbols.begin() + std::ptrdiff_t(at) + 1);
    --count;
    if (at + 1 < count) {
      std::copy(ranks.data() + at + 2, ranks.data() + count, ranks.data() + at + 1);
      std::copy(results.data() + at + 2, results.data() + count, results.data() + at + 1);
      look_up(at);
    }
    if (at > 0) look_up(at - 1);
  }
  return count;
}

/// Merges a word of any length in O(n log n): a linked list of symbols and a heap of candidate merges, ordered by rank
/// and then by position, in which outdated candidates are recognised when they surface.
class LongWordMerger {
 public:
  LongWordMerger(MergeTable const& table, std::span<Token> symbols) : table_(table), symbols_(symbols) {
    if (symbols.size() >= none) {
      fail(ErrorCode::InvalidArgument, "a word is too long to encode", "byte-pair encoding", "less than 4 GiB");
    }
    auto const count = static_cast<std::uint32_t>(symbols.size());
    next_.resize(count);
    previous_.resize(count);
    std::vector<std::uint64_t> candidates;
    for (std::uint32_t i = 0; i < count; ++i) {
      next_[i] = i + 1 < count ? i + 1 : none;
      previous_[i] = i > 0 ? i - 1 : none;
      if (i + 1 == count) continue;
      std::uint32_t const rank = table(symbols[i], symbols[i + 1]).first;
      if (rank != MergeTable::no_merge) candidates.push_back(candidate(rank, i));
    }
    heap_ = Heap(std::greater<>(), std::move(candidates));
  }

  /// Merges in place and returns the number of symbols left.
  std::size_t run() {
    while (!heap_.empty()) {
      std::uint64_t const top = heap_.top();
      heap_.pop();
      auto const at = static_cast<std::uint32_t>(top);
      // A symbol that was swallowed has no next; a pair that has changed has another rank.
      if (next_[at] == none) continue;
      auto const [rank, result] = table_(symbols_[at], symbols_[next_[at]]);
      if (rank == static_cast<std::uint32_t>(top >> 32)) merge(at, result);
    }
    std::size_t count = 0;
    for (std::uint32_t i = 0; i != none; i = next_[i]) symbols_[count++] = symbols_[i];
    return count;
  }

 private:
  using Heap = std::priority_queue<std::uint64_t, std::vector<std::uint64_t>, std::greater<>>;
  static constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

  static std::uint64_t candidate(std::uint32_t rank, std::uint32_t at) { return std::uint64_t{rank} << 32 | at; }

  void offer(std::uint32_t at) {
    std::uint32_t const rank = table_(symbols_[at], symbols_[next_[at]]).first;
    if (rank != MergeTable::no_merge) heap_.push(candidate(rank, at));
  }

  void merge(std::uint32_t at, Token result) {
    std::uint32_t const swallowed = next_[at];
    symbols_[at] = result;
    next_[at] = next_[swallowed];
    next_[swallowed] = none;
    if (next_[at] != none) {
      previous_[next_[at]] = at;
      offer(at);
    }
    if (previous_[at] != none) offer(previous_[at]);
  }

  MergeTable const& table_;
  std::span<Token> symbols_;
  std::vector<std::uint32_t> next_, previous_;
  Heap heap_;
};

/// Applies the merges to the symbols of one word, in place. Returns the number of symbols left.
inline std::size_t merge_word(MergeTable const& table, std::span<Token> symbols) {
  if (symbols.size() <= short_word_length) return merge_short_word(table, symbols);
  return LongWordMerger(table, symbols).run();
}

}  // namespace detail
}  // namespace mor::io
