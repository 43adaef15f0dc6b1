// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a serving engine keeps on the device: which request each slot serves, where each row in flight stands, and where
/// keys lie. One flat array of words at a fixed address, so that work captured once stays right, and so that the host
/// changes it by a list of edits.
///
/// A *slot* serves one request. A *cell* holds one row in flight, a (slot, position, depth): cell s < slots is the decoding
/// row of slot s, the cells after those are lent to prompt chunks, neighbours in position order. Rows of lists are in
/// ascending order of cells, so rows of one slot are together and in order of position; of rows that enter, those of prompts
/// come first: a chunk's enter together, since its rows must be at one depth in every tick.
#pragma once

#include "mor/core/sampling.hpp"
#include "mor/core/types.hpp"

#include <cstdint>
#include <span>

namespace mor {

/// Where a cell's row stands.
enum class CellStatus : Row {
  Idle,      ///< nothing to do
  Entering,  ///< its token is known: embedding and prelude come next
  Ready,     ///< waits for recursion `depth`
  Finished   ///< has taken its last recursion: coda and head come next
};

/// One change of a word, made before a tick.
struct TableEdit {
  Row word = 0;
  Row value = 0;
};

/// Words of a sampling rule in the tables.
inline constexpr Index kRuleWords = 8;

/// Sizes of the tables.
struct ServingShape {
  Index slots = 1;
  Index prompt_cells = 0;     ///< cells for rows of prompts
  Index recursions = 1;
  Index context = 1;          ///< tokens of a sequence at most
  Index page_size = 64;
  bool dense_lists = true;    ///< the key list of every recursion holds all tokens, not only those that entered it

  [[nodiscard]] MOR_HOST_DEVICE constexpr Index cells() const { return slots + prompt_cells; }
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index pages_per_list() const { return (context + page_size - 1) / page_size; }
  /// The i-th cell in the order in which rows enter.
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index entering_cell(Index i) const { return i < prompt_cells ? slots + i : i - prompt_cells; }
};

/// The words and where each table begins among them.
struct ServingTables {
  ServingShape shape;
  Row* words = nullptr;

  // By cell.
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index status(Index cell) const { return cell; }
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index slot(Index cell) const { return shape.cells() + cell; }
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index position(Index cell) const { return 2 * shape.cells() + cell; }
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index depth(Index cell) const { return 3 * shape.cells() + cell; }
  /// 1 where the row's logits make the next token.
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index samples(Index cell) const { return 4 * shape.cells() + cell; }

  // By slot.
  /// Rows of the prompt chunk in flight that still recur: its coda waits for all of them.
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index pending(Index slot) const { return by_slot(0, slot); }
  /// The token that ends the text; negative: none.
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index end_token(Index slot) const { return by_slot(1, slot); }
  /// The position of the last token that may be made.
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index last_position(Index slot) const { return by_slot(2, slot); }
  /// The smallest and the largest number of recursions of a token.
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index least_depth(Index slot) const { return by_slot(3, slot); }
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index most_depth(Index slot) const { return by_slot(4, slot); }
  /// A float: a token goes round again where its score is at least this.
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index threshold(Index slot) const { return by_slot(5, slot); }
  /// Seed (2 words), temperature, top_p, min_p, repetition_penalty (floats), top_k, and one spare word.
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index rule(Index slot) const { return by_slot(6, 0) + slot * kRuleWords; }
  /// Keys in the list of a recursion.
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index length(Index recursion, Index slot) const {
    return by_slot(6 + kRuleWords + recursion, slot);
  }
  // Pages, in the order of the list.
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index block_pages() const { return by_slot(6 + kRuleWords + shape.recursions, 0); }
  /// Of the prelude's and the coda's layers.
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index end_pages() const {
    return block_pages() + shape.recursions * shape.slots * shape.pages_per_list();
  }
  /// Tokens of each slot's text.
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index text() const { return end_pages() + shape.slots * shape.pages_per_list(); }
  /// How many of the ticks that call for the host (`TickLog::Calls`) the host knows of.
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index answered() const { return text() + shape.slots * shape.context; }
  /// Launches of one depth that recursion `depth` has had rows for and that took another, since it was last taken.
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index passed_over(Index depth) const { return answered() + 1 + depth; }
  /// The slot whose turn it is where a recursion does not take all rows.
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index turn() const { return passed_over(shape.recursions); }
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index size() const { return turn() + 1; }

  /// Where the page list of (recursion, slot) begins in the table of the block's pages; with recursion 0 also that of the
  /// slot in the table of the ends' pages.
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index list_begin(Index recursion, Index slot) const {
    return (recursion * shape.slots + slot) * shape.pages_per_list();
  }
  [[nodiscard]] MOR_HOST_DEVICE constexpr Row& at(Index word) const { return words[word]; }

  [[nodiscard]] std::span<Row const> block_page_table() const {
    return {words + block_pages(), static_cast<std::size_t>(end_pages() - block_pages())};
  }
  [[nodiscard]] std::span<Row const> end_page_table() const {
    return {words + end_pages(), static_cast<std::size_t>(text() - end_pages())};
  }
  [[nodiscard]] std::span<Token const> texts() const {
    return {words + text(), static_cast<std::size_t>(answered() - text())};
  }

