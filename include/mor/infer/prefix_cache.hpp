// SPDX-License-Identifier: Apache-2.0
/// @file
/// `PrefixCache`: keys of texts kept for requests that begin alike. Routing depends on the tokens before and on the depth
/// knobs alone, so kept keys are those that the request would have written.
#pragma once

#include "mor/infer/sequence.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <list>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

namespace mor::infer {

/// The keys of a text's first tokens. Any beginning of it can be used: a list holds the tokens that entered its recursion
/// in their order, so those of the beginning come first in it.
struct KeptPrefix {
  std::uint64_t number = 0;  ///< of this entry, never of another
  std::uint64_t hash = 0;    ///< of knobs and tokens
  std::vector<Token> tokens;
  DepthKnobs knobs;
  std::vector<Row> depths;  ///< recursions of each token
  PageLists pages;          ///< each counted as a user; the last page of a list may hold more keys behind
  std::vector<std::uint64_t> cuts;  ///< hashes of the beginnings that it is found by

  /// Keys of the first `tokens` tokens in each recursion's list.
  [[nodiscard]] std::vector<Index> lengths(Index tokens, Index recursions) const {
    std::vector<Index> each(static_cast<std::size_t>(recursions), 0);
    for (Index i = 0; i < tokens; ++i) {
      for (Row r = 0; r < depths[static_cast<std::size_t>(i)]; ++r) ++each[static_cast<std::size_t>(r)];
    }
    return each;
  }
};

/// What a slot has read of its text, and where the keys lie.
struct ReadText {
  std::span<Token const> tokens;
  DepthKnobs knobs;
  std::span<Row const> depths;
  PageLists const* pages = nullptr;
  std::span<Index const> list_lengths;   ///< keys in each of the block's lists
  std::array<Index, 3> marks = {};       ///< lengths at which other texts may well go their own way
};

/// Entries are found by their beginnings of whole pages of tokens, by their marks and by their whole length.
class PrefixCache {
 public:
  static constexpr Index kMostEntries = 4096;
  static constexpr Index kMostTokens = Index{1} << 24;  // of all entries: 8 bytes each on the host

  struct Found {
    KeptPrefix const* kept = nullptr;
    Index tokens = 0;  ///< of its beginning
  };
  /// The longest kept beginning of `text` that is shorter than it, with the same knobs.
  [[nodiscard]] Found find(std::span<Token const> text, DepthKnobs const& knobs) {
    if (entries_.empty()) return {};
    std::vector<std::uint64_t> hashes(text.size());
    std::uint64_t hash = start(knobs);
    for (std::size_t i = 0; i < text.size(); ++i) hashes[i] = hash = mix(hash, text[i]);
    for (std::size_t length = text.size() - 1; length > 0; --length) {
      auto const entry = entry_at(hashes[length - 1], text.first(length), knobs);
      if (entry == entries_.end()) continue;
      use(entry);
      return {&*entry, static_cast<Index>(length)};
    }
    return {};
  }

  /// Keeps what a slot has read; its pages get another user. Entries that are beginnings of it, at one of its cuts, are
  /// taken up by it. @param number  of the slot's earlier entry, which grows if it is still there; 0: none
  /// @return the number of the text's entry; 0 where another one holds all of it
  std::uint64_t keep(std::uint64_t number, ReadText const& read, PagePools& pools) {
    auto const earlier = by_number_.find(number);
    Entry entry = earlier == by_number_.end() ? entries_.end() : earlier->second;
    if (entry == entries_.end()) {
      if (held_already(read)) return 0;
      entries_.emplace_front();
      entry = entries_.begin();
      entry->number = next_number_++;
      entry->knobs = read.knobs;
      entry->hash = start(read.knobs);
      entry->pages.block.resize(read.pages->block.size());
      by_number_[entry->number] = entry;
    }
    std::vector<Entry> taken_up;
    grow_text(*entry, read, pools.page_size, taken_up);
    grow_pages(*entry, read, pools);
    for (Entry const other : taken_up) drop(other, pools);
    use(entry);
    while (size() > 1 && (size() > kMostEntries || tokens_ > kMostTokens)) drop_oldest(pools);
    return entry->number;
  }

  /// Forgets the entry that was used longest ago; false where there is none.
  bool drop_oldest(PagePools& pools) {
    if (entries_.empty()) return false;
    drop(std::prev(entries_.end()), pools);
    return true;
  }
  void clear(PagePools& pools) {
    while (drop_oldest(pools)) {
    }
  }
  [[nodiscard]] Index size() const { return static_cast<Index>(entries_.size()); }
  [[nodiscard]] std::list<KeptPrefix> const& entries() const { return entries_; }

