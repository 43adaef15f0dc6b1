// SPDX-License-Identifier: Apache-2.0
#include "support/catch.hpp"
#include "support/gradcheck.hpp"
#include "support/matrix.hpp"

#include "mor/backend/host/backend.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

using namespace mor;
using mor::test::Matrix;

namespace {

/// An active set over a batch: candidate i is row 2 i + 1, at position 3 i.
struct Candidates {
  explicit Candidates(std::vector<Row> offsets_) : offsets(std::move(offsets_)) {
    for (Row i = 0; i < offsets.back(); ++i) {
      rows.push_back(2 * i + 1);
      positions.push_back(3 * i);
    }
  }
  template <class T>
  [[nodiscard]] ActiveSet<T> set() const {
    ActiveSet<T> result;
    result.num_rows = offsets.back();
    result.num_sequences = static_cast<Index>(offsets.size()) - 1;
    result.rows = rows;
    result.positions = positions;
    result.sequence_offsets = result.host_offsets = offsets;
    return result;
  }
  std::vector<Row> offsets, rows, positions;
};

struct Chosen {
  explicit Chosen(Row count) : rows(static_cast<std::size_t>(count), -1), positions(rows), slots(rows) {}
  [[nodiscard]] Selection selection() { return {rows, positions, slots}; }
  std::vector<Row> rows, positions, slots;
};

template <class T>
std::vector<Row> top_k(host::Backend<T>& backend, std::vector<T> const& scores, std::vector<Row> const& offsets,
                       std::vector<Row> const& kept) {
  Candidates const candidates(offsets);
  Chosen chosen(kept.back());
  backend.select_top_k(scores, candidates.set<T>(), kept, chosen.selection());
  for (std::size_t i = 0; i < chosen.slots.size(); ++i) {
    REQUIRE(chosen.rows[i] == 2 * chosen.slots[i] + 1);
    REQUIRE(chosen.positions[i] == 3 * chosen.slots[i]);
  }
  return chosen.slots;
}

}  // namespace

TEMPLATE_TEST_CASE("top-k takes the largest scores of each sequence, ties to the lower position", "", float, double) {
  host::Backend<TestType> backend(2);
  std::vector<TestType> const scores{3, 1, 3, 2, 3, /**/ -1, -1, -1, /**/ 5, /**/ 0, TestType(-0.0), 0};
  std::vector<Row> const offsets{0, 5, 8, 8, 9, 12};
  REQUIRE(top_k(backend, scores, offsets, {0, 2, 3, 3, 4, 6}) == std::vector<Row>{0, 2, 5, 8, 9, 10});
  REQUIRE(top_k(backend, scores, offsets, {0, 4, 6, 6, 7, 8}) == std::vector<Row>{0, 2, 3, 4, 5, 6, 8, 9});
  REQUIRE(top_k(backend, scores, offsets, {0, 5, 8, 8, 9, 12}) ==
          std::vector<Row>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  REQUIRE(top_k(backend, scores, offsets, {0, 0, 1, 1, 1, 1}) == std::vector<Row>{5});
}

TEMPLATE_TEST_CASE("top-k agrees with a stable sort on many rows with many ties", "", float, double) {
  for (int const threads : {1, 2}) {
    host::Backend<TestType> backend(threads);
    std::vector<Row> const offsets{0, 1000, 1001, 3000}, kept{0, 333, 334, 1334};
    auto scores = test::random_vector<TestType>(3000, 4);
    for (auto& score : scores) score = std::round(score * 20);
    std::vector<Row> expected;
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
      std::vector<Row> order(static_cast<std::size_t>(offsets[s + 1] - offsets[s]));
      std::iota(order.begin(), order.end(), offsets[s]);
      std::stable_sort(order.begin(), order.end(), [&](Row a, Row b) {
        return scores[static_cast<std::size_t>(a)] > scores[static_cast<std::size_t>(b)];
      });
      order.resize(static_cast<std::size_t>(kept[s + 1] - kept[s]));
      std::sort(order.begin(), order.end());
      expected.insert(expected.end(), order.begin(), order.end());
    }
    REQUIRE(top_k(backend, scores, offsets, kept) == expected);
  }
}

