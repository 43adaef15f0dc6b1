// SPDX-License-Identifier: Apache-2.0
#include "support/catch.hpp"
#include "support/matrix.hpp"

#include "mor/backend/host/backend.hpp"

#include <cmath>
#include <limits>

using namespace mor;

namespace {

template <class T>
void check_adamw(double tolerance) {
  for (Index const count : {0, 1, 7, 16, 10007}) {
    CAPTURE(count);
    host::Backend<T> backend(2);
    auto weights = test::random_vector<T>(count, 1);
    std::vector<T> first(weights.size()), second(weights.size());
    std::vector<double> w(weights.begin(), weights.end()), m(w.size()), v(w.size());
    AdamwStep step;
    step.learning_rate = 0.01;
    step.weight_decay = 0.1;
    step.gradient_scale = 0.5;
    for (step.step = 1; step.step <= 3; ++step.step) {
      auto const gradients = test::random_vector<T>(count, 10 + static_cast<std::uint64_t>(step.step));
      backend.adamw(gradients, step, weights, first, second);
      auto const t = static_cast<double>(step.step);
      for (std::size_t i = 0; i < w.size(); ++i) {
        double const g = 0.5 * double{gradients[i]};
        m[i] = 0.9 * m[i] + 0.1 * g;
        v[i] = 0.95 * v[i] + 0.05 * g * g;
        double const direction = m[i] / (1.0 - std::pow(0.9, t)) / (std::sqrt(v[i] / (1.0 - std::pow(0.95, t))) + 1e-8);
        w[i] -= 0.01 * (direction + 0.1 * w[i]);
      }
    }
    REQUIRE(test::worst_difference(weights, w) < tolerance);
    REQUIRE(test::worst_difference(first, m) < tolerance);
    REQUIRE(test::worst_difference(second, v) < tolerance);
  }
}

}  // namespace

TEST_CASE("AdamW follows its formula") {
  check_adamw<double>(1e-14);
  check_adamw<float>(1e-6);
}

TEST_CASE("the squared norm is exact, repeatable, and keeps NaN and infinity") {
  auto values = test::random_vector<float>(50021, 1);
  double expected = 0.0;
  for (float const value : values) expected += double{value} * double{value};
  host::Backend<float> backend(2), serial(1);
  REQUIRE(backend.squared_norm(values) == Approx(expected).epsilon(1e-12));
  REQUIRE(backend.squared_norm(values) == serial.squared_norm(values));
  REQUIRE(backend.squared_norm({}) == 0.0);
  values[40000] = std::numeric_limits<float>::infinity();
  REQUIRE(std::isinf(backend.squared_norm(values)));
  values[10] = std::numeric_limits<float>::quiet_NaN();
  REQUIRE(std::isnan(backend.squared_norm(values)));
  std::vector<float> const large(3, 1e30F);
  REQUIRE(backend.squared_norm(large) == Approx(3e60));
}

TEST_CASE("casting weights copies them") {
  host::Backend<float> backend(1);
  auto const master = test::random_vector<float>(9, 1);
  std::vector<float> weights(9);
  backend.cast_weights(master, weights);
  REQUIRE(weights == master);
}
