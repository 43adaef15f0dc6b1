// SPDX-License-Identifier: Apache-2.0
/// @file
/// A serving engine's tables and lists twice, in host and in device memory, with the same random contents: what a verb
/// writes must be the same words on both sides, and nothing else may change.
#pragma once

#include "cuda/device.cuh"
#include "cuda/guarded_rows.cuh"

#include "mor/core/serving_tables.hpp"
#include "mor/math/serving.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <random>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

namespace mor::test {

/// Which states the cells of random tables have.
enum class Cells { Mixed, AllIdle, AllEntering, AllReady, AllFinished };

struct RandomTables {
  ServingShape shape;
  std::vector<Row> words;

  RandomTables(ServingShape const& shape_, Cells cells, unsigned seed) : shape(shape_), engine_(seed) {
    words.resize(static_cast<std::size_t>(tables().size()));
    for (Row& word : words) word = draw(0, 1000);
    fill_cells(cells);
    for (Index slot = 0; slot < shape.slots; ++slot) fill_slot(slot);
    for (Index cell = shape.slots; cell < shape.cells(); ++cell) set(tables().samples(cell), 0);
    // Of a slot's cells at most one makes a token.
    for (Index cell = shape.slots; cell < shape.cells(); ++cell) {
      bool const last = cell + 1 == shape.cells() || get(tables().slot(cell + 1)) != get(tables().slot(cell));
      if (!last || draw(0, 1) == 0 || has_prompt_sample(get(tables().slot(cell)))) continue;
      set(tables().samples(cell), 1);
      set(tables().samples(get(tables().slot(cell))), 0);
    }
    set(tables().turn(), draw(0, static_cast<Row>(shape.slots) - 1));
  }
  [[nodiscard]] ServingTables tables() { return {shape, words.data()}; }
  [[nodiscard]] Row draw(Row least, Row most) { return std::uniform_int_distribution<Row>(least, most)(engine_); }
  [[nodiscard]] float draw_float() { return std::uniform_real_distribution<float>(-1.0F, 1.0F)(engine_); }

 private:
  void set(Index word, Row value) { words[static_cast<std::size_t>(word)] = value; }
  [[nodiscard]] Row get(Index word) const { return words[static_cast<std::size_t>(word)]; }
  [[nodiscard]] bool has_prompt_sample(Row slot) {
    for (Index cell = shape.slots; cell < shape.cells(); ++cell) {
      if (get(tables().slot(cell)) == slot && get(tables().samples(cell)) != 0) return true;
    }
    return false;
  }
  void fill_cells(Cells cells) {
    Row owner = 0;
    for (Index cell = 0; cell < shape.cells(); ++cell) {
      if (cell == shape.slots || draw(0, 20) == 0) owner = draw(0, static_cast<Row>(shape.slots) - 1);
      Row const status = cells == Cells::Mixed ? draw(0, 3) : static_cast<Row>(cells) - 1;
      set(tables().status(cell), status);
      set(tables().slot(cell), cell < shape.slots ? static_cast<Row>(cell) : owner);
      set(tables().position(cell), draw(0, static_cast<Row>(shape.context) - 2));
      set(tables().depth(cell), draw(0, static_cast<Row>(shape.recursions) - 1));
      set(tables().samples(cell), 1);
    }
  }
  void fill_slot(Index slot) {
    auto const recursions = static_cast<Row>(shape.recursions);
    Row const least = draw(1, recursions);
    set(tables().pending(slot), draw(0, 3) == 0 ? 1 : 0);
    set(tables().end_token(slot), draw(-1, 3));
    set(tables().last_position(slot), draw(1, static_cast<Row>(shape.context) - 1));
    set(tables().least_depth(slot), least);
    set(tables().most_depth(slot), draw(least, recursions));
    set(tables().threshold(slot), math::float_word(draw_float()));
    SamplingRule rule;
    rule.seed = (std::uint64_t{engine_()} << 32) | engine_();
    rule.temperature = draw_float();
    rule.top_p = draw_float();
    rule.min_p = draw_float();
    rule.repetition_penalty = draw(0, 1) == 0 ? 1.0F : draw_float();
    rule.top_k = draw(0, 50);
    math::rule_to_words(rule, &tables().at(tables().rule(slot)));
  }

  std::mt19937 engine_;
};

static_assert(static_cast<Row>(Cells::AllFinished) - 1 == static_cast<Row>(CellStatus::Finished));

/// Lists of one memory: ten of rows, in the order of `ServingRows`, and their count.
template <class List>
struct ListSet {
  std::array<List, 10> lists;
  List count;

