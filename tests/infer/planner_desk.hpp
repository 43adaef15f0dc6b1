// SPDX-License-Identifier: Apache-2.0
/// @file
/// A planner without an engine: its edits make tables, and reports of ticks are written by hand.
#pragma once

#include "support/catch.hpp"

#include "mor/infer/planner.hpp"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

namespace mor::test {

inline constexpr Index kReportRows = 32;

/// A planner, and the tables that its edits make.
struct PlannerDesk {
  explicit PlannerDesk(infer::PlannerSetup const& setup)
      : planner(setup),
        words(static_cast<std::size_t>(ServingTables{setup.shape, nullptr}.size()), 0),
        tables{setup.shape, words.data()} {}

  infer::RequestId submit(Index prompt, Index max_new = 10, Token first = 1, infer::DepthKnobs knobs = {}) {
    infer::Request request;
    for (Index i = 0; i < prompt; ++i) request.prompt.push_back(static_cast<Token>(first + i));
    request.max_new_tokens = max_new;
    request.depth = knobs;
    return planner.submit(std::move(request));
  }

  /// Plans the next tick and makes its edits; each word may be set once.
  infer::TickDemand plan(Index in_flight = 0) {
    auto const demand = planner.plan(++tick, in_flight);
    for (auto const edits : {planner.edits().clears(), planner.edits().sets()}) {
      std::map<Row, int> times;
      for (auto const& edit : edits) {
        REQUIRE(++times[edit.word] == 1);
        words.at(static_cast<std::size_t>(edit.word)) = edit.value;
      }
    }
    copies.assign(planner.edits().copies().begin(), planner.edits().copies().end());
    planner.edits_made();
    planner.prelude_ran();
    return demand;
  }

  struct Sampled {
    Row slot = 0;
    Token token = 0;
    bool ends = false;
  };
  /// Reports for tick `which` that these cells went through the coda, and these slots made a token.
  void report(Index which, std::vector<std::pair<Row, Row>> const& finished, std::vector<Sampled> const& sampled) {
    std::vector<Row> report(static_cast<std::size_t>(ServingReport::size(kReportRows, kReportRows)), 0);
    ServingReport const layout{report, kReportRows};
    auto const put = [&](Index word, Index value) { report[static_cast<std::size_t>(word)] = static_cast<Row>(value); };
    put(ServingReport::FinishedRows, static_cast<Index>(finished.size()));
    put(ServingReport::SampledRows, static_cast<Index>(sampled.size()));
    for (std::size_t i = 0; i < finished.size(); ++i) {
      put(layout.finished(static_cast<Index>(i)), finished[i].first);
      put(layout.finished(static_cast<Index>(i)) + 1, finished[i].second);
    }
    for (std::size_t i = 0; i < sampled.size(); ++i) {
      Index const at = layout.sampled(static_cast<Index>(i));
      put(at, sampled[i].slot);
      put(at + 1, sampled[i].token);
      put(at + 2, math::float_word(-1.5F));
      put(at + 3, sampled[i].ends ? 1 : 0);
    }
    planner.absorb(which, report, kReportRows);
  }
  /// The prompt chunk of a slot went `depth` deep; a token where it was the last one.
  void finish_chunk(Row slot, Row depth, std::vector<Sampled> const& sampled = {}) {
    std::vector<std::pair<Row, Row>> finished;
    for (Index cell = tables.shape.slots; cell < tables.shape.cells(); ++cell) {
      bool const its = tables.at(tables.slot(cell)) == slot &&
                       tables.at(tables.status(cell)) == static_cast<Row>(CellStatus::Entering);
      if (!its) continue;
      finished.emplace_back(static_cast<Row>(cell), depth);
      words[static_cast<std::size_t>(tables.status(cell))] = static_cast<Row>(CellStatus::Idle);
    }
    report(tick, finished, sampled);
  }

  /// What a device does whose rows all take `depth` recursions in one tick.
  void run_all(Row depth) {
    run_all(depth, [] { return false; });
  }
  /// @param ends  whether the next token is the end token
  template <class Ends>
  void run_all(Row depth, Ends const& ends) {
    std::vector<std::pair<Row, Row>> finished;
    std::vector<Sampled> sampled;
    std::vector<Row> positions;
    for (Index cell = 0; cell < tables.shape.cells(); ++cell) {
      if (tables.at(tables.status(cell)) == static_cast<Row>(CellStatus::Idle)) continue;
      tables.at(tables.status(cell)) = static_cast<Row>(CellStatus::Idle);
      finished.emplace_back(static_cast<Row>(cell), depth);
      if (tables.at(tables.samples(cell)) == 0) continue;
      Row const slot = tables.at(tables.slot(cell));
      positions.push_back(tables.at(tables.position(cell)) + 1);
      sampled.push_back({slot, 61, positions.back() >= tables.at(tables.last_position(slot)) || ends()});
    }
    for (std::size_t i = 0; i < sampled.size(); ++i) {
      if (sampled[i].ends) continue;
      tables.at(tables.status(sampled[i].slot)) = static_cast<Row>(CellStatus::Entering);
      tables.at(tables.slot(sampled[i].slot)) = sampled[i].slot;
      tables.at(tables.position(sampled[i].slot)) = positions[i];
      tables.at(tables.samples(sampled[i].slot)) = 1;
    }
    report(tick, finished, sampled);
  }

  [[nodiscard]] Index used() const {
    auto const now = planner.statistics();
    return now.total_pages - now.free_pages;
  }
  [[nodiscard]] Index used_ends() const {
    auto const now = planner.statistics();
    return now.total_end_pages - now.free_end_pages;
  }
  [[nodiscard]] std::vector<Row> list(Index recursion, Index slot, Index pages) const {
    auto const begin = words.begin() + tables.block_pages() + tables.list_begin(recursion, slot);
    return {begin, begin + pages};
  }

  infer::Planner planner;
  std::vector<Row> words;
  ServingTables tables;
  std::vector<infer::PageCopy> copies;
  Index tick = 0;
};

}  // namespace mor::test