 private:
  using Entry = std::list<KeptPrefix>::iterator;

  static std::uint64_t mix(std::uint64_t hash, Token token) {
    hash = (hash ^ static_cast<std::uint32_t>(token)) * 0x9E3779B97F4A7C15U;
    return hash ^ (hash >> 29);
  }
  static std::uint64_t start(DepthKnobs const& knobs) {
    std::uint64_t bits = 0;
    static_assert(sizeof bits == sizeof knobs.threshold);
    std::memcpy(&bits, &knobs.threshold, sizeof bits);
    return mix(mix(bits ^ (bits >> 32), static_cast<Token>(knobs.min_depth)), static_cast<Token>(knobs.max_depth));
  }

  /// The entry that begins with `text`, if one is found by this hash.
  [[nodiscard]] Entry entry_at(std::uint64_t hash, std::span<Token const> text, DepthKnobs const& knobs) {
    auto const found = by_cut_.find(hash);
    if (found == by_cut_.end()) return entries_.end();
    KeptPrefix const& kept = *found->second;
    bool const same = kept.tokens.size() >= text.size() && kept.knobs == knobs &&
                      std::equal(text.begin(), text.end(), kept.tokens.begin());
    return same ? found->second : entries_.end();
  }
  [[nodiscard]] bool held_already(ReadText const& read) {
    std::uint64_t hash = start(read.knobs);
    for (Token const token : read.tokens) hash = mix(hash, token);
    Entry const entry = entry_at(hash, read.tokens, read.knobs);
    if (entry != entries_.end()) use(entry);
    return read.tokens.empty() || entry != entries_.end();
  }

  /// The entry's text becomes what was read. @param taken_up  gets the entries that end at one of the new cuts
  void grow_text(KeptPrefix& entry, ReadText const& read, Index page_size, std::vector<Entry>& taken_up) {
    std::size_t const before = entry.tokens.size(), all = read.tokens.size();
    for (std::size_t i = before; i < all; ++i) {
      entry.hash = mix(entry.hash, read.tokens[i]);
      auto const length = static_cast<Index>(i + 1);
      bool const cut = length % page_size == 0 || i + 1 == all || std::ranges::count(read.marks, length) != 0;
      if (!cut) continue;
      Entry const other = entry_at(entry.hash, read.tokens.first(i + 1), read.knobs);
      if (other != entries_.end() && other->tokens.size() == i + 1) taken_up.push_back(other);
      entry.cuts.push_back(entry.hash);
    }
    auto const append = [&](auto& to, auto const& from) {
      to.insert(to.end(), from.begin() + static_cast<std::ptrdiff_t>(before), from.end());
    };
    append(entry.tokens, read.tokens);
    append(entry.depths, read.depths);
    tokens_ += static_cast<Index>(all - before);
  }
  static void grow_pages(KeptPrefix& entry, ReadText const& read, PagePools& pools) {
    auto const share = [&](std::vector<Row>& to, std::vector<Row> const& from, Index keys, PagePool& pool) {
      for (auto i = to.size(); i < static_cast<std::size_t>(pools.pages_of(keys)); ++i) {
        to.push_back(from[i]);
        pool.keep(from[i]);
      }
    };
    for (std::size_t l = 0; l < entry.pages.block.size(); ++l) {
      share(entry.pages.block[l], read.pages->block[l], read.list_lengths[l], pools.block);
    }
    if (pools.has_ends) share(entry.pages.ends, read.pages->ends, static_cast<Index>(read.tokens.size()), pools.ends);
  }

  /// Makes an entry the one that was used last. All that share a cut with it were used earlier, so they are dropped
  /// earlier, and the cut is found for as long as one of them is there.
  void use(Entry entry) {
    entries_.splice(entries_.begin(), entries_, entry);
    for (std::uint64_t const cut : entry->cuts) by_cut_[cut] = entry;
  }
  void drop(Entry entry, PagePools& pools) {
    for (std::uint64_t const cut : entry->cuts) {
      auto const found = by_cut_.find(cut);
      if (found != by_cut_.end() && found->second == entry) by_cut_.erase(found);
    }
    by_number_.erase(entry->number);
    tokens_ -= static_cast<Index>(entry->tokens.size());
    pools.let_go(entry->pages);
    entries_.erase(entry);
  }

  std::list<KeptPrefix> entries_;  // the one used last first
  std::unordered_map<std::uint64_t, Entry> by_cut_, by_number_;
  std::uint64_t next_number_ = 1;
  Index tokens_ = 0;
};

}  // namespace mor::infer