  [[nodiscard]] ServingRows rows() {
    std::array<std::span<Row>, 10> s;
    for (std::size_t i = 0; i < s.size(); ++i) s[i] = span(lists[i]);
    return {s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9], span(count)};
  }
  [[nodiscard]] static std::span<Row> span(std::vector<Row>& rows) { return rows; }
  [[nodiscard]] static std::span<Row> span(GuardedRows& rows) { return rows.span(); }
};

/// Which lists a stage has, in the order of `ServingRows`.
using Present = std::array<bool, 10>;
inline constexpr Present kRecursionLists{true, true, true, true, true, true, true, true, false, false};
inline constexpr Present kFinishedLists{true, true, true, true, true, false, false, false, false, false};
inline constexpr Present kEnteringLists{true, true, false, true, true, false, false, false, true, true};
inline constexpr Present kAllLists{true, true, true, true, true, true, true, true, true, true};

/// The same poisoned lists in both memories.
struct ListPair {
  ListSet<std::vector<Row>> host;
  ListSet<GuardedRows> device;

  ListPair(Device& d, std::size_t room, Present const& present) : device{make(d, room, present), GuardedRows(d, 1)} {
    for (std::size_t i = 0; i < present.size(); ++i) host.lists[i].assign(present[i] ? room : 0, GuardedRows::kPoison);
    host.count.assign(1, GuardedRows::kPoison);
  }
  [[nodiscard]] bool same() const {
    bool result = device.count.values() == host.count && device.count.intact();
    for (std::size_t i = 0; i < host.lists.size(); ++i) {
      result = result && device.lists[i].values() == host.lists[i] && device.lists[i].intact();
    }
    return result;
  }

 private:
  static std::array<GuardedRows, 10> make(Device& d, std::size_t room, Present const& p) {
    auto const list = [&](std::size_t i) { return GuardedRows(d, p[i] ? room : 0); };
    return {list(0), list(1), list(2), list(3), list(4), list(5), list(6), list(7), list(8), list(9)};
  }
};

/// The rows that make a token, in both memories.
struct SampledPair {
  std::vector<Row> host_cells, host_sources, host_count;
  std::vector<SamplingRule> host_rules;
  GuardedRows cells, sources, count;
  Buffer<SamplingRule> rules;

  SampledPair(Device& d, std::size_t room)
      : host_cells(room, GuardedRows::kPoison),
        host_sources(room, GuardedRows::kPoison),
        host_count(1, GuardedRows::kPoison),
        host_rules(room),
        cells(d, room),
        sources(d, room),
        count(d, 1),
        rules(d.memory(), static_cast<Index>(room)) {}
  [[nodiscard]] SampledRows host() { return {host_cells, host_sources, host_rules, host_count}; }
  [[nodiscard]] SampledRows device() { return {cells.span(), sources.span(), rules.span(), count.span()}; }
  [[nodiscard]] bool same() const {
    settle();
    std::vector<SamplingRule> got(host_rules.size());
    cuda::check(cudaMemcpy(got.data(), rules.data(), got.size() * sizeof(SamplingRule), cudaMemcpyDeviceToHost),
                "cudaMemcpy");
    auto const fields = [](SamplingRule const& r) {
      return std::tuple(r.seed, r.counter, math::float_word(r.temperature), math::float_word(r.top_p),
                        math::float_word(r.min_p), math::float_word(r.repetition_penalty), r.top_k, r.history_begin,
                        r.history_length);
    };
    bool const rules_same = std::equal(got.begin(), got.end(), host_rules.begin(),
                                       [&](auto const& a, auto const& b) { return fields(a) == fields(b); });
    return rules_same && cells.values() == host_cells && sources.values() == host_sources &&
           count.values() == host_count && cells.intact() && sources.intact() && count.intact();
  }
};

/// Words in both memories.
struct WordPair {
  std::vector<Row> host;
  GuardedRows device;

  WordPair(Device& d, std::vector<Row> words) : host(std::move(words)), device(d, host.size()) {
    cuda::check(cudaMemcpy(device.span().data(), host.data(), host.size() * sizeof(Row), cudaMemcpyHostToDevice),
                "cudaMemcpy");
    settle();
  }
  [[nodiscard]] bool same() const { return device.values() == host && device.intact(); }
};

}  // namespace mor::test
