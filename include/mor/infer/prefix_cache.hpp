// SPDX-License-Identifier: Apache-2.0
/// @file
/// `PrefixCache`: keys of texts kept for requests that begin alike. Routing depends on the tokens before and on the depth
/// knobs alone, so kept keys are those that the request would have written.
#pragma once

#include "mor/infer/sequence.hpp"

#include <cstdint>
#include <cstring>
#include <list>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

namespace mor::infer {

/// The keys of a text's first tokens.
struct KeptPrefix {
  std::uint64_t hash = 0;
  std::vector<Token> tokens;
  DepthKnobs knobs;
  std::vector<Index> lengths;  ///< [Nr] keys in each recursion's list
  std::vector<Row> depths;     ///< recursions of each token
  PageLists pages;             ///< each counted as a user; the last page of a list may hold more keys behind
};

class PrefixCache {
 public:
  static constexpr Index kMostEntries = 4096;

  /// The longest kept prefix of `text` that is shorter than it, and the same knobs; null where there is none.
  [[nodiscard]] KeptPrefix const* find(std::span<Token const> text, DepthKnobs const& knobs) {
    if (entries_.empty()) return nullptr;
    std::vector<std::uint64_t> hashes(text.size());
    std::uint64_t hash = start(knobs);
    for (std::size_t i = 0; i < text.size(); ++i) hashes[i] = hash = mix(hash, text[i]);
    for (std::size_t length = text.size() - 1; length > 0; --length) {
      auto const found = by_hash_.find(hashes[length - 1]);
      if (found == by_hash_.end()) continue;
      auto const& kept = *found->second;
      bool const same = kept.tokens.size() == length && kept.knobs == knobs &&
                        std::equal(kept.tokens.begin(), kept.tokens.end(), text.begin());
      if (!same) continue;
      entries_.splice(entries_.begin(), entries_, found->second);  // used last
      return &entries_.front();
    }
    return nullptr;
  }

  /// Keeps the first `length` tokens of a text; its pages get another user. Nothing where it is kept already.
  void keep(std::span<Token const> text, DepthKnobs const& knobs, std::span<Row const> depths,
            std::span<Index const> lengths, PageLists const& pages, std::span<Index const> list_lengths, PagePools& pools) {
    std::uint64_t hash = start(knobs);
    for (Token const token : text) hash = mix(hash, token);
    if (text.empty() || by_hash_.contains(hash)) return;
    KeptPrefix kept;
    kept.hash = hash;
    kept.tokens.assign(text.begin(), text.end());
    kept.knobs = knobs;
    kept.lengths.assign(lengths.begin(), lengths.end());
    kept.depths.assign(depths.begin(), depths.end());
    auto const share = [&](std::vector<Row> const& from, Index tokens, PagePool& pool) {
      std::vector<Row> list(from.begin(), from.begin() + static_cast<std::ptrdiff_t>(pools.pages_of(tokens)));
      for (Row const page : list) pool.keep(page);
      return list;
    };
    for (std::size_t l = 0; l < pages.block.size(); ++l) {
      kept.pages.block.push_back(share(pages.block[l], list_lengths[l], pools.block));
    }
    if (pools.has_ends) kept.pages.ends = share(pages.ends, static_cast<Index>(text.size()), pools.ends);
    if (size() >= kMostEntries) drop_oldest(pools);
    entries_.push_front(std::move(kept));
    by_hash_[hash] = entries_.begin();
  }

  /// Forgets the entry that was used longest ago; false where there is none.
  bool drop_oldest(PagePools& pools) {
    if (entries_.empty()) return false;
    by_hash_.erase(entries_.back().hash);
    pools.let_go(entries_.back().pages);
    entries_.pop_back();
    return true;
  }
  void clear(PagePools& pools) {
    while (drop_oldest(pools)) {
    }
  }
  [[nodiscard]] Index size() const { return static_cast<Index>(entries_.size()); }
  [[nodiscard]] std::list<KeptPrefix> const& entries() const { return entries_; }

 private:
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

  std::list<KeptPrefix> entries_;  // the one used last first
  std::unordered_map<std::uint64_t, std::list<KeptPrefix>::iterator> by_hash_;
};

}  // namespace mor::infer
