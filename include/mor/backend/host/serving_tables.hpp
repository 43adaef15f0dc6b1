// SPDX-License-Identifier: Apache-2.0
/// @file
/// The tables of a serving engine on the host: the plain form of the verbs of `ServingControl`.
#pragma once

#include "mor/core/serving_tables.hpp"
#include "mor/math/serving.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace mor::host {

inline void apply_edits(std::span<TableEdit const> edits, ServingTables const& tables) {
  for (TableEdit const& edit : edits) tables.at(edit.word) = edit.value;
}

namespace detail {

/// Fills the rows behind the real ones: cells of their own, no keys.
inline void pad_rows(ServingTables const& tables, ServingRows const& rows, std::size_t count) {
  auto const pad = [count](std::span<Row> values, Row value) {
    if (values.size() > count) std::fill(values.begin() + static_cast<std::ptrdiff_t>(count), values.end(), value);
  };
  for (std::span<Row> const values : {rows.positions, rows.depths, rows.begins, rows.limits, rows.base_begins,
                                      rows.base_limits, rows.first_limits}) {
    pad(values, 0);
  }
  pad(rows.least, 1);
  pad(rows.most, static_cast<Row>(tables.shape.recursions));
  for (std::size_t i = count; i < rows.cells.size(); ++i) {
    rows.cells[i] = static_cast<Row>(tables.shape.cells() + static_cast<Index>(i));
  }
  rows.count[0] = static_cast<Row>(count);
}

/// The depth of a launch of one depth, and what the tables know of it from then on.
[[nodiscard]] inline Row take_depth(ServingTables const& tables) {
  std::vector<Row> ready(static_cast<std::size_t>(tables.shape.recursions), 0);
  for (Index cell = 0; cell < tables.shape.cells(); ++cell) {
    if (tables.at(tables.status(cell)) == static_cast<Row>(CellStatus::Ready)) {
      ++ready[static_cast<std::size_t>(tables.at(tables.depth(cell)))];
    }
  }
  Row* const passed_over = &tables.at(tables.passed_over(0));
  Index const taken = math::depth_of_launch(ready.data(), passed_over, tables.shape.recursions);
  for (Index depth = 0; depth < tables.shape.recursions; ++depth) {
    passed_over[depth] =
        math::count_passed_over(ready[static_cast<std::size_t>(depth)], passed_over[depth], depth == taken);
  }
  return static_cast<Row>(taken);
}

/// Whether a cell waits for a recursion that takes rows of depth `only`, or of any where that is negative.
[[nodiscard]] inline bool is_ready(ServingTables const& tables, Index cell, Row only) {
  return tables.at(tables.status(cell)) == static_cast<Row>(CellStatus::Ready) && (only < 0 || tables.at(tables.depth(cell)) == only);
}

/// The slots whose own rows a launch takes. From then on it is the turn of the one behind them.
[[nodiscard]] inline math::SlotWindow take_window(ServingTables const& tables, TickRule const& rule, Row only) {
  auto const slots = static_cast<Row>(tables.shape.slots);
  if (rule.most_rows == 0) return {0, slots};
  Index prompt_rows = 0;
  for (Index cell = slots; cell < tables.shape.cells(); ++cell) prompt_rows += is_ready(tables, cell, only) ? 1 : 0;
  std::vector<std::uint32_t> ready(static_cast<std::size_t>((slots + math::kReadyBits - 1) / math::kReadyBits), 0);
  for (Row slot = 0; slot < slots; ++slot) {
    if (is_ready(tables, slot, only)) ready[static_cast<std::size_t>(slot / math::kReadyBits)] |= std::uint32_t{1} << (slot % math::kReadyBits);
  }
  auto const window = math::window_of_launch(ready.data(), slots, tables.at(tables.turn()), rule.most_decoding(prompt_rows));
  tables.at(tables.turn()) = window.end(slots);
  return window;
}

}  // namespace detail

inline void start_recursion(ServingTables const& tables, TickRule const& rule, ServingRows const& rows) {
  Row const only = rule.one_depth ? detail::take_depth(tables) : -1;
  auto const window = detail::take_window(tables, rule, only);
  std::size_t count = 0;
  Row slot_before = -1;
  Row rank = 0;
  for (Index cell = 0; cell < tables.shape.cells() && count < rows.cells.size(); ++cell) {
    if (!detail::is_ready(tables, cell, only)) continue;
    if (cell < tables.shape.slots && !window.holds(static_cast<Row>(cell), static_cast<Row>(tables.shape.slots))) continue;
    Row const slot = tables.at(tables.slot(cell)), position = tables.at(tables.position(cell)), depth = tables.at(tables.depth(cell));
    rank = slot == slot_before ? rank + 1 : 0;
    slot_before = slot;
    rows.cells[count] = static_cast<Row>(cell);
    rows.positions[count] = position;
    rows.depths[count] = depth;
    rows.begins[count] = static_cast<Row>(tables.list_begin(depth, slot));
    bool const dense = depth == 0 || tables.shape.dense_lists;
    rows.limits[count] = dense ? position + 1 : tables.at(tables.length(depth, slot)) + rank + 1;
    rows.base_begins[count] = static_cast<Row>(tables.list_begin(0, slot));
    rows.base_limits[count] = position + 1;
    rows.first_limits[count] = depth == 0 ? position + 1 : 0;
    ++count;
  }
  detail::pad_rows(tables, rows, count);
}

