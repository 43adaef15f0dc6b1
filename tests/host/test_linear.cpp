// SPDX-License-Identifier: Apache-2.0
#include "support/catch.hpp"
#include "support/gradcheck.hpp"
#include "support/matrix.hpp"

#include "mor/backend/host/backend.hpp"

#include <array>
#include <cmath>
#include <cstring>

using namespace mor;
using mor::test::Matrix;

namespace {

struct Shape {
  Index rows, inputs, outputs;
};

/// Zero, one, one less and more than the register tile, the depth block and the row block, and primes.
std::vector<Shape> const shapes{{0, 3, 4},   {3, 0, 4},   {3, 4, 0},    {1, 1, 1},     {1, 300, 17},  {2, 256, 16},
                                {5, 255, 1}, {6, 257, 15}, {7, 16, 33},  {13, 513, 31}, {47, 64, 96},  {48, 100, 50},
                                {49, 31, 7}, {97, 260, 40}, {193, 7, 129}, {211, 64, 2}, {389, 600, 37}, {64, 2049, 20}};

/// Small integers: every product and sum is exact, so the result has one right value.
template <class T>
Matrix<T> integers(Index rows, Index cols, std::uint64_t seed) {
  auto result = Matrix<T>::random(rows, cols, seed);
  for (Index i = 0; i < rows; ++i) {
    for (Index j = 0; j < cols; ++j) result(i, j) = std::round(T(4) * result(i, j));
  }
  return result;
}

/// c(i, j) = start(i, j) + sum_k a(i, k) b(k, j), as plainly as possible.
template <class T, class A, class B>
std::vector<T> plain(Matrix<T> const& start, Index depth, A const& a, B const& b) {
  Matrix<T> c(start.rows(), start.cols());
  for (Index i = 0; i < c.rows(); ++i) {
    for (Index j = 0; j < c.cols(); ++j) {
      T sum(0);
      for (Index k = 0; k < depth; ++k) sum += a(i, k) * b(k, j);
      c(i, j) = start(i, j) + sum;
    }
  }
  return c.values();
}

/// Equality that prints no matrix when it fails.
template <class T>
bool same(Matrix<T> const& matrix, std::vector<T> const& values) {
  return matrix.values() == values;
}

template <class T>
void check_exact(int threads) {
  host::Backend<T> backend(threads);
  for (Shape const& shape : shapes) {
    Index const rows = shape.rows, inputs = shape.inputs, outputs = shape.outputs;
    CAPTURE(threads, rows, inputs, outputs);
    auto const x = integers<T>(rows, inputs, 1), w = integers<T>(outputs, inputs, 2);
    auto const d_out = integers<T>(rows, outputs, 3), residual = integers<T>(rows, outputs, 4);
    auto const start_x = integers<T>(rows, inputs, 5), start_w = integers<T>(outputs, inputs, 6);
    auto const forward = [&](Matrix<T> const& from) {
      return plain(from, inputs, x, [&](Index k, Index j) { return w(j, k); });
    };
    auto out = Matrix<T>::poisoned(rows, outputs);
    backend.linear(x.read(), w.read(), out.view());
    REQUIRE(same(out, forward(Matrix<T>(rows, outputs))));
    REQUIRE(out.intact());

    out = Matrix<T>::poisoned(rows, outputs);
    backend.linear_residual(x.read(), w.read(), residual.read(), out.view());
    REQUIRE(same(out, forward(residual)));
    out = residual;
    backend.linear_residual(x.read(), w.read(), out.read(), out.view());
    REQUIRE(same(out, forward(residual)));

    auto d_x = Matrix<T>::poisoned(rows, inputs);
    backend.linear_backward_input(d_out.read(), w.read(), false, d_x.view());
    REQUIRE(same(d_x, plain(Matrix<T>(rows, inputs), outputs, d_out, w)));
    d_x = start_x;
    backend.linear_backward_input(d_out.read(), w.read(), true, d_x.view());
    REQUIRE(same(d_x, plain(start_x, outputs, d_out, w)));
    REQUIRE(d_x.intact());

    auto d_w = start_w;
    backend.linear_backward_weight(d_out.read(), x.read(), d_w.view());
    REQUIRE(same(d_w, plain(start_w, rows, [&](Index i, Index k) { return d_out(k, i); }, x)));
    REQUIRE(d_w.intact());
    REQUIRE(backend.arena().in_use_bytes() == 0);
  }
}

}  // namespace

TEST_CASE("products of small integers are exact in float") { check_exact<float>(GENERATE(1, 2, 3)); }

TEST_CASE("products of small integers are exact in double") { check_exact<double>(GENERATE(1, 2)); }