TEST_CASE("top-k ranks infinities in order and NaN last") {
  host::Backend<float> backend(1);
  float const infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> const scores{nan, -infinity, 1, infinity, -1, nan};
  for (auto const& [keep, expected] : std::vector<std::pair<Row, std::vector<Row>>>{
           {1, {3}}, {2, {2, 3}}, {3, {2, 3, 4}}, {4, {1, 2, 3, 4}}, {5, {0, 1, 2, 3, 4}}}) {
    REQUIRE(top_k(backend, scores, {0, 6}, {0, keep}) == expected);
  }
}

TEST_CASE("thresholds count and choose the same rows") {
  host::Backend<double> backend(1);
  std::vector<double> const scores{0.5, -1.0, 0.0, /**/ /**/ 2.0, 0.5, std::numeric_limits<double>::quiet_NaN()};
  Candidates const candidates({0, 3, 3, 6});
  std::vector<double> const thresholds{0.0, 0.5, 3.0};
  std::vector<Row> counts(9, -1);
  backend.count_at_least(scores, candidates.set<double>(), thresholds, counts);
  REQUIRE(counts == std::vector<Row>{2, 0, 2, 1, 0, 2, 0, 0, 0});
  Chosen chosen(4);
  std::vector<Row> const offsets{0, 2, 2, 4}, too_few{0, 1, 1, 3};
  backend.select_at_least(scores, 0.0, candidates.set<double>(), offsets, chosen.selection());
  REQUIRE(chosen.slots == std::vector<Row>{0, 2, 3, 4});
  REQUIRE(chosen.rows == std::vector<Row>{1, 5, 7, 9});
  REQUIRE(chosen.positions == std::vector<Row>{0, 6, 9, 12});
  REQUIRE_THROWS_AS(backend.select_at_least(scores, 0.0, candidates.set<double>(), too_few, chosen.selection()), mor::error);
}

TEST_CASE("random scores are a pure function of key, counter, position and column") {
  host::Backend<float> backend(2);
  host::Backend<double> wide(1);
  std::vector<Row> positions(4000);
  std::iota(positions.begin(), positions.end(), 0);
  auto out = Matrix<float>::poisoned(4000, 2);
  auto exact = Matrix<double>::poisoned(4000, 2);
  backend.random_scores(7, 3, positions, out.view());
  wide.random_scores(7, 3, positions, exact.view());
  double mean = 0.0;
  for (Index i = 0; i < 4000; ++i) {
    for (Index c = 0; c < 2; ++c) {
      REQUIRE(exact(i, c) == uniform01(Philox{7}.block(static_cast<std::uint64_t>(i), 3 * 64 + static_cast<std::uint64_t>(c))[0]));
      REQUIRE(out(i, c) == static_cast<float>(exact(i, c)));
      REQUIRE((out(i, c) > 0.0F && out(i, c) < 1.0F));
      mean += exact(i, c) / 8000.0;
    }
  }
  REQUIRE(mean == Approx(0.5).margin(0.02));
  auto reversed = Matrix<float>::poisoned(1, 2);
  backend.random_scores(7, 3, std::vector<Row>{1234}, reversed.view());
  REQUIRE(reversed(0, 1) == out(1234, 1));
  REQUIRE(math::inside_unit<float>(uniform01(0xffffffffU)) < 1.0F);
  REQUIRE(math::inside_unit<float>(uniform01(0)) > 0.0F);
}