template <class T>
inline void finish_recursion(ServingTables const& tables, ServingRows const& rows, std::span<T const> scores,
                             ServingReport const& report) {
  Row const count = rows.count[0];
  for (Row i = 0; i < count; ++i) {
    auto const row = static_cast<std::size_t>(i);
    Index const cell = rows.cells[row];
    Index const slot = tables.at(tables.slot(cell));
    tables.at(tables.length(rows.depths[row], slot)) = rows.limits[row];  // rows of a slot are in order: the last one stays
    Row const taken = rows.depths[row] + 1;
    tables.at(tables.depth(cell)) = taken;
    T const score = scores.empty() ? std::numeric_limits<T>::infinity() : scores[row];
    bool const on = math::goes_on(taken, tables.shape.recursions, tables.at(tables.least_depth(slot)),
                                  tables.at(tables.most_depth(slot)), score, math::word_float(tables.at(tables.threshold(slot))));
    tables.at(tables.status(cell)) = static_cast<Row>(on ? CellStatus::Ready : CellStatus::Finished);
    if (!on && cell >= tables.shape.slots) --tables.at(tables.pending(slot));
  }
  Row ready = 0, waiting = 0, samples = 0;
  for (Index cell = 0; cell < tables.shape.cells(); ++cell) {
    auto const status = static_cast<CellStatus>(tables.at(tables.status(cell)));
    if (status == CellStatus::Ready) ++ready;
    if (status != CellStatus::Finished || tables.at(tables.pending(tables.at(tables.slot(cell)))) > 0) continue;
    ++waiting;
    samples += tables.at(tables.samples(cell)) != 0 ? 1 : 0;
  }
  report.words[ServingReport::RecursionRows] = count;
  report.words[ServingReport::ReadyRows] = ready;
  report.words[ServingReport::WaitingRows] = waiting;
  report.words[ServingReport::WaitingSamples] = samples;
  report.words[ServingReport::FinishedRows] = report.words[ServingReport::SampledRows] = report.words[ServingReport::EnteredRows] = 0;
}

inline void collect_finished(ServingTables const& tables, TickRule const& rule, ServingReport const& report, ServingRows const& rows,
                             SampledRows const& sampled) {
  bool const finishes = !rule.waits_to_finish() || rule.finishes(report.words[ServingReport::ReadyRows], report.words[ServingReport::WaitingRows]);
  std::size_t count = 0, drawn = 0;
  for (Index cell = 0; finishes && cell < tables.shape.cells() && count < rows.cells.size(); ++cell) {
    if (tables.at(tables.status(cell)) != static_cast<Row>(CellStatus::Finished)) continue;
    Row const slot = tables.at(tables.slot(cell)), position = tables.at(tables.position(cell));
    if (tables.at(tables.pending(slot)) > 0) continue;
    bool const samples = tables.at(tables.samples(cell)) != 0;
    if (samples && drawn == sampled.cells.size()) break;
    rows.cells[count] = static_cast<Row>(cell);
    rows.positions[count] = position;
    rows.depths[count] = tables.at(tables.depth(cell));
    rows.begins[count] = static_cast<Row>(tables.list_begin(0, slot));
    rows.limits[count] = position + 1;
    if (samples) {
      sampled.cells[drawn] = static_cast<Row>(cell);
      sampled.sources[drawn] = static_cast<Row>(count);
      sampled.rules[drawn] = math::rule_from_words(&tables.at(tables.rule(slot)), position,
                                                   static_cast<Row>(Index{slot} * tables.shape.context));
      ++drawn;
    }
    tables.at(tables.status(cell)) = static_cast<Row>(CellStatus::Idle);
    ++count;
  }
  detail::pad_rows(tables, rows, count);
  for (std::size_t i = drawn; i < sampled.cells.size(); ++i) {
    sampled.cells[i] = static_cast<Row>(tables.shape.cells() + static_cast<Index>(i));
    sampled.sources[i] = 0;
    sampled.rules[i] = SamplingRule{};
    sampled.rules[i].temperature = 0.0F;
  }
  sampled.count[0] = static_cast<Row>(drawn);
}

