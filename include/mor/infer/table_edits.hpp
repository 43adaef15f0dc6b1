// SPDX-License-Identifier: Apache-2.0
/// @file
/// `TableEdits`: what the host wants changed in a serving engine's tables before the next tick.
#pragma once

#include "mor/core/serving_tables.hpp"
#include "mor/infer/planner_setup.hpp"
#include "mor/infer/sequence.hpp"
#include "mor/math/serving.hpp"

#include <span>
#include <vector>

namespace mor::infer {

/// Made in the order `clears`, `sets`, `copies`; no word is named twice in one of the lists.
class TableEdits {
 public:
  explicit TableEdits(ServingShape const& shape) : tables_{shape, nullptr} {}

  [[nodiscard]] std::span<TableEdit const> clears() const { return clears_; }
  [[nodiscard]] std::span<TableEdit const> sets() const { return sets_; }
  [[nodiscard]] std::span<PageCopy const> copies() const { return copies_; }
  void made() {
    clears_.clear();
    sets_.clear();
    copies_.clear();
  }

  /// The cell's row stops wherever it is.
  void stop(Index cell) {
    clears_.push_back({static_cast<Row>(tables_.status(cell)), static_cast<Row>(CellStatus::Idle)});
  }
  /// Page number `index` of a list of a slot.
  void page(Index slot, bool ends, Index list, Index index, Row page) {
    Index const table = ends ? tables_.end_pages() : tables_.block_pages();
    set(table + tables_.list_begin(ends ? 0 : list, slot) + index, page);
  }
  void copy(PageCopy const& copy) { copies_.push_back(copy); }
  /// The host knows of so many ticks that called for it.
  void answer(Row calls) { set(tables_.answered(), calls); }

  /// A slot's new guest: its text, its knobs, and the keys that it begins with.
  void guest(Index slot, Slot const& guest) {
    auto const& sequence = *guest.sequence;
    for (Index r = 0; r < tables_.shape.recursions; ++r) {
      set(tables_.length(r, slot), guest.lengths[static_cast<std::size_t>(r)]);
    }
    set(tables_.end_token(slot), sequence.request.end_token.value_or(-1));
    set(tables_.last_position(slot), sequence.last_position);
    set(tables_.least_depth(slot), sequence.least_depth);
    set(tables_.most_depth(slot), sequence.most_depth);
    set(tables_.threshold(slot), math::float_word(static_cast<float>(sequence.request.depth.threshold)));
    Row rule[kRuleWords];
    math::rule_to_words(sequence.request.sampling.rule(0, 0, 0), rule);
    for (Index i = 0; i < kRuleWords; ++i) set(tables_.rule(slot) + i, rule[i]);
    for (Index i = 0; i < sequence.length(); ++i) {
      set(tables_.text() + slot * tables_.shape.context + i, sequence.text[static_cast<std::size_t>(i)]);
    }
  }
  /// Rows of a slot's prompt from position `begin` on enter in neighbouring cells; the one at `last` makes a token.
  void chunk(Index slot, Index first_cell, Index cells, Index begin, Index last) {
    for (Index i = 0; i < cells; ++i) {
      set(tables_.status(first_cell + i), static_cast<Index>(CellStatus::Entering));
      set(tables_.slot(first_cell + i), slot);
      set(tables_.position(first_cell + i), begin + i);
      set(tables_.samples(first_cell + i), begin + i == last ? 1 : 0);
    }
    set(tables_.pending(slot), cells);
  }

 private:
  void set(Index word, Index value) { sets_.push_back({static_cast<Row>(word), static_cast<Row>(value)}); }

  ServingTables tables_;  // for its arithmetic alone
  std::vector<TableEdit> clears_, sets_;
  std::vector<PageCopy> copies_;
};

}  // namespace mor::infer
