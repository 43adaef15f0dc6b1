// SPDX-License-Identifier: Apache-2.0
#include "mor/backend/trace/backend.hpp"

#include "support/catch.hpp"

#include <vector>

namespace trace = mor::trace;
using mor::Index;
using mor::Row;
using Trace = trace::Backend<float, float>;
using Rows = std::vector<Row>;

namespace {
constexpr mor::AttentionShape heads{4, 2, 8, 0.25};  // queries 32 wide, keys 16

/// An attention over sets with these offsets; its key storage has `stored` rows.
struct Attention {
  Trace backend;
  Rows offsets;
  Index stored;
  std::span<Row> limits;

  Attention(Rows offsets_, Index stored_) : offsets(std::move(offsets_)), stored(stored_) {
    limits = backend.arena().allocate<Row>(queries());
  }
  [[nodiscard]] Index queries() const { return offsets.back(); }

  trace::Operation const& forward(Index max_limit) {
    auto& arena = backend.arena();
    auto const q = arena.matrix<float>(queries(), 32), k = arena.matrix<float>(stored, 16);
    backend.attention(q, k, k, keys(max_limit), heads, q, arena.matrix<float>(queries(), 4));
    return backend.operations().back();
  }
  trace::Operation const& backward(Index max_limit) {
    auto& arena = backend.arena();
    auto const q = arena.matrix<float>(queries(), 32), k = arena.matrix<float>(stored, 16);
    backend.attention_backward(q, k, k, keys(max_limit), heads, q, arena.matrix<float>(queries(), 4), q, q, k, k);
    return backend.operations().back();
  }

 private:
  [[nodiscard]] mor::KeyList keys(Index max_limit) {
    auto const sequences = static_cast<Index>(offsets.size()) - 1;
    return {sequences, queries(), max_limit, backend.arena().allocate<Row>(sequences + 1), offsets,
            backend.arena().allocate<Row>(sequences), limits};
  }
};

constexpr Index per_score = 4 * 8 * 4;  // 4 E H
}  // namespace

TEST_CASE("causal attention counts half the square and its backward 2.5 times that") {
  Attention a({0, 3, 8}, 8);
  a.backend.causal_limits(a.backend.upload(a.offsets), {}, {}, {}, a.limits);
  // 1+2+3 and 1+...+5 visible scores.
  auto const forward = a.forward(5);
  CHECK(forward.flops == (6 + 15) * per_score);
  CHECK(forward.is_matrix);
  // q and both keys of 8 rows, then offsets, begins and limits; out and lse.
  CHECK(forward.bytes_read == 8 * 32 * 4 + 2 * 8 * 16 * 4 + (3 + 2 + 8) * 4);
  CHECK(forward.bytes_written == 8 * 32 * 4 + 8 * 4 * 4);
  auto const backward = a.backward(5);
  CHECK(backward.flops == (6 + 15) * per_score * 5 / 2);
  CHECK(backward.bytes_read == 3 * 8 * 32 * 4 + 8 * 4 * 4 + 4 * 8 * 16 * 4 + (3 + 2 + 8) * 4);
  CHECK(backward.bytes_written == 8 * 32 * 4 + 2 * 8 * 16 * 4);
  CHECK(forward.shapes[3] == trace::Shape{2, 5});
}

TEST_CASE("a base adds the cached keys to every query") {
  Attention a({0, 1, 4}, 40);
  Rows const base{10, 20};
  a.backend.causal_limits(a.backend.upload(a.offsets), {}, {}, a.backend.upload(base), a.limits);
  auto const operation = a.forward(23);
  CHECK(operation.flops == (11 + 21 + 22 + 23) * per_score);
  CHECK(operation.bytes_read == 4 * 32 * 4 + 2 * (11 + 23) * 16 * 4 + (3 + 2 + 4) * 4);
}

TEST_CASE("rows chosen by the host give exact ranks in the batch") {
  Attention a({0, 2, 4}, 12);
  Rows const chosen{1, 5, 6, 11}, batch{0, 6, 12};
  a.backend.causal_limits(a.backend.upload(a.offsets), a.backend.upload(chosen), a.backend.upload(batch), {}, a.limits);
  CHECK(a.forward(6).flops == (2 + 6 + 1 + 6) * per_score);
}