template <class T>
inline void commit_samples(ServingTables const& tables, ServingRows const& rows, SampledRows const& sampled,
                           std::span<Token const> tokens, std::span<T const> log_probabilities,
                           ServingReport const& report) {
  auto const put = [&](Index word, Row value) { report.words[static_cast<std::size_t>(word)] = value; };
  for (Row i = 0; i < rows.count[0]; ++i) {
    put(report.finished(i), rows.cells[static_cast<std::size_t>(i)]);
    put(report.finished(i) + 1, rows.depths[static_cast<std::size_t>(i)]);
  }
  for (Row i = 0; i < sampled.count[0]; ++i) {
    auto const row = static_cast<std::size_t>(i);
    Index const slot = tables.at(tables.slot(sampled.cells[row]));
    Row const position = tables.at(tables.position(sampled.cells[row])) + 1;
    Token const token = tokens[row];
    bool const ends = token < 0 || token == tables.at(tables.end_token(slot)) || position >= tables.at(tables.last_position(slot));
    tables.at(tables.text() + slot * tables.shape.context + position) = token;
    if (!ends) {
      tables.at(tables.status(slot)) = static_cast<Row>(CellStatus::Entering);
      tables.at(tables.slot(slot)) = static_cast<Row>(slot);
      tables.at(tables.position(slot)) = position;
      tables.at(tables.samples(slot)) = 1;
    }
    put(report.sampled(i), static_cast<Row>(slot));
    put(report.sampled(i) + 1, token);
    put(report.sampled(i) + 2, math::float_word(static_cast<float>(log_probabilities[row])));
    put(report.sampled(i) + 3, ends ? 1 : 0);
  }
  put(ServingReport::FinishedRows, rows.count[0]);
  put(ServingReport::SampledRows, sampled.count[0]);
}

inline void collect_entering(ServingTables const& tables, ServingRows const& rows, std::span<Token> tokens,
                             ServingReport const& report) {
  std::size_t count = 0;
  for (Index i = 0; i < tables.shape.cells() && count < rows.cells.size(); ++i) {
    Index const cell = tables.shape.entering_cell(i);
    if (tables.at(tables.status(cell)) != static_cast<Row>(CellStatus::Entering)) continue;
    Row const slot = tables.at(tables.slot(cell)), position = tables.at(tables.position(cell));
    rows.cells[count] = static_cast<Row>(cell);
    rows.positions[count] = position;
    rows.begins[count] = static_cast<Row>(tables.list_begin(0, slot));
    rows.limits[count] = position + 1;
    rows.least[count] = tables.at(tables.least_depth(slot));
    rows.most[count] = tables.at(tables.most_depth(slot));
    tokens[count] = tables.at(tables.text() + Index{slot} * tables.shape.context + position);
    tables.at(tables.status(cell)) = static_cast<Row>(CellStatus::Ready);
    tables.at(tables.depth(cell)) = 0;
    ++count;
  }
  std::fill(tokens.begin() + static_cast<std::ptrdiff_t>(count), tokens.end(), Token{0});
  detail::pad_rows(tables, rows, count);
  report.words[ServingReport::EnteredRows] = static_cast<Row>(count);
}

/// @param looped  whether the work can go round again
/// @return whether it does
inline bool end_tick(ServingTables const& tables, ServingReport const& report, TickLog const& log, bool looped) {
  auto const word = [&](Index at) { return report.words[static_cast<std::size_t>(at)]; };
  auto const put = [&](Index at, Row value) { log.words[static_cast<std::size_t>(at)] = value; };
  auto const copy = [&](Index to, Index from, Index count) {
    for (Index i = 0; i < count; ++i) put(to + from + i, word(from + i));
  };
  Row const tick = log.words[TickLog::Open] != 0 ? log.words[TickLog::Ticks] : 0;
  Row const finished = word(ServingReport::FinishedRows), sampled = word(ServingReport::SampledRows);
  Index const to = log.report(tick);
  copy(to, 0, ServingReport::HeaderWords);
  copy(to, report.finished(0), finished * ServingReport::kFinishedWords);
  copy(to, report.sampled(0), sampled * ServingReport::kSampledWords);
  bool calls = false;
  for (Row i = 0; i < finished; ++i) calls = calls || word(report.finished(i)) >= tables.shape.slots;
  for (Row i = 0; i < sampled; ++i) calls = calls || word(report.sampled(i) + 3) != 0;
  Row const all_calls = math::next_count(log.words[TickLog::Calls], calls);
  bool const again = looped && tick + 1 < log.most && all_calls == tables.at(tables.answered()) &&
                     math::rows_remain(report.words.data());
  put(TickLog::Ticks, tick + 1);
  put(TickLog::Open, again ? 1 : 0);
  put(TickLog::Calls, all_calls);
  return again;
}

}  // namespace mor::host