TEST_CASE("a row of a product has the same bits alone, in a batch, and on any number of threads") {
  Index const inputs = 700, outputs = 90;
  auto const x = Matrix<float>::random(400, inputs, 1), w = Matrix<float>::random(outputs, inputs, 2);
  host::Backend<float> serial(1), parallel(2);
  Matrix<float> whole(400, outputs), part(400, outputs);
  serial.linear(x.read(), w.read(), whole.view());
  for (Index const rows : {1, 2, 3, 5, 6, 7, 48, 49, 200, 400}) {
    CAPTURE(rows);
    auto const last = x.read().row_range(400 - rows, rows);
    parallel.linear(last, w.read(), part.view().row_range(0, rows));
    for (Index i = 0; i < rows; ++i) {
      REQUIRE(std::memcmp(part.view().row(i), whole.view().row(400 - rows + i), sizeof(float) * outputs) == 0);
    }
  }
}

TEST_CASE("products of random numbers stay within the rounding bound") {
  host::Backend<float> backend(2);
  Matrix<float> out(60, 70);
  auto const x = Matrix<float>::random(60, 1000, 1), w = Matrix<float>::random(70, 1000, 2);
  backend.linear(x.read(), w.read(), out.view());
  for (Index i = 0; i < 60; ++i) {
    for (Index j = 0; j < 70; ++j) {
      double sum = 0.0, magnitude = 0.0;
      for (Index k = 0; k < 1000; ++k) {
        sum += double{x(i, k)} * double{w(j, k)};
        magnitude += std::abs(double{x(i, k)} * double{w(j, k)});
      }
      REQUIRE(std::abs(double{out(i, j)} - sum) <= 2.0 * std::sqrt(1000.0) * 6e-8 * magnitude);
    }
  }
}

TEST_CASE("gradients of dense layers agree with differences") {
  host::Backend<double> backend(2);
  for (Shape const& shape : {Shape{4, 5, 3}, Shape{1, 3, 2}, Shape{3, 2, 6}}) {
    Index const rows = shape.rows, inputs = shape.inputs, outputs = shape.outputs;
    CAPTURE(rows, inputs, outputs);
    auto x = test::random_vector<double>(rows * inputs, 1), w = test::random_vector<double>(outputs * inputs, 2);
    auto const upstream = test::random_vector<double>(rows * outputs, 3);
    Matrix<double> mx(rows, inputs), mw(outputs, inputs), out(rows, outputs), d_out(rows, outputs);
    d_out.assign(upstream);
    double const scale = GENERATE(1.0, 0.25);
    auto const loss = [&] {
      mx.assign(x);
      mw.assign(w);
      backend.linear_logits(mx.read(), mw.read(), scale, out.view());
      return test::weighted_sum(upstream, out.values());
    };
    auto const gradients = [&] {
      Matrix<double> d_x(rows, inputs), d_w(outputs, inputs);
      backend.linear_logits_backward(d_out.read(), mx.read(), mw.read(), scale, d_x.view(), d_w.view());
      if (scale == 1.0) {
        Matrix<double> other_x(rows, inputs), other_w(outputs, inputs);
        backend.linear_backward_input(d_out.read(), mw.read(), false, other_x.view());
        backend.linear_backward_weight(d_out.read(), mx.read(), other_w.view());
        REQUIRE(test::worst_difference(d_x.values(), other_x.values()) < 1e-14);
        REQUIRE(same(d_w, other_w.values()));
      }
      return std::vector{d_x.values(), d_w.values()};
    };
    loss();
    test::check_gradients({{{"x", &x}, {"w", &w}}, loss, gradients});
  }
}

TEST_CASE("router logits are scaled products, and their gradient may stop at the router") {
  host::Backend<double> backend(2);
  for (Index const columns : {1, 3, 4, 5, 9}) {
    CAPTURE(columns);
    auto const x = Matrix<double>::random(70, 20, 1), w = Matrix<double>::random(columns, 20, 2);
    auto out = Matrix<double>::poisoned(70, columns);
    backend.linear_logits(x.read(), w.read(), 0.5, out.view());
    for (Index i = 0; i < 70; ++i) {
      for (Index j = 0; j < columns; ++j) {
        double sum = 0.0;
        for (Index k = 0; k < 20; ++k) sum += x(i, k) * w(j, k);
        REQUIRE(out(i, j) == Approx(0.5 * sum).epsilon(1e-12).margin(1e-13));
      }
    }
    Matrix<double> d_x(70, 20, 1.0), with(columns, 20, 2.0), without(columns, 20, 2.0);
    backend.linear_logits_backward(out.read(), x.read(), w.read(), 0.5, d_x.view(), with.view());
    backend.linear_logits_backward(out.read(), x.read(), w.read(), 0.5, View<double>{}, without.view());
    REQUIRE(with.values() == without.values());
    double sum = 1.0;
    for (Index j = 0; j < columns; ++j) sum += 0.5 * out(3, j) * w(j, 7);
    REQUIRE(d_x(3, 7) == Approx(sum).epsilon(1e-12));
  }
}
