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
/// Candidates with these offsets, as a router gets them.
struct Candidates {
  Trace backend;
  Rows offsets;

  Candidates(trace::Options options, Rows offsets_) : backend(std::move(options)), offsets(std::move(offsets_)) {}

  [[nodiscard]] mor::ActiveSet<float> set() {
    mor::ActiveSet<float> result;
    result.num_rows = offsets.back();
    result.num_sequences = static_cast<Index>(offsets.size()) - 1;
    result.host_offsets = offsets;
    result.sequence_offsets = backend.upload(offsets);
    return result;
  }
  [[nodiscard]] Rows counts(std::vector<double> const& thresholds) {
    Rows result(thresholds.size() * (offsets.size() - 1), -1);
    backend.count_at_least(backend.arena().allocate<float>(offsets.back()), set(), thresholds, result);
    return result;
  }
  [[nodiscard]] mor::Selection selection(Index kept) {
    auto& arena = backend.arena();
    return {arena.allocate<Row>(kept), arena.allocate<Row>(kept), arena.allocate<Row>(kept)};
  }
};

trace::Options uniform(double share) {
  trace::Options options;
  options.assumed_depth = trace::AssumedDepth::Uniform;
  options.share = share;
  return options;
}
}  // namespace

TEST_CASE("worst-case counts are all candidates") {
  Candidates c({}, {0, 4, 4, 11});
  CHECK(c.counts({0.0, 1.0}) == Rows{4, 0, 7, 4, 0, 7});
  CHECK(c.counts({0.0}) == Rows{4, 0, 7});
}

TEST_CASE("uniform counts fall by equal shares over thresholds, rounded up") {
  Candidates c(uniform(0.25), {0, 6, 6, 13});
  CHECK(c.counts({0.0, 1.0, 2.0}) == Rows{6, 0, 7, 4, 0, 5, 2, 0, 3});
  CHECK(c.counts({0.0}) == Rows{2, 0, 2});
  CHECK(c.counts({}).empty());
}

TEST_CASE("a share outside 0 to 1 is refused") {
  CHECK_THROWS_AS(Trace(uniform(1.5)), mor::error);
  CHECK_THROWS_AS(Trace(uniform(-0.1)), mor::error);
}

TEST_CASE("selection reads every score and writes what it keeps") {
  Candidates c({}, {0, 6, 13});
  Rows const kept{0, 3, 7};
  auto const scores = c.backend.arena().allocate<float>(13);
  c.backend.select_top_k(scores, c.set(), kept, c.selection(7));
  auto const& operation = c.backend.operations().back();
  CHECK(operation.name == "select_top_k");
  CHECK(operation.bytes_read == 13 * 4 + 3 * 4 + 2 * 7 * 4);
  CHECK(operation.bytes_written == 3 * 7 * 4);
  CHECK(operation.flops == 0);
  CHECK_THROWS_AS(c.backend.select_at_least(scores, 0.0, c.set(), kept, c.selection(6)), mor::error);
  CHECK_THROWS_AS(c.backend.select_top_k(scores.subspan(1), c.set(), kept, c.selection(7)), mor::error);
}

TEST_CASE("router verbs count one entry a candidate or a slot") {
  Trace b;
  auto& arena = b.arena();
  auto const logits = arena.allocate<float>(10), gate = arena.allocate<float>(4), statistics = arena.allocate<float>(4);
  auto const slots = arena.allocate<Row>(4);
  b.random_scores(1, 2, arena.allocate<Row>(10), mor::View<float>(logits.data(), 10, 1));
  CHECK(b.operations().back().bytes() == 80);
  b.router_gate(logits, slots, mor::RouterActivation::Sigmoid, 0.1, gate);
  CHECK(b.operations().back().flops == 16);
  b.router_gate_backward(logits, slots, mor::RouterActivation::Sigmoid, 0.1, gate, logits);
  CHECK(b.operations().back().flops == 32);
  b.router_bce(logits, slots, 1.0, statistics, {});
  CHECK(b.operations().back().flops == 60);
  b.router_bce(logits, slots, 1.0, statistics, logits);
  CHECK(b.operations().back().flops == 120);
  CHECK_THROWS_AS(b.router_bce(logits, slots, 1.0, statistics.first(1), logits), mor::error);
}

TEST_CASE("token choice verbs count one entry a token and recursion") {
  Trace b;
  auto& arena = b.arena();
  auto const logits = arena.matrix<float>(10, 3), probabilities = arena.matrix<float>(10, 3);
  auto const choice = arena.allocate<float>(10), gate = arena.allocate<float>(10);
  auto const statistics = arena.allocate<float>(4);
  auto const softmax = mor::RouterActivation::Softmax;
  b.token_choice(logits, {}, softmax, 1.0, false, probabilities, choice, gate);
  CHECK(b.operations().back().bytes_read == 120);
  CHECK(b.operations().back().bytes_written == 120 + 80);
  b.balance_loss(probabilities, choice, 0.1, statistics, logits);
  b.token_choice_backward(probabilities, choice, softmax, 1.0, gate, logits, logits);
  CHECK(b.operations().back().bytes_read == 3 * 120 + 80);
  b.token_choice_backward(probabilities, choice, softmax, 1.0, gate, {}, logits);
  CHECK(b.operations().back().bytes_read == 2 * 120 + 80);
  auto const rows = arena.allocate<Row>(6);
  auto const scale = arena.allocate<float>(6);
  b.token_choice_weights(choice, gate, rows, 1, false, false, scale, scale);
  CHECK(b.operations().back().bytes() == 24 + 2 * 48);
  b.token_choice_weights_backward(choice, rows, 1, false, scale, gate);
  CHECK(b.operations().back().bytes() == 24 + 4 * 24);
  CHECK_THROWS_AS(b.token_choice_weights(choice, gate, rows, 1, false, false, gate, scale), mor::error);
  b.z_loss(logits, 0.1, statistics, logits);
  CHECK(trace::first_out_of_order(b.operations(), {"token_choice", "balance_loss", "token_choice_backward", "z_loss"})
            .empty());
  CHECK_THROWS_AS(b.balance_loss(probabilities, choice, 0.1, statistics.first(3), logits), mor::error);
  CHECK_THROWS_AS(b.token_choice(logits, choice, softmax, 1.0, false, probabilities, choice, gate), mor::error);
}
