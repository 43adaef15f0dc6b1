// SPDX-License-Identifier: Apache-2.0
/// @file
/// A host backend that writes down what every row of a serving engine sees: for each attention the (position, depth) of
/// the keys behind each place of the list, by what was really written there. It complains where a row reads a key that
/// nobody wrote or that belongs to another text, and where two rows in flight stand at one place.
#pragma once

#include "mor/backend/host/backend.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

namespace mor::test {

/// Depth of the rows of prelude and coda, which belong to no recursion.
inline constexpr Row kNoDepth = -1;

/// A key: the token at `position` of a text, as recursion `depth` projects it.
struct SeenKey {
  Row position = 0;
  Row depth = 0;
  bool operator==(SeenKey const&) const = default;
};

/// Which row looked, and into which storage: rows of different requests with the same text and knobs are the same row.
struct Look {
  std::uint64_t text = 0;  ///< of the knobs and the tokens up to the row's own
  Row depth = 0;
  Index plane = 0;  ///< in the order in which planes were first written
  auto operator<=>(Look const&) const = default;
};

class RecordingBackend : public host::Backend<float> {
  using Base = host::Backend<float>;

 public:
  using Base::Base;

  Index fails_after = -1;  ///< attentions until one throws; negative: never

  [[nodiscard]] std::map<Look, std::vector<SeenKey>> const& looks() const { return looks_; }
  [[nodiscard]] std::set<std::string> const& complaints() const { return complaints_; }
  [[nodiscard]] Index planes() const { return static_cast<Index>(planes_.size()); }

  /// The text that a `Look` names: knobs of the slot, then tokens.
  [[nodiscard]] static std::uint64_t begin_text(Row least, Row most, Row threshold) {
    return mix(mix(mix(1, least), most), threshold);
  }
  [[nodiscard]] static std::uint64_t mix(std::uint64_t text, Row token) {
    text = (text ^ static_cast<std::uint32_t>(token)) * 0x9E3779B97F4A7C15U;
    return text ^ (text >> 31);
  }

  // What rows the next verbs work on.
  void start_recursion(ServingTables const& tables, TickRule const& rule, ServingRows const& rows) {
    Base::start_recursion(tables, rule, rows);
    check_cells(tables);
    begin_stage(tables, rows, rows.depths);
  }
  void collect_finished(ServingTables const& tables, TickRule const& rule, ServingReport const& report, ServingRows const& rows,
                        SampledRows const& sampled) {
    Base::collect_finished(tables, rule, report, rows, sampled);
    begin_stage(tables, rows, {});
  }
  void collect_entering(ServingTables const& tables, ServingRows const& rows, std::span<Token> tokens,
                        ServingReport const& report) {
    Base::collect_entering(tables, rows, tokens, report);
    begin_stage(tables, rows, {});
  }

  // Who writes keys.
  void project_keys(View<float const> x, std::span<float const> norm, double eps, View<float const> weights,
                    std::span<Row const> positions, Index head_dim, double theta, KeyList const& write, View<float> q,
                    View<float> plane_k, View<float> plane_v) {
    Base::project_keys(x, norm, eps, weights, positions, head_dim, theta, write, q, plane_k, plane_v);
    note_written(write, plane_k);
    note_written(write, plane_v);
  }
  void write_keys(View<float const> x, KeyList const& keys, View<float> storage) {
    Base::write_keys(x, keys, storage);
    note_written(keys, storage);
  }
  void gather_rows(View<float const> x, std::span<Row const> rows, View<float> out) {
    Base::gather_rows(x, rows, out);
    carried_.clear();
    auto const plane = planes_.find(x.data);
    if (plane == planes_.end()) return;
    for (Row const row : rows) carried_.push_back(plane->second.keys[static_cast<std::size_t>(row)]);
  }
  void scatter_rows(View<float const> x, std::span<Row const> rows, View<float> out) {
    Base::scatter_rows(x, rows, out);
    auto const plane = planes_.find(out.data);
    if (plane == planes_.end()) return;
    for (std::size_t i = 0; i < rows.size(); ++i) plane->second.keys[static_cast<std::size_t>(rows[i])] = carried_[i];
  }

  // Who reads them.
  void attention(View<float const> q, View<float const> k, View<float const> v, KeyList const& keys,
                 AttentionShape const& shape, View<float> out, View<float> lse) {
    if (fails_after-- == 0) fail(ErrorCode::OutOfMemory, "no memory", "RecordingBackend", "some", "none");
    Base::attention(q, k, v, keys, shape, out, lse);
    for (std::size_t i = 0; i < keys.limits.size(); ++i) {
      if (i >= stage_.size()) {
        if (keys.limits[i] != 0) complaints_.insert("a padding row sees keys");
        continue;
      }
      note_seen(i, keys, k.data);
      note_seen(i, keys, v.data);
    }
  }

