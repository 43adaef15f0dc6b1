// SPDX-License-Identifier: Apache-2.0
/// @file
/// `ServingState`: everything of a serving engine that lies in the backend's memory, allocated once: tables, key storage,
/// the hidden rows of all cells, and the lists of rows of each stage.
#pragma once

#include "mor/contract/serving_router.hpp"
#include "mor/core/serving_tables.hpp"

#include <algorithm>
#include <array>
#include <span>
#include <vector>

namespace mor::infer {

/// Keys and values of one layer in pages.
template <class B>
struct PagedPlane {
  using Scalar = typename B::scalar_type;
  PagedPlane(B& backend, Index rows, Index columns)
      : k_(backend.memory(), rows * columns), v_(backend.memory(), rows * columns), rows_(rows), columns_(columns) {
    backend.fill(k(), 0.0);
    backend.fill(v(), 0.0);
  }
  [[nodiscard]] View<Scalar> k() const { return {k_.data(), rows_, columns_}; }
  [[nodiscard]] View<Scalar> v() const { return {v_.data(), rows_, columns_}; }

 private:
  Buffer<Scalar> k_, v_;
  Index rows_, columns_;
};

/// Sizes of the stages' lists.
struct StageRooms {
  Index recursion = 1, finished = 1, sampled = 1, entering = 1;
  [[nodiscard]] Index largest() const { return std::max({recursion, finished, sampled, entering}); }
};

template <class B>
class ServingState {
 public:
  using Scalar = typename B::scalar_type;
  using Real = typename B::real_type;

  /// @param ticks  of a launch at most
  ServingState(B& backend, ServingShape const& shape, StageRooms const& rooms, Index hidden_size, bool keeps_entry,
               Index ticks = 1)
      : rooms_(rooms),
        words_(backend.memory(), ServingTables{shape, nullptr}.size()),
        lists_(backend.memory(), 10 * rooms.recursion + 6 * rooms.finished + 7 * rooms.entering + 2 * rooms.sampled + 8),
        rules_(backend.memory(), rooms.sampled),
        report_(backend.memory(), ServingReport::size(rooms.finished, rooms.sampled)),
        order_(backend.memory(), rooms.largest() + 1),
        tokens_(backend.memory(), std::max(rooms.entering, rooms.sampled)),
        hidden_(backend.memory(), bank_rows(shape) * hidden_size),
        entry_(backend.memory(), keeps_entry ? bank_rows(shape) * hidden_size : 0),
        values_(backend.memory(), 2 * bank_rows(shape)),
        log_(backend.memory(), ticks > 1 ? TickLog::size(ticks, report_.size()) : 0),
        ticks_(ticks),
        tables_{shape, words_.data()} {
    backend.fill(words_.span(), Row{0});
    backend.fill(report_.span(), Row{0});
    backend.fill(lists_.span(), Row{0});
    if (ticks > 1) backend.fill(log_.span(), Row{0});
    std::vector<Row> iota(static_cast<std::size_t>(order_.size()));
    for (std::size_t i = 0; i < iota.size(); ++i) iota[i] = static_cast<Row>(i);
    backend.store(std::span<Row const>(iota), order_.span());
    host_order_ = std::move(iota);
    Index const rows = bank_rows(shape);
    bank_.hidden = {hidden_.data(), rows, hidden_size};
    if (keeps_entry) bank_.entry = {entry_.data(), rows, hidden_size};
    bank_.gate = values_.span().first(static_cast<std::size_t>(rows));
    bank_.choice = values_.span().subspan(static_cast<std::size_t>(rows));
    backend.fill(bank_.hidden, 0.0);
    if (keeps_entry) backend.fill(bank_.entry, 0.0);
    backend.fill_values(0.0, values_.span());
  }

  [[nodiscard]] ServingTables const& tables() const { return tables_; }
  [[nodiscard]] ServingBank<B> const& bank() const { return bank_; }
  [[nodiscard]] StageRooms const& rooms() const { return rooms_; }
  [[nodiscard]] std::span<Row const> order() const { return order_.span(); }
  [[nodiscard]] std::span<Row const> host_order() const { return host_order_; }
  [[nodiscard]] std::span<Row> report_words() const { return report_.span(); }
  [[nodiscard]] ServingReport report() const { return {report_.span(), rooms_.finished}; }
  /// No words where launches have one tick.
  [[nodiscard]] TickLog log() const { return {log_.span(), ticks_, report_.size()}; }
  [[nodiscard]] std::span<Token> tokens(Index rows) const { return tokens_.span().first(static_cast<std::size_t>(rows)); }

  /// The first `rows` rows of a stage's lists; the same memory in every call.
  [[nodiscard]] ServingRows recursion_rows(Index rows) const {
    Taker take{lists_.span(), 0};
    Index const room = rooms_.recursion;
    ServingRows list;
    for (auto* const field : {&list.cells, &list.positions, &list.depths, &list.begins, &list.limits, &list.base_begins,
                              &list.base_limits, &list.first_limits}) {
      *field = take(room, rows);
    }
    list.count = counts(0);
    return list;
  }
  [[nodiscard]] ServingRows finished_rows(Index rows) const {
    Taker take{lists_.span(), 10 * rooms_.recursion};
    ServingRows list;
    for (auto* const field : {&list.cells, &list.positions, &list.depths, &list.begins, &list.limits}) {
      *field = take(rooms_.finished, rows);
    }
    list.count = counts(1);
    return list;
  }
  [[nodiscard]] ServingRows entering_rows(Index rows) const {
    Taker take{lists_.span(), 10 * rooms_.recursion + 6 * rooms_.finished};
    ServingRows list;
    for (auto* const field : {&list.cells, &list.positions, &list.begins, &list.limits, &list.least, &list.most}) {
      *field = take(rooms_.entering, rows);
    }
    list.count = counts(2);
    return list;
  }
  [[nodiscard]] SampledRows sampled_rows(Index rows) const {
    Taker take{lists_.span(), 10 * rooms_.recursion + 6 * rooms_.finished + 7 * rooms_.entering};
    SampledRows list;
    list.cells = take(rooms_.sampled, rows);
    list.sources = take(rooms_.sampled, rows);
    list.rules = rules_.span().first(static_cast<std::size_t>(rows));
    list.count = counts(3);
    return list;
  }

 private:
  struct Taker {
    std::span<Row> memory;
    Index at;
    std::span<Row> operator()(Index room, Index rows) {
      auto const taken = memory.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(rows));
      at += room;
      return taken;
    }
  };
  /// Padding rows of every list have rows of the banks of their own, behind the cells.
  [[nodiscard]] Index bank_rows(ServingShape const& shape) const { return shape.cells() + rooms_.largest(); }
  [[nodiscard]] std::span<Row> counts(Index stage) const {
    return lists_.span().last(static_cast<std::size_t>(8 - stage)).first(1);
  }

  StageRooms rooms_;
  Buffer<Row> words_, lists_;
  Buffer<SamplingRule> rules_;
  Buffer<Row> report_, order_;
  Buffer<Token> tokens_;
  Buffer<Scalar> hidden_, entry_;
  Buffer<Real> values_;
  Buffer<Row> log_;
  Index ticks_;
  std::vector<Row> host_order_;
  ServingTables tables_;
  ServingBank<B> bank_;
};

}  // namespace mor::infer