TEST_CASE("gates and their gradients follow the activation") {
  host::Backend<double> backend(1);
  std::vector<Row> const slots{0, 2, 3};
  auto const activation = GENERATE(RouterActivation::Sigmoid, RouterActivation::Tanh, RouterActivation::None);
  auto logits = test::random_vector<double>(5, 1);
  auto const upstream = test::random_vector<double>(3, 2);
  std::vector<double> gate(3);
  auto const loss = [&] {
    backend.router_gate(logits, slots, activation, 0.3, gate);
    return test::weighted_sum(upstream, gate);
  };
  auto const gradients = [&] {
    std::vector<double> d_logits(5), more(5, 1.0);
    backend.router_gate_backward(logits, slots, activation, 0.3, upstream, d_logits);
    backend.router_gate_backward(logits, slots, activation, 0.3, upstream, more);
    REQUIRE(more[0] == Approx(1.0 + d_logits[0]).epsilon(1e-14));
    REQUIRE(d_logits[1] == 0.0);
    return std::vector<std::vector<double>>{d_logits};
  };
  test::check_gradients({{test::Differentiable::Input{"logits", &logits}}, loss, gradients});
  loss();
  double const z = logits[2];
  double const expected = activation == RouterActivation::Sigmoid ? 0.3 / (1.0 + std::exp(-z))
                          : activation == RouterActivation::Tanh  ? 0.3 * std::tanh(z)
                                                                  : z;
  REQUIRE(gate[1] == Approx(expected).epsilon(1e-14));
}

TEST_CASE("a gate of one logit refuses softmax") {
  host::Backend<float> backend(1);
  std::vector<float> logits{1.0F}, gate(1);
  std::vector<Row> const slots{0};
  REQUIRE_THROWS_AS(backend.router_gate(logits, slots, RouterActivation::Softmax, 1.0, gate), mor::error);
}

TEST_CASE("the router's cross-entropy is stable, counted and has the right gradient") {
  host::Backend<double> backend(2);
  std::vector<Row> const slots{1, 2, 5};
  auto logits = test::random_vector<double>(7, 1);
  for (double& logit : logits) logit *= 4.0;
  std::vector<double> statistics(2);
  auto const loss = [&] {
    statistics.assign(2, 0.0);
    backend.router_bce(logits, slots, 1.0, statistics, {});
    return 0.4 * statistics[0];
  };
  auto const gradients = [&] {
    std::vector<double> d_logits(7), sink(2, 10.0);
    backend.router_bce(logits, slots, 0.4, sink, d_logits);
    loss();
    REQUIRE(sink[0] == Approx(10.0 + statistics[0]));
    REQUIRE(sink[1] == 10.0 + statistics[1]);
    return std::vector<std::vector<double>>{d_logits};
  };
  test::check_gradients({{test::Differentiable::Input{"logits", &logits}}, loss, gradients});

  std::vector<double> const extreme{1000.0, -1000.0, 1000.0, -1000.0};
  std::vector<Row> const chosen{0, 1};
  statistics.assign(2, 0.0);
  backend.router_bce(extreme, chosen, 1.0, statistics, {});
  REQUIRE(statistics[0] == 500.0);
  REQUIRE(statistics[1] == 2.0);
  backend.router_bce({}, {}, 1.0, statistics, {});
  REQUIRE(statistics[0] == 500.0);
}

TEST_CASE("the z-loss is the mean squared log-sum-exp, for one and for several columns") {
  host::Backend<double> backend(2);
  for (Index const columns : {1, 3}) {
    auto logits = test::random_vector<double>(4 * columns, 1);
    for (double& logit : logits) logit *= 3.0;
    Matrix<double> m(4, columns);
    std::vector<double> statistics(1);
    auto const loss = [&] {
      m.assign(logits);
      statistics[0] = 0.0;
      backend.z_loss(m.read(), 1.0, statistics, View<double>{});
      return 0.4 * statistics[0];
    };
    auto const gradients = [&] {
      loss();
      Matrix<double> d(4, columns);
      std::vector<double> sink(1);
      backend.z_loss(m.read(), 0.4, sink, d.view());
      return std::vector<std::vector<double>>{d.values()};
    };
    test::check_gradients({{test::Differentiable::Input{"logits", &logits}}, loss, gradients});
    double expected = 0.0;
    loss();
    for (Index i = 0; i < 4; ++i) {
      double total = 0.0;
      for (Index j = 0; j < columns; ++j) total += std::exp(m(i, j));
      expected += std::log(total) * std::log(total) / 4.0;
    }
    REQUIRE(statistics[0] == Approx(expected).epsilon(1e-13));
  }
}