 private:
  /// A row of the stage: its text, token by token, as far as its own.
  struct StageRow {
    std::vector<std::uint64_t> texts;
    Row depth = kNoDepth;
  };
  struct StoredKey {
    std::uint64_t text = 0;  ///< 0: nothing was written here
    SeenKey key;
  };
  struct Plane {
    Index number = 0;
    std::vector<StoredKey> keys;
  };

  void begin_stage(ServingTables const& tables, ServingRows const& rows, std::span<Row const> depths) {
    stage_.clear();
    for (Row i = 0; i < rows.count[0]; ++i) {
      auto const at = static_cast<std::size_t>(i);
      Row const slot = tables.at(tables.slot(rows.cells[at]));
      StageRow row;
      if (!depths.empty()) row.depth = depths[at];
      std::uint64_t text = begin_text(tables.at(tables.least_depth(slot)), tables.at(tables.most_depth(slot)),
                                      tables.at(tables.threshold(slot)));
      for (Row p = 0; p <= rows.positions[at]; ++p) {
        row.texts.push_back(text = mix(text, tables.at(tables.text() + slot * tables.shape.context + p)));
      }
      stage_.push_back(std::move(row));
    }
  }

  /// I1: one row at each (slot, position); of a slot its own cell, or neighbours of a prompt that stand at one depth.
  void check_cells(ServingTables const& tables) {
    std::map<Row, std::vector<Index>> cells_of;
    for (Index cell = 0; cell < tables.shape.cells(); ++cell) {
      if (tables.at(tables.status(cell)) != static_cast<Row>(CellStatus::Idle)) {
        cells_of[tables.at(tables.slot(cell))].push_back(cell);
      }
    }
    for (auto const& [slot, cells] : cells_of) {
      if (cells.size() > 1 && cells.front() < tables.shape.slots)
        complaints_.insert("a slot decodes while its prompt is on its way");
      if (cells.front() < tables.shape.slots && cells.front() != slot)
        complaints_.insert("a slot decodes in another one's cell");
      std::set<Row> ready;
      for (std::size_t i = 0; i < cells.size(); ++i) {
        Row const position = tables.at(tables.position(cells[i]));
        if (i > 0 && position != tables.at(tables.position(cells[i - 1])) + cells[i] - cells[i - 1]) {
          complaints_.insert("rows of a prompt are not in order of position");
        }
        if (tables.at(tables.status(cells[i])) == static_cast<Row>(CellStatus::Ready))
          ready.insert(tables.at(tables.depth(cells[i])));
      }
      if (ready.size() > 1) complaints_.insert("rows of a prompt wait for different recursions");
    }
  }

  void note_written(KeyList const& keys, View<float> storage) {
    auto& plane = planes_[storage.data];
    if (plane.keys.empty()) {
      plane.number = static_cast<Index>(planes_.size()) - 1;
      plane.keys.resize(static_cast<std::size_t>(storage.rows));
    }
    for (std::size_t i = 0; i < keys.limits.size(); ++i) {
      if (keys.limits[i] == 0) continue;
      if (i >= stage_.size()) {
        complaints_.insert("a padding row writes a key");
        continue;
      }
      Index const row = key_row(keys, static_cast<Index>(i), keys.limits[i] - 1);
      auto const& texts = stage_[i].texts;
      plane.keys[static_cast<std::size_t>(row)] = {texts.back(), {static_cast<Row>(texts.size()) - 1, stage_[i].depth}};
    }
  }

  void note_seen(std::size_t i, KeyList const& keys, float const* storage) {
    auto const plane = planes_.find(storage);
    if (plane == planes_.end()) {
      complaints_.insert("a row sees storage that nobody wrote");
      return;
    }
    auto const& row = stage_[i];
    std::vector<SeenKey> seen;
    for (Index key = 0; key < keys.limits[i]; ++key) {
      auto const& stored = plane->second.keys[static_cast<std::size_t>(key_row(keys, static_cast<Index>(i), key))];
      if (stored.text == 0) complaints_.insert("a row sees a key that nobody wrote");
      auto const position = static_cast<std::size_t>(stored.key.position);
      if (position >= row.texts.size() || row.texts[position] != stored.text)
        complaints_.insert("a row sees a key of another text");
      seen.push_back(stored.key);
    }
    auto const [found, is_new] = looks_.try_emplace({row.texts.back(), row.depth, plane->second.number}, seen);
    if (!is_new && found->second != seen) complaints_.insert("the same row of two equal texts sees different keys");
  }

  std::map<float const*, Plane> planes_;
  std::vector<StageRow> stage_;
  std::vector<StoredKey> carried_;
  std::map<Look, std::vector<SeenKey>> looks_;
  std::set<std::string> complaints_;
};

static_assert(ServingBackend<RecordingBackend>);

}  // namespace mor::test
