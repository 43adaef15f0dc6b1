// SPDX-License-Identifier: Apache-2.0
/// @file
/// `SlotLists`: the key lists of an engine's slots, the pages they are lent, and prefixes that are kept for later requests.
#pragma once

#include "mor/infer/page_pool.hpp"
#include "mor/infer/planner_setup.hpp"
#include "mor/infer/prefix_cache.hpp"
#include "mor/infer/sequence.hpp"
#include "mor/infer/table_edits.hpp"

#include <algorithm>
#include <limits>
#include <span>
#include <vector>

namespace mor::infer {

class SlotLists {
 public:
  /// Both have to outlive it.
  SlotLists(PlannerSetup const& setup, TableEdits& edits)
      : setup_(&setup), edits_(&edits),
        pools_{PagePool(setup.block_pages), PagePool(setup.end_pages), setup.has_ends, setup.shape.page_size} {}

  [[nodiscard]] PagePools const& pools() const { return pools_; }

  /// Lengthens the slot's lists to hold `tokens` tokens; false, and nothing done, where pages are missing.
  bool lengthen(Slot& slot, Index tokens) {
    if (tokens <= slot.room) return true;
    Index missing = 0;
    for (std::size_t l = 0; l < slot.pages.block.size(); ++l) {
      missing += std::max<Index>(0, pools_.pages_of(list_bound(slot, static_cast<Index>(l), tokens)) -
                                        static_cast<Index>(slot.pages.block[l].size()));
    }
    Index const missing_ends =
        pools_.has_ends ? std::max<Index>(0, pools_.pages_of(tokens) - static_cast<Index>(slot.pages.ends.size())) : 0;
    if (missing > pools_.block.free() + pools_.block.only_kept() ||
        missing_ends > pools_.ends.free() + pools_.ends.only_kept()) {
      return false;
    }
    while ((missing > pools_.block.free() || missing_ends > pools_.ends.free()) && prefixes_.drop_oldest(pools_)) {
    }
    for (std::size_t l = 0; l < slot.pages.block.size(); ++l) {
      auto& list = slot.pages.block[l];
      Index const wanted = pools_.pages_of(list_bound(slot, static_cast<Index>(l), tokens));
      while (static_cast<Index>(list.size()) < wanted) add_page(slot, false, static_cast<Index>(l), pools_.block.take());
    }
    while (pools_.has_ends && static_cast<Index>(slot.pages.ends.size()) < pools_.pages_of(tokens)) {
      add_page(slot, true, 0, pools_.ends.take());
    }
    slot.room = room_of(slot);
    return true;
  }
  /// Gives back all pages.
  void release(Slot& slot) {
    pools_.release(slot.pages);
    slot.room = 0;
  }

  /// Lets a new guest's lists begin with keys that an earlier request left: whole pages are shared, the last one of a list is
  /// copied. @return tokens that are there
  Index reuse_prefix(Slot& slot) {
    if (!setup_->options.prefix_cache) return 0;
    auto& guest = *slot.sequence;
    auto const [kept, tokens] = prefixes_.find(guest.text, knobs_of(guest));
    if (kept == nullptr) return 0;
    auto const lengths = kept->lengths(tokens, setup_->shape.recursions);
    Index copies = 0;
    auto const keys = [&, all = tokens](Index l) { return list_length(all, lengths, l); };
    for (Index l = 0; l < setup_->block_lists; ++l) copies += keys(l) % pools_.page_size != 0 ? 1 : 0;
    if (copies > pools_.block.free() || (pools_.has_ends && pools_.ends.free() < 1)) return 0;
    for (Index l = 0; l < setup_->block_lists; ++l) {
      take_list(slot, false, l, kept->pages.block[static_cast<std::size_t>(l)], keys(l));
    }
    if (pools_.has_ends) take_list(slot, true, 0, kept->pages.ends, tokens);
    slot.lengths = lengths;
    guest.depths.assign(kept->depths.begin(), kept->depths.begin() + static_cast<std::ptrdiff_t>(tokens));
    return tokens;
  }
  /// Keeps the keys of the tokens that a slot has read.
  void keep_prefix(Slot& slot) {
    if (!setup_->options.prefix_cache) return;
    auto const& guest = *slot.sequence;
    std::vector<Index> lengths;
    for (Index l = 0; l < setup_->block_lists; ++l) lengths.push_back(list_length(slot.read(), slot.lengths, l));
    ReadText read{std::span<Token const>(guest.text).first(static_cast<std::size_t>(slot.read())), knobs_of(guest), guest.depths,
                  &slot.pages, lengths};
    // The same prompt again reads its last token; another answer begins behind the prompt; the text that this one goes on from.
    read.marks = {guest.prompt_tokens() - 1, guest.prompt_tokens(), slot.reused};
    slot.kept = prefixes_.keep(slot.kept, read, pools_);
  }
  /// Forgets the prefix that was used longest ago; false where there is none.
  bool drop_oldest_prefix() { return prefixes_.drop_oldest(pools_); }
  void drop_prefixes() { prefixes_.clear(pools_); }

 private:
  /// Keys of list `l` where `tokens` tokens have been read, of which recursion l has seen lengths[l].
  [[nodiscard]] Index list_length(Index tokens, std::vector<Index> const& lengths, Index l) const {
    return l == 0 || setup_->shape.dense_lists ? tokens : lengths[static_cast<std::size_t>(l)];
  }
  void take_list(Slot& slot, bool ends, Index l, std::vector<Row> const& pages, Index keys) {
    PagePool& pool = ends ? pools_.ends : pools_.block;
    for (std::size_t i = 0; i < static_cast<std::size_t>(pools_.pages_of(keys)); ++i) {
      Index const left = keys - static_cast<Index>(i) * pools_.page_size;
      if (left >= pools_.page_size) {
        pool.share(pages[i]);
        add_page(slot, ends, l, pages[i]);
      } else {
        Row const own = pool.take();
        edits_->copy({ends, pages[i], own, left});
        add_page(slot, ends, l, own);
      }
    }
  }
  /// The knobs that the decisions depended on.
  [[nodiscard]] static DepthKnobs knobs_of(Sequence const& sequence) {
    return {sequence.request.depth.threshold, sequence.least_depth, sequence.most_depth};
  }
  void add_page(Slot& slot, bool ends, Index l, Row page) {
    auto& list = ends ? slot.pages.ends : slot.pages.block[static_cast<std::size_t>(l)];
    edits_->page(slot.number, ends, l, static_cast<Index>(list.size()), page);
    list.push_back(page);
  }

  /// Keys that list `l` may hold when `tokens` tokens have been read: each that has not been yet may take every recursion.
  [[nodiscard]] Index list_bound(Slot const& slot, Index l, Index tokens) const {
    return list_length(slot.read(), slot.lengths, l) + tokens - slot.read();
  }

  /// Tokens that the slot's lists hold, wherever those lead that have not been read: `list_bound`, the other way round.
  [[nodiscard]] Index room_of(Slot const& slot) const {
    Index room = pools_.has_ends ? static_cast<Index>(slot.pages.ends.size()) * pools_.page_size : std::numeric_limits<Index>::max();
    for (std::size_t l = 0; l < slot.pages.block.size(); ++l) {
      Index const keys = static_cast<Index>(slot.pages.block[l].size()) * pools_.page_size;
      room = std::min(room, keys - list_bound(slot, static_cast<Index>(l), 0));
    }
    return room;
  }

  PlannerSetup const* setup_;
  TableEdits* edits_;
  PagePools pools_;
  PrefixCache prefixes_;
};

}  // namespace mor::infer
