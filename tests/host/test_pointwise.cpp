// SPDX-License-Identifier: Apache-2.0
#include "support/catch.hpp"
#include "support/gradcheck.hpp"
#include "support/matrix.hpp"

#include "mor/backend/host/backend.hpp"

#include <utility>
#include <cmath>
#include <limits>

using namespace mor;
using mor::test::Matrix;

namespace {

/// A check of one verb with one matrix input: forward(x, out), backward(d_out, x, d_x).
template <class Forward, class Backward>
void check_map(Index rows, Index cols, Index out_cols, Forward forward, Backward backward) {
  auto x = test::random_vector<double>(rows * cols, 1);
  for (double& value : x) value *= 3.0;
  auto const upstream = test::random_vector<double>(rows * out_cols, 2);
  Matrix<double> mx(rows, cols), d_out(rows, out_cols);
  d_out.assign(upstream);
  auto const loss = [&] {
    mx.assign(x);
    auto out = Matrix<double>::poisoned(rows, out_cols);
    forward(mx, out);
    REQUIRE(out.intact());
    return test::weighted_sum(upstream, out.values());
  };
  auto const gradients = [&] {
    loss();
    auto d_x = Matrix<double>::poisoned(rows, cols);
    backward(d_out, mx, d_x);
    REQUIRE(d_x.intact());
    return std::vector<std::vector<double>>{d_x.values()};
  };
  test::check_gradients({{test::Differentiable::Input{"x", &x}}, loss, gradients});
}

template <class T>
void check_rms_norm(double tolerance) {
  host::Backend<T> backend(2);
  for (Index const cols : {1, 7, 8, 33, 256}) {
    auto const x = Matrix<T>::random(150, cols, 1);
    auto const w = test::random_vector<T>(cols, 2);
    auto out = Matrix<T>::poisoned(150, cols);
    std::vector<T> rstd(150, std::numeric_limits<T>::quiet_NaN());
    backend.rms_norm(x.read(), w, 1e-5, out.view(), rstd);
    REQUIRE(out.intact());
    for (Index i = 0; i < 150; ++i) {
      double sum = 0.0;
      for (Index j = 0; j < cols; ++j) sum += double{x(i, j)} * double{x(i, j)};
      double const expected = 1.0 / std::sqrt(sum / static_cast<double>(cols) + 1e-5);
      REQUIRE(double{rstd[static_cast<std::size_t>(i)]} == Approx(expected).epsilon(tolerance));
      for (Index j = 0; j < cols; ++j) {
        REQUIRE(double{out(i, j)} ==
                Approx(double{x(i, j)} * expected * double{w[static_cast<std::size_t>(j)]}).epsilon(tolerance));
      }
    }
  }
}

}  // namespace

TEST_CASE("rms_norm follows its definition") {
  check_rms_norm<double>(1e-13);
  check_rms_norm<float>(1e-6);
}

TEST_CASE("rms_norm gradients agree with differences and are accumulated") {
  host::Backend<double> backend(2);
  for (auto const& sizes : {std::pair<Index, Index>{3, 5}, {130, 3}, {1, 1}}) {
    Index const rows = std::get<0>(sizes), cols = std::get<1>(sizes);
    CAPTURE(rows, cols);
    auto x = test::random_vector<double>(rows * cols, 1), w = test::random_vector<double>(cols, 2);
    auto const upstream = test::random_vector<double>(rows * cols, 3);
    Matrix<double> mx(rows, cols), out(rows, cols), d_out(rows, cols);
    std::vector<double> rstd(static_cast<std::size_t>(rows));
    d_out.assign(upstream);
    auto const loss = [&] {
      mx.assign(x);
      backend.rms_norm(mx.read(), w, 1e-5, out.view(), rstd);
      return test::weighted_sum(upstream, out.values());
    };
    auto const gradients = [&] {
      loss();
      Matrix<double> d_x(rows, cols);
      std::vector<double> d_w(w.size());
      backend.rms_norm_backward(d_out.read(), mx.read(), w, rstd, d_x.view(), d_w);
      Matrix<double> more_x(rows, cols, 2.0);
      std::vector<double> more_w(w.size(), 2.0);
      backend.rms_norm_backward(d_out.read(), mx.read(), w, rstd, more_x.view(), more_w);
      for (std::size_t j = 0; j < w.size(); ++j) REQUIRE(more_w[j] == Approx(2.0 + d_w[j]).epsilon(1e-12));
      REQUIRE(more_x(0, 0) == Approx(2.0 + d_x(0, 0)).epsilon(1e-12));
      return std::vector{d_x.values(), d_w};
    };
    test::check_gradients({{{"x", &x}, {"w", &w}}, loss, gradients});
  }
}

