// SPDX-License-Identifier: Apache-2.0
#include "support/catch.hpp"
#include "support/gradcheck.hpp"
#include "support/matrix.hpp"

#include "mor/backend/host/backend.hpp"

#include <cmath>

using namespace mor;
using mor::test::Matrix;

TEST_CASE("tokens choose the most probable depth, the lowest on a tie, the last at full depth") {
  host::Backend<double> backend(2);
  Matrix<double> logits(4, 3);
  logits.assign({1, 2, 0, /**/ 5, 5, 5, /**/ -1, -2, 3, /**/ 0, 0, -9});
  auto p = Matrix<double>::poisoned(4, 3);
  std::vector<double> choice(4), gate(4);
  std::vector<double> const bias{0.0, 0.0, 10.0};
  backend.token_choice(logits.read(), {}, RouterActivation::Softmax, 0.5, false, p.view(), choice, gate);
  REQUIRE(choice == std::vector<double>{1, 0, 2, 0});
  for (Index i = 0; i < 4; ++i) {
    double total = 0.0;
    for (Index j = 0; j < 3; ++j) total += std::exp(logits(i, j));
    for (Index j = 0; j < 3; ++j) REQUIRE(p(i, j) == Approx(0.5 * std::exp(logits(i, j)) / total).epsilon(1e-14));
    REQUIRE(gate[static_cast<std::size_t>(i)] == p(i, static_cast<Index>(choice[static_cast<std::size_t>(i)])));
  }
  backend.token_choice(logits.read(), bias, RouterActivation::Sigmoid, 0.1, false, p.view(), choice, gate);
  REQUIRE(choice == std::vector<double>{2, 2, 2, 2});
  REQUIRE(p(0, 1) == Approx(0.1 / (1.0 + std::exp(-2.0))).epsilon(1e-14));
  REQUIRE(gate[0] == p(0, 2));
  backend.token_choice(logits.read(), {}, RouterActivation::Softmax, 1.0, true, p.view(), choice, gate);
  REQUIRE(choice == std::vector<double>{2, 2, 2, 2});
  REQUIRE(gate[1] == Approx(1.0 / 3.0));
  REQUIRE(p.intact());
}

TEST_CASE("token-choice gradients agree with differences") {
  host::Backend<double> backend(2);
  auto const activation =
      GENERATE(RouterActivation::Softmax, RouterActivation::Sigmoid, RouterActivation::Tanh, RouterActivation::None);
  double const alpha = GENERATE(1.0, 0.1);
  auto logits = test::random_vector<double>(12, 1);
  auto const d_gate = test::random_vector<double>(4, 2), d_p = test::random_vector<double>(12, 3);
  Matrix<double> m(4, 3), p(4, 3), outer(4, 3);
  outer.assign(d_p);
  std::vector<double> choice(4), gate(4);
  bool const with_probabilities = GENERATE(true, false);
  auto const loss = [&] {
    m.assign(logits);
    backend.token_choice(m.read(), {}, activation, alpha, false, p.view(), choice, gate);
    return test::weighted_sum(d_gate, gate) + (with_probabilities ? test::weighted_sum(d_p, p.values()) : 0.0);
  };
  auto const gradients = [&] {
    loss();
    Matrix<double> d_logits(4, 3), more(4, 3, 1.0);
    auto const gradient = with_probabilities ? outer.read() : View<double const>{};
    backend.token_choice_backward(p.read(), choice, activation, alpha, d_gate, gradient, d_logits.view());
    backend.token_choice_backward(p.read(), choice, activation, alpha, d_gate, gradient, more.view());
    REQUIRE(more(1, 1) == Approx(1.0 + d_logits(1, 1)).epsilon(1e-13));
    return std::vector<std::vector<double>>{d_logits.values()};
  };
  test::check_gradients({{test::Differentiable::Input{"logits", &logits}}, loss, gradients});
}

TEST_CASE("a gate scale of zero gives zero gradients, not NaN") {
  host::Backend<double> backend(1);
  auto const activation = GENERATE(RouterActivation::Softmax, RouterActivation::Sigmoid, RouterActivation::Tanh);
  auto const logits = Matrix<double>::random(2, 3, 1);
  Matrix<double> p(2, 3), d_logits(2, 3);
  std::vector<double> choice(2), gate(2);
  std::vector<double> const d_gate{1.0, 2.0};
  backend.token_choice(logits.read(), {}, activation, 0.0, false, p.view(), choice, gate);
  backend.token_choice_backward(p.read(), choice, activation, 0.0, d_gate, {}, d_logits.view());
  REQUIRE(d_logits.values() == std::vector<double>(6, 0.0));
}

TEST_CASE("combine weights finish a token at the depth it chose") {
  host::Backend<double> backend(1);
  std::vector<double> const choice{2, 0, 1, 1}, gate{0.2, 0.3, 0.4, 0.5};
  std::vector<Row> const rows{0, 2, 3};
  std::vector<double> scale(3), keep(3);
  backend.token_choice_weights(choice, gate, rows, Index{1}, false, false, scale, keep);
  REQUIRE(scale == std::vector<double>{1.0, 0.4, 0.5});
  REQUIRE(keep == std::vector<double>{0.0, 1.0, 1.0});
  backend.token_choice_weights(choice, gate, rows, Index{2}, true, false, scale, keep);
  REQUIRE(scale == std::vector<double>{0.2, 0.4, 0.5});
  REQUIRE(keep == std::vector<double>{1.0, 0.0, 0.0});
  backend.token_choice_weights(choice, gate, rows, Index{2}, true, true, scale, keep);
  REQUIRE(scale == std::vector<double>(3, 1.0));
  REQUIRE(keep == std::vector<double>{1.0, 0.0, 0.0});

  std::vector<double> const d_scale{1.0, 2.0, 3.0};
  std::vector<double> d_gate(4, 10.0);
  backend.token_choice_weights_backward(choice, rows, Index{1}, false, d_scale, d_gate);
  REQUIRE(d_gate == std::vector<double>{10.0, 10.0, 12.0, 13.0});
  backend.token_choice_weights_backward(choice, rows, Index{1}, true, d_scale, d_gate);
  REQUIRE(d_gate == std::vector<double>{11.0, 10.0, 14.0, 16.0});
}

TEST_CASE("the balance loss treats loads as constants") {
  host::Backend<double> backend(2);
  auto p = test::random_vector<double>(15, 1);
  std::vector<double> const choice{0, 2, 2, 1, 2};
  Matrix<double> m(5, 3);
  std::vector<double> statistics(4);
  auto const loss = [&] {
    m.assign(p);
    statistics.assign(4, 0.0);
    backend.balance_loss(m.read(), choice, 1.0, statistics, View<double>{});
    return 0.3 * statistics[0];
  };
  auto const gradients = [&] {
    loss();
    auto d_p = Matrix<double>::poisoned(5, 3);
    std::vector<double> sink(4);
    backend.balance_loss(m.read(), choice, 0.3, sink, d_p.view());
    REQUIRE(d_p.intact());
    return std::vector<std::vector<double>>{d_p.values()};
  };
  test::check_gradients({{test::Differentiable::Input{"probabilities", &p}}, loss, gradients});
  REQUIRE(statistics[1] == Approx(0.2));
  REQUIRE(statistics[2] == Approx(0.2));
  REQUIRE(statistics[3] == Approx(0.6));
}