TEST_CASE("rows chosen by a router count as a uniform choice from their sequence") {
  Attention a({0, 3, 7}, 20);
  Rows const batch{0, 10, 20};
  auto const chosen = a.backend.arena().allocate<Row>(7);
  a.backend.causal_limits(a.backend.upload(a.offsets), chosen, a.backend.upload(batch), {}, a.limits);
  // 3 and 4 rows, on average (10 + 1) / 2 keys each.
  CHECK(a.forward(10).flops == (3 * 11 + 4 * 11) * per_score / 2);
}

TEST_CASE("all rows chosen by a router is the causal square again") {
  Attention a({0, 9}, 9);
  Rows const batch{0, 9};
  auto const chosen = a.backend.arena().allocate<Row>(9);
  a.backend.causal_limits(a.backend.upload(a.offsets), chosen, a.backend.upload(batch), {}, a.limits);
  CHECK(a.forward(9).flops == 45 * per_score);
}

TEST_CASE("limits of the host's making are exact") {
  Attention a({0, 2}, 50);
  Rows const limits{17, 50};
  auto const uploaded = a.backend.upload(limits);
  a.limits = {const_cast<Row*>(uploaded.data()), uploaded.size()};
  CHECK(a.forward(50).flops == 67 * per_score);
}

TEST_CASE("without known offsets attention falls back to what the key list says") {
  Attention a({0, 3, 7}, 20);
  auto const unknown = a.backend.arena().allocate<Row>(3);
  SECTION("rank in the set") {
    a.backend.causal_limits(unknown, {}, {}, {}, a.limits);
    CHECK(a.forward(4).flops == (6 + 10) * per_score);
  }
  SECTION("rank in the batch") {
    a.backend.causal_limits(unknown, a.backend.arena().allocate<Row>(7), unknown, {}, a.limits);
    CHECK(a.forward(9).flops == 7 * 10 * per_score / 2);
  }
  SECTION("an unknown base") {
    a.backend.causal_limits(unknown, {}, {}, a.backend.arena().allocate<Row>(2), a.limits);
    CHECK(a.forward(9).flops == 7 * 9 * per_score);
  }
  SECTION("limits from elsewhere") { CHECK(a.forward(9).flops == 7 * 9 * per_score); }
}

TEST_CASE("limits written over older ones are the ones that count") {
  Attention a({0, 4}, 4);
  a.backend.causal_limits(a.backend.upload(a.offsets), {}, {}, {}, a.limits);
  CHECK(a.forward(4).flops == 10 * per_score);
  // The same memory from its second row on, now for one sequence of three rows whose offsets nobody uploaded.
  a.offsets = {0, 3};
  a.limits = a.limits.subspan(1);
  a.backend.causal_limits(a.backend.arena().allocate<Row>(2), {}, {}, {}, a.limits);
  CHECK(a.forward(4).flops == 6 * per_score);
}

TEST_CASE("attention over no queries costs nothing") {
  Attention a({0, 0}, 5);
  a.backend.causal_limits(a.backend.upload(a.offsets), {}, {}, {}, a.limits);
  CHECK(a.backend.operations().back().bytes() == 0);
  auto const operation = a.forward(0);
  CHECK(operation.flops == 0);
  CHECK(operation.bytes() == 0);
}

TEST_CASE("attention refuses key lists that disagree with the queries") {
  Attention a({0, 4}, 4);
  a.offsets = {0, 3};
  auto const q = a.backend.arena().matrix<float>(4, 32), k = a.backend.arena().matrix<float>(4, 16);
  auto const lse = a.backend.arena().matrix<float>(4, 4);
  mor::KeyList const keys{1, 4, 4, {}, a.offsets, {}, a.limits};
  CHECK_THROWS_AS(a.backend.attention(q, k, k, keys, heads, q, lse), mor::error);
  Rows const wrong{0, 5};
  CHECK_THROWS_AS(a.backend.causal_limits(a.backend.upload(wrong), {}, {}, {}, a.limits), mor::error);
}

TEST_CASE("written keys move once") {
  Attention a({0, 4}, 9);
  auto const x = a.backend.arena().matrix<float>(4, 16);
  auto& arena = a.backend.arena();
  mor::KeyList const keys{1, 4, 9, arena.allocate<Row>(2), a.offsets, arena.allocate<Row>(1), a.limits};
  a.backend.write_keys(x, keys, a.backend.arena().matrix<float>(9, 16));
  CHECK(a.backend.operations().back().bytes_written == 4 * 16 * 4);
  CHECK(a.backend.operations().back().bytes_read == 4 * 16 * 4 + (2 + 1 + 4) * 4);
}
