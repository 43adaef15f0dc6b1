// SPDX-License-Identifier: Apache-2.0
#include "support/catch.hpp"
#include "support/gradcheck.hpp"
#include "support/matrix.hpp"

#include "mor/backend/host/backend.hpp"

#include <array>
#include <cmath>

using namespace mor;
using mor::test::Matrix;

namespace {

std::vector<Token> some_targets(Index rows, Index vocabulary) {
  std::vector<Token> targets(static_cast<std::size_t>(rows));
  for (Index i = 0; i < rows; ++i) targets[static_cast<std::size_t>(i)] = static_cast<Token>(i % 5 == 3 ? -1 : i * 13 % vocabulary);
  return targets;
}

template <class T>
std::vector<double> plain_losses(Matrix<T> const& x, Matrix<T> const& w, std::vector<Token> const& targets) {
  std::vector<double> losses(targets.size());
  for (Index i = 0; i < x.rows(); ++i) {
    auto const at = static_cast<std::size_t>(i);
    std::vector<double> logits;
    double highest = -1e300, total = 0.0;
    for (Index v = 0; v < w.rows(); ++v) {
      double sum = 0.0;
      for (Index k = 0; k < x.cols(); ++k) sum += double{x(i, k)} * double{w(v, k)};
      logits.push_back(sum);
      highest = std::max(highest, sum);
    }
    for (double const logit : logits) total += std::exp(logit - highest);
    if (targets[at] >= 0) losses[at] = highest + std::log(total) - logits[static_cast<std::size_t>(targets[at])];
  }
  return losses;
}

template <class T>
void check_losses(double tolerance) {
  for (auto const& [rows, inputs, vocabulary] : std::vector<std::array<Index, 3>>{{1, 3, 1}, {7, 5, 9}, {300, 8, 20000}, {0, 4, 3}}) {
    CAPTURE(rows, inputs, vocabulary);
    host::Backend<T> backend(2);
    auto const x = Matrix<T>::random(rows, inputs, 1), w = Matrix<T>::random(vocabulary, inputs, 2);
    auto const targets = some_targets(rows, vocabulary);
    std::vector<T> losses(targets.size(), std::numeric_limits<T>::quiet_NaN()), same = losses;
    backend.head_loss(x.read(), w.read(), targets, losses);
    auto d_x = Matrix<T>::poisoned(rows, inputs);
    Matrix<T> d_w(vocabulary, inputs);
    backend.head_loss_backward(x.read(), w.read(), targets, 0.5, same, d_x.view(), d_w.view());
    REQUIRE(losses == same);
    REQUIRE(test::worst_difference(losses, plain_losses(x, w, targets)) < tolerance);
    REQUIRE((d_x.intact() && d_w.intact()));
    REQUIRE(backend.arena().in_use_bytes() == 0);
    REQUIRE(backend.sum(losses) == Approx(backend.sum(same)));
  }
}

}  // namespace

TEST_CASE("head losses follow the definition and do not depend on the backward pass") {
  check_losses<double>(1e-12);
  check_losses<float>(1e-6);
}

TEST_CASE("head scratch memory stays small for a large vocabulary") {
  host::Backend<float> backend(2);
  auto const x = Matrix<float>::random(1000, 4, 1), w = Matrix<float>::random(20000, 4, 2);
  auto const targets = some_targets(1000, 20000);
  std::vector<float> losses(1000);
  backend.head_loss(x.read(), w.read(), targets, losses);
  REQUIRE(backend.arena().peak_bytes() < (Index{20} << 20));
}

TEST_CASE("head gradients agree with differences, ignored targets included") {
  host::Backend<double> backend(2);
  for (auto const& sizes : std::vector<std::array<Index, 3>>{{5, 3, 4}, {1, 2, 2}, {4, 2, 7}}) {
    Index const rows = std::get<0>(sizes), inputs = std::get<1>(sizes), vocabulary = std::get<2>(sizes);
    auto const targets = some_targets(rows, vocabulary);
    auto x = test::random_vector<double>(rows * inputs, 1), w = test::random_vector<double>(vocabulary * inputs, 2);
    Matrix<double> mx(rows, inputs), mw(vocabulary, inputs);
    std::vector<double> losses(targets.size());
    double const weight = 0.7;
    auto const loss = [&] {
      mx.assign(x);
      mw.assign(w);
      backend.head_loss(mx.read(), mw.read(), targets, losses);
      return weight * backend.sum(losses);
    };
    auto const gradients = [&] {
      loss();
      auto d_x = Matrix<double>::poisoned(rows, inputs);
      Matrix<double> d_w(vocabulary, inputs), more(vocabulary, inputs, 2.0);
      backend.head_loss_backward(mx.read(), mw.read(), targets, weight, losses, d_x.view(), d_w.view());
      backend.head_loss_backward(mx.read(), mw.read(), targets, weight, losses, d_x.view(), more.view());
      REQUIRE(more(0, 0) == Approx(2.0 + d_w(0, 0)).epsilon(1e-14));
      return std::vector{d_x.values(), d_w.values()};
    };
    test::check_gradients({{{"x", &x}, {"w", &w}}, loss, gradients});
  }
}

TEST_CASE("a row without a target gets no gradient") {
  host::Backend<float> backend(1);
  auto const x = Matrix<float>::random(2, 3, 1), w = Matrix<float>::random(4, 3, 2);
  std::vector<Token> const targets{-1, -100};
  std::vector<float> losses(2, 5.0F);
  auto d_x = Matrix<float>::poisoned(2, 3);
  Matrix<float> d_w(4, 3, 1.5F);
  backend.head_loss_backward(x.read(), w.read(), targets, 1.0, losses, d_x.view(), d_w.view());
  REQUIRE(losses == std::vector<float>{0.0F, 0.0F});
  REQUIRE(d_x.values() == std::vector<float>(6, 0.0F));
  REQUIRE(d_w.values() == std::vector<float>(12, 1.5F));
}

TEST_CASE("sums are exact to double precision and the same on any number of threads") {
  auto const values = test::random_vector<float>(100003, 3);
  double expected = 0.0;
  for (float const value : values) expected += double{value};
  REQUIRE(host::Backend<float>(1).sum(values) == Approx(expected).epsilon(1e-10));
  REQUIRE(host::Backend<float>(1).sum(values) == host::Backend<float>(2).sum(values));
  REQUIRE(host::Backend<float>(2).sum({}) == 0.0);
}