 private:
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index by_slot(Index table, Index slot) const {
    return 5 * shape.cells() + table * shape.slots + slot;
  }
};

/// Which of the rows that are ready for a stage it takes in a tick. The same for every tick of an engine, and decided where the
/// tables are.
struct TickRule {
  bool one_depth = false;    ///< a recursion takes rows of one depth: `math::depth_of_launch`
  bool in_step = false;      ///< all rows take the same recursion: coda and prelude wait until none is ready for another
  /// Rows of a recursion at most, at any depth; 0: all. Those of prompts all take part, texts that decode have what is left in turns, and
  /// half of it at least.
  Index most_rows = 0;
  Index least_finished = 1;  ///< the coda waits for so many, or until no row is ready for a recursion

  /// Whether rows may have to wait for other rows.
  [[nodiscard]] MOR_HOST_DEVICE constexpr bool holds_back() const { return one_depth || most_rows > 0 || waits_to_finish(); }
  [[nodiscard]] MOR_HOST_DEVICE constexpr bool waits_to_finish() const { return in_step || least_finished > 1; }
  /// Rows of texts that decode beside `prompt_rows`, at most. Only where there is a limit.
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index most_decoding(Index prompt_rows) const {
    Index const left = most_rows - prompt_rows, least = (most_rows + 1) / 2;
    return left > least ? left : least;
  }
  /// Whether the coda runs after a recursion that left `ready` rows for another one and `finished` for the coda.
  [[nodiscard]] MOR_HOST_DEVICE constexpr bool finishes(Index ready, Index finished) const {
    return ready == 0 || (!in_step && finished >= least_finished);
  }
};

/// Rows of one list, all of a stage's length: the first `count` are real, the others are padding, which sees no keys and
/// stands for a cell of its own behind all real ones. Rows of the three stages fill what they need.
struct ServingRows {
  std::span<Row> cells;
  std::span<Row> positions;
  std::span<Row> depths;        ///< recursion: the one that runs; else recursions taken
  std::span<Row> begins;        ///< page list of the row: (depth, slot) in a recursion, (slot) in prelude and coda
  std::span<Row> limits;        ///< keys that the row sees there, its own included
  std::span<Row> base_begins;   ///< recursion: page list of (0, slot)
  std::span<Row> base_limits;   ///< recursion: position + 1
  std::span<Row> first_limits;  ///< recursion: base_limits where depth is 0, else 0
  std::span<Row> least, most;   ///< entering: smallest and largest number of recursions
  std::span<Row> count;         ///< [1]
};

/// Finished rows that make a token. Padding rows take row 0 and the likeliest token.
struct SampledRows {
  std::span<Row> cells;
  std::span<Row> sources;           ///< index among the finished rows
  std::span<SamplingRule> rules;
  std::span<Row> count;             ///< [1]
};

/// What a tick tells the host: a header, then rows.
struct ServingReport {
  enum Header : Index {
    RecursionRows,   ///< rows that took a recursion in this tick
    ReadyRows,       ///< cells that wait for another recursion after it
    WaitingRows,     ///< cells that the coda may take
    WaitingSamples,  ///< of these, cells that make a token
    FinishedRows,    ///< rows that went through the coda
    SampledRows,     ///< of these, rows that made a token
    EnteredRows,     ///< rows that are now ready for their first recursion
    HeaderWords
  };
  static constexpr Index kFinishedWords = 2;  ///< cell, recursions taken
  static constexpr Index kSampledWords = 4;   ///< slot, token, log-probability (a float), 1 where the text ends here

  std::span<Row> words;
  Index finished_room = 0;  ///< finished rows at most
  [[nodiscard]] MOR_HOST_DEVICE static constexpr Index size(Index finished, Index sampled) {
    return HeaderWords + finished * kFinishedWords + sampled * kSampledWords;
  }
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index finished(Index row) const { return HeaderWords + row * kFinishedWords; }
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index sampled(Index row) const {
    return HeaderWords + finished_room * kFinishedWords + row * kSampledWords;
  }
};

/// What a launch of several ticks tells the host: a header, then the reports of its ticks. All words start as 0.
struct TickLog {
  enum Header : Index {
    Ticks,  ///< that the launch has run
    Open,   ///< 1 between two ticks of a launch: the next one adds to these. Else it begins anew
    Calls,  ///< ticks of all launches so far that call for the host: a text has ended, or rows of a prompt are through
    HeaderWords
  };
  std::span<Row> words;
  Index most = 1;          ///< ticks of a launch at most
  Index report_words = 0;  ///< of one tick
  [[nodiscard]] MOR_HOST_DEVICE static constexpr Index size(Index most, Index report_words) {
    return HeaderWords + most * report_words;
  }
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index report(Index tick) const { return HeaderWords + tick * report_words; }
};

}  // namespace mor
