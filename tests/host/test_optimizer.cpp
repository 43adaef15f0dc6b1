// SPDX-License-Identifier: Apache-2.0
#include "support/catch.hpp"
#include "support/matrix.hpp"

#include "mor/backend/host/backend.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

using namespace mor;

namespace {

/// A record whose update is made with these numbers.
template <class T>
UpdateRecord<T> record_of(double scale, double rate, AdamwSettings const& settings, int t) {
  UpdateRecord<T> record;
  record.main.gradient_scale = static_cast<T>(scale);
  record.main.learning_rate = static_cast<T>(rate);
  record.first_correction = static_cast<T>(1.0 / (1.0 - std::pow(settings.beta1, t)));
  record.second_correction = static_cast<T>(1.0 / (1.0 - std::pow(settings.beta2, t)));
  record.applied = 1;
  return record;
}

template <class T>
void check_adamw(double tolerance) {
  for (Index const count : {0, 1, 7, 16, 10007}) {
    CAPTURE(count);
    host::Backend<T> backend(2);
    auto weights = test::random_vector<T>(count, 1);
    std::vector<T> first(weights.size()), second(weights.size());
    std::vector<double> w(weights.begin(), weights.end()), m(w.size()), v(w.size());
    AdamwSettings settings;
    for (int t = 1; t <= 4; ++t) {
      auto const gradients = test::random_vector<T>(count, 10 + static_cast<std::uint64_t>(t));
      auto record = record_of<T>(0.5, 0.01, settings, t);
      if (t == 4) record.applied = 0;  // must change nothing
      std::span<UpdateRecord<T> const> const records(&record, 1);
      backend.adamw(gradients, settings, ParameterGroup::Main, records, weights, first, second, {});
      for (std::size_t i = 0; t < 4 && i < w.size(); ++i) {
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

/// Squares of one group that `backend` collects.
double squares(host::Backend<float>& backend, std::span<float const> values, double before = 0.0) {
  UpdateRecord<float> record;
  record.aux_router.squares = before;
  record.main.squares = 3.0;
  backend.add_squares(values, ParameterGroup::AuxRouter, std::span(&record, 1));
  CHECK(record.main.squares == 3.0);
  return record.aux_router.squares;
}

constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

}  // namespace

TEST_CASE("AdamW follows its formula") {
  check_adamw<double>(1e-14);
  check_adamw<float>(1e-6);
}

TEST_CASE("collected squares are exact, repeatable, and keep NaN and infinity") {
  auto values = test::random_vector<float>(50021, 1);
  double expected = 0.0;
  for (float const value : values) expected += double{value} * double{value};
  host::Backend<float> backend(2), serial(1);
  REQUIRE(squares(backend, values) == Approx(expected).epsilon(1e-12));
  REQUIRE(squares(backend, values, 7.0) == Approx(expected + 7.0).epsilon(1e-12));
  REQUIRE(squares(backend, values) == squares(serial, values));
  REQUIRE(squares(backend, {}, 2.0) == 2.0);
  values[40000] = std::numeric_limits<float>::infinity();
  REQUIRE(std::isinf(squares(backend, values)));
  values[10] = std::numeric_limits<float>::quiet_NaN();
  REQUIRE(std::isnan(squares(backend, values)));
  std::vector<float> const large(3, 1e30F);
  REQUIRE(squares(backend, large) == Approx(3e60));
}

TEST_CASE("a collected loss is a weighted sum that keeps NaN and infinity") {
  host::Backend<float> backend(2);
  UpdateRecord<float> record;
  std::span<UpdateRecord<float>> const records(&record, 1);
  backend.add_loss(std::vector<float>{1.0F, 2.0F, 5.0F}, 0.25, records);
  backend.add_loss({}, 1.0, records);
  backend.add_loss(std::vector<float>(20000, 0.5F), 0.001, records);
  REQUIRE(record.collected_loss == Approx(12.0).epsilon(1e-14));
  backend.add_loss(std::vector<float>{std::numeric_limits<float>::infinity()}, 0.5, records);
  REQUIRE(std::isinf(record.collected_loss));
  backend.add_loss(std::vector<float>{std::numeric_limits<float>::quiet_NaN()}, 0.5, records);
  REQUIRE(std::isnan(record.collected_loss));
}

TEST_CASE("a decision clips each group, and counts what is made") {
  host::Backend<double> backend(1);
  AdamwSettings settings;
  UpdateRecord<double> record;
  std::vector<double> const rate{0.5};
  auto const decide = [&](double main, double aux, double loss) {
    record.main.squares = main;
    record.aux_router.squares = aux;
    record.collected_loss = loss;
    backend.decide_update(settings, rate, std::span(&record, 1));
    REQUIRE((record.main.squares == 0.0 && record.aux_router.squares == 0.0 && record.collected_loss == 0.0));
    return record.applied != 0;
  };
  REQUIRE(decide(16.0, 0.25, 3.0));
  REQUIRE((record.main.norm == 4.0 && record.aux_router.norm == 0.5 && record.loss == 3.0));
  REQUIRE((record.main.gradient_scale == 0.25 && record.aux_router.gradient_scale == 1.0));
  REQUIRE((record.main.learning_rate == 0.5 && record.aux_router.learning_rate == 5.0));
  REQUIRE(record.updates == 1);
  REQUIRE(record.first_correction == Approx(10.0).epsilon(1e-14));
  REQUIRE(record.second_correction == Approx(20.0).epsilon(1e-14));
  REQUIRE(decide(0.0, 1.0, 0.0));
  REQUIRE((record.main.gradient_scale == 1.0 && record.aux_router.gradient_scale == 1.0));
  REQUIRE(record.updates == 2);
  REQUIRE(record.first_correction == Approx(1.0 / (1.0 - 0.81)).epsilon(1e-14));
  settings.clip_norm = 0.0;
  REQUIRE(decide(1e6, 1e6, 0.0));
  REQUIRE((record.main.gradient_scale == 1.0 && record.aux_router.gradient_scale == 1.0));
  REQUIRE((record.updates == 3 && record.skipped == 0));
}

TEST_CASE("a decision goes against every bad number in every place, and does not count") {
  host::Backend<double> backend(1);
  UpdateRecord<double> record;
  record.updates = 7;
  std::vector<double> const rate{0.5};
  Index skipped = 0;
  for (double const bad : {nan_value, infinity, 1e41, -infinity, -1e30}) {
    for (int place = bad < 0.0 ? 2 : 0; place < 3; ++place) {  // a sum of squares is not negative
      CAPTURE(bad, place);
      record.main.squares = place == 0 ? bad : 1.0;
      record.aux_router.squares = place == 1 ? bad : 1.0;
      record.collected_loss = place == 2 ? bad : 1.0;
      backend.decide_update({}, rate, std::span(&record, 1));
      REQUIRE(record.applied == 0);
      REQUIRE((record.updates == 7 && record.skipped == ++skipped));
      REQUIRE((record.main.squares == 0.0 && record.aux_router.squares == 0.0 && record.collected_loss == 0.0));
    }
  }
  backend.decide_update({}, rate, std::span(&record, 1));
  REQUIRE((record.applied == 1 && record.updates == 8));
}

TEST_CASE("casting weights copies them") {
  host::Backend<float> backend(1);
  auto const master = test::random_vector<float>(9, 1);
  std::vector<float> weights(9);
  backend.cast_weights(master, weights);
  REQUIRE(weights == master);
}