TEST_CASE("rope turns pairs by position, and backward turns them back") {
  host::Backend<double> backend(2);
  for (auto const& sizes : {std::pair<Index, Index>{1, 2}, {3, 6}, {2, 64}}) {
    Index const heads = std::get<0>(sizes), dim = std::get<1>(sizes);
    CAPTURE(heads, dim);
    std::vector<Row> const positions{0, 1, 5, 1000, 300, 0, 4097};
    Index const rows = 7;
    auto const x = Matrix<double>::random(rows, heads * dim, 1);
    auto y = x;
    backend.rope(positions, dim, 10000.0, Rotation::Forward, y.view());
    REQUIRE(y.intact());
    for (Index i = 0; i < rows; ++i) {
      for (Index h = 0; h < heads; ++h) {
        for (Index p = 0; p < dim / 2; ++p) {
          double const angle = static_cast<double>(positions[static_cast<std::size_t>(i)]) *
                               std::pow(10000.0, -2.0 * static_cast<double>(p) / static_cast<double>(dim));
          double const a = x(i, h * dim + p), b = x(i, h * dim + dim / 2 + p);
          REQUIRE(y(i, h * dim + p) == Approx(a * std::cos(angle) - b * std::sin(angle)).margin(1e-12));
          REQUIRE(y(i, h * dim + dim / 2 + p) == Approx(b * std::cos(angle) + a * std::sin(angle)).margin(1e-12));
        }
      }
    }
    backend.rope(positions, dim, 10000.0, Rotation::Backward, y.view());
    REQUIRE(test::worst_difference(y.values(), x.values()) < 1e-14);
  }
}

TEST_CASE("rope gradients agree with differences, for two bases in turn") {
  host::Backend<double> backend(2);
  std::vector<Row> const positions{3, 1, 77};
  double const theta = GENERATE(10000.0, 500.0);
  check_map(
      3, 8, 8,
      [&](Matrix<double> const& x, Matrix<double>& out) {
        out = x;
        backend.rope(positions, 4, theta, Rotation::Forward, out.view());
        Matrix<double> other = x;
        backend.rope(positions, 4, 77.0, Rotation::Forward, other.view());
      },
      [&](Matrix<double> const& d_out, Matrix<double> const&, Matrix<double>& d_x) {
        d_x = d_out;
        backend.rope(positions, 4, theta, Rotation::Backward, d_x.view());
      });
}

TEST_CASE("rope refuses a head dimension that does not fit") {
  host::Backend<float> backend(1);
  Matrix<float> x(2, 6);
  std::vector<Row> const positions{0, 1};
  REQUIRE_THROWS_AS(backend.rope(positions, 3, 10000.0, Rotation::Forward, x.view()), mor::error);
  REQUIRE_THROWS_AS(backend.rope(positions, 4, 10000.0, Rotation::Forward, x.view()), mor::error);
}

TEST_CASE("swiglu gradients agree with differences") {
  host::Backend<double> backend(2);
  for (Index const width : {1, 3, 4, 9}) {
    check_map(
        3, 2 * width, width, [&](Matrix<double> const& x, Matrix<double>& out) { backend.swiglu(x.read(), out.view()); },
        [&](Matrix<double> const& d_out, Matrix<double> const& x, Matrix<double>& d_x) {
          backend.swiglu_backward(d_out.read(), x.read(), d_x.view(), {});
        });
  }
}

TEMPLATE_TEST_CASE("swiglu's backward pass computes swiglu again to the bit, also in place", "", float, double) {
  host::Backend<TestType> backend(2);
  for (Index const width : {1, 3, 8, 37}) {
    auto const gate_up = Matrix<TestType>::random(5, 2 * width, 1), d_out = Matrix<TestType>::random(5, width, 2);
    Matrix<TestType> out(5, width), again(5, width), d_gate_up(5, 2 * width), in_place = gate_up, reused = d_out;
    backend.swiglu(gate_up.read(), out.view());
    backend.swiglu_backward(d_out.read(), gate_up.read(), d_gate_up.view(), again.view());
    backend.swiglu_backward(reused.read(), in_place.read(), in_place.view(), reused.view());
    REQUIRE(again.values() == out.values());
    REQUIRE(reused.values() == out.values());
    REQUIRE(in_place.values() == d_gate_up.values());
    REQUIRE((reused.intact() && in_place.intact()));
  }
}

TEST_CASE("gelu gradients agree with differences") {
  host::Backend<double> backend(2);
  double const scale = GENERATE(1.0, 0.5);
  check_map(
      3, 5, 5, [&](Matrix<double> const& x, Matrix<double>& out) { backend.gelu(x.read(), scale, out.view()); },
      [&](Matrix<double> const& d_out, Matrix<double> const& x, Matrix<double>& d_x) {
        backend.gelu_backward(d_out.read(), x.read(), scale, d_x.view());
      });
}

TEST_CASE("float activations agree with double ones, also far from zero") {
  host::Backend<float> backend(2);
  host::Backend<double> oracle(2);
  Index const rows = 300, width = 37;
  auto x = Matrix<float>::random(rows, 2 * width, 1);
  Matrix<double> wide(rows, 2 * width);
  for (Index i = 0; i < rows; ++i) {
    for (Index j = 0; j < 2 * width; ++j) wide(i, j) = double{x(i, j) *= 120.0F};
  }
  auto out = Matrix<float>::poisoned(rows, width);
  auto expected = Matrix<double>::poisoned(rows, width);
  backend.swiglu(x.read(), out.view());
  oracle.swiglu(wide.read(), expected.view());
  for (Index i = 0; i < rows; ++i) {
    for (Index j = 0; j < width; ++j) REQUIRE(double{out(i, j)} == Approx(expected(i, j)).epsilon(1e-5).margin(1e-30));
  }
  auto gelu = Matrix<float>::poisoned(rows, 2 * width);
  auto exact = Matrix<double>::poisoned(rows, 2 * width);
  backend.gelu(x.read(), 0.03, gelu.view());
  oracle.gelu(wide.read(), 0.03, exact.view());
  REQUIRE(test::worst_difference(gelu.values(), exact.values()) < 1e-6);
}
