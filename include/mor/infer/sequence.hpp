// SPDX-License-Identifier: Apache-2.0
/// @file
/// A request on its way through an engine, and the pages that hold its keys. Host bookkeeping only.
#pragma once

#include "mor/core/serving_tables.hpp"
#include "mor/infer/page_pool.hpp"
#include "mor/infer/request.hpp"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

namespace mor::infer {

/// Pages of one text: a list for each recursion that keeps keys of its own, and one for the unique layers.
struct PageLists {
  std::vector<std::vector<Row>> block;
  std::vector<Row> ends;
};

/// Both pools of an engine. An engine without unique layers has no pages for them and needs none.
struct PagePools {
  PagePool block, ends;
  bool has_ends = false;
  Index page_size = 64;

  [[nodiscard]] Index pages_of(Index tokens) const { return (tokens + page_size - 1) / page_size; }
  /// Frees the pages of a slot, or of a kept prefix.
  void release(PageLists& lists) { give_back(lists, &PagePool::release); }
  void let_go(PageLists& lists) { give_back(lists, &PagePool::let_go); }

 private:
  void give_back(PageLists& lists, void (PagePool::*one)(Row)) {
    for (auto& list : lists.block) {
      for (Row const page : list) (block.*one)(page);
      list.clear();
    }
    for (Row const page : lists.ends) (ends.*one)(page);
    lists.ends.clear();
  }
};

/// A request and its text so far. Lives from `submit` to its `Finished` event.
struct Sequence {
  RequestId id = 0;
  Request request;
  std::vector<Token> text;     ///< prompt, then what was made
  std::vector<Row> depths;     ///< recursions of each token that was read
  std::vector<Row> depths_before;  ///< the same before it was pre-empted; its text is read again
  bool preempted = false;          ///< once at least
  Index least_depth = 1, most_depth = 1;
  Index last_position = 0;     ///< of the last token that may be made
  [[nodiscard]] Index prompt_tokens() const { return static_cast<Index>(request.prompt.size()); }
  [[nodiscard]] Index length() const { return static_cast<Index>(text.size()); }
};

/// Rows of a prompt that are on their way together.
struct PromptChunk {
  Index first_cell = 0, rows = 0, left = 0;
  Index first_tick = 0;
  bool entered = false;  ///< the prelude has taken them
};

/// What a slot serves, as far as the host knows: reports are some ticks old.
struct Slot {
  Index number = 0;
  std::unique_ptr<Sequence> sequence;  ///< null: free
  Index first_tick = 0;                ///< reports of earlier ticks speak of an earlier guest
  Index fed = 0;                       ///< tokens whose rows have been started by the host (of the text at admission)
  Index goal = 0;                      ///< tokens of the text at admission: all go through as prompt
  PromptChunk chunk;                   ///< rows = 0: none in flight
  PageLists pages;
  std::vector<Index> lengths;          ///< [Nr] keys in each recursion's list, of tokens that were read
  Index reused = 0;                    ///< tokens whose keys an earlier request had left
  std::uint64_t kept = 0;              ///< entry of the prefix cache that grows with this text; 0: none
  Index room = 0;                      ///< so many tokens find room in the lists, or more: reading one never takes more than was set aside

  [[nodiscard]] Index read() const { return static_cast<Index>(sequence->depths.size()); }
  [[nodiscard]] Index prompt_left() const { return goal - fed; }
  /// It has tokens of a prompt to start, and none on their way.
  [[nodiscard]] bool waits_for_cells() const { return chunk.rows == 0 && fed < goal; }
  [[nodiscard]] bool decoding() const { return sequence != nullptr && chunk.rows == 0 && fed == goal; }
  /// Its own cell may be at work: it decodes, or may decode as soon as the last chunk is through.
  [[nodiscard]] bool may_decode() const { return sequence != nullptr && fed == goal; }
};

/// Neighbouring cells for prompt rows, first fit.
class CellRanges {
 public:
  CellRanges(Index first, Index size) : first_(first), free_(size), used_(static_cast<std::size_t>(size), false) {}
  [[nodiscard]] Index free() const { return free_; }
  /// The longest free range of at most `wanted` cells, the lowest on a tie; (cell, cells).
  [[nodiscard]] std::pair<Index, Index> take(Index wanted) {
    if (free_ == 0) return {first_, 0};
    Index best = 0, length = 0, run = 0;
    for (Index i = 0; i <= static_cast<Index>(used_.size()) && length < wanted; ++i) {
      bool const open = i < static_cast<Index>(used_.size()) && !used_[static_cast<std::size_t>(i)];
      run = open ? run + 1 : 0;
      if (run > length) {
        length = run;
        best = i + 1 - run;
      }
    }
    mark(best, length, true);
    free_ -= length;
    return {first_ + best, length};
  }
  void give_back(Index cell, Index cells) {
    mark(cell - first_, cells, false);
    free_ += cells;
  }

 private:
  void mark(Index begin, Index count, bool value) {
    std::fill_n(used_.begin() + static_cast<std::ptrdiff_t>(begin), count, value);
  }
  Index first_, free_;
  std::vector<bool> used_;
};

}  // namespace mor::infer
