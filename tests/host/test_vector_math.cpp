// SPDX-License-Identifier: Apache-2.0
#include "support/catch.hpp"
#include "support/matrix.hpp"

#include "mor/backend/host/vector_math.hpp"

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

using namespace mor;
using host::Pack;

namespace {
float exp_of(float x) {
  float lanes[Pack<float>::size];
  host::store(lanes, host::exp(Pack<float>(x)));
  return lanes[Pack<float>::size - 1];
}
}  // namespace

TEST_CASE("vector exp is within two units in the last place") {
  double worst = 0.0;
  for (float x = -86.2F; x < 88.7F; x += 0.00371F) {
    double const exact = std::exp(double{x});
    double const unit = double{std::nextafter(static_cast<float>(exact), std::numeric_limits<float>::infinity())} -
                        double{static_cast<float>(exact)};
    worst = std::max(worst, std::abs(double{exp_of(x)} - exact) / unit);
  }
  CAPTURE(worst);
  REQUIRE(worst < 2.0);
}

TEST_CASE("vector exp of a number of any size is finite or infinite as it should be") {
  for (float const x : {-1e3F, -1e6F, -1e30F, -std::numeric_limits<float>::max()}) REQUIRE(exp_of(x) == 0.0F);
  for (float const x : {1e3F, 1e30F, std::numeric_limits<float>::max()}) {
    REQUIRE(exp_of(x) == std::numeric_limits<float>::infinity());
  }
}

TEST_CASE("vector exp keeps infinities, zeros and NaN") {
  float const infinity = std::numeric_limits<float>::infinity();
  REQUIRE(exp_of(0.0F) == 1.0F);
  REQUIRE(exp_of(-0.0F) == 1.0F);
  REQUIRE(exp_of(-infinity) == 0.0F);
  REQUIRE(exp_of(infinity) == infinity);
  REQUIRE(exp_of(89.0F) == infinity);
  REQUIRE(exp_of(1e30F) == infinity);
  REQUIRE(exp_of(-1e30F) == 0.0F);
  REQUIRE(exp_of(-104.0F) == 0.0F);
  REQUIRE(exp_of(-86.3F) == 0.0F);
  REQUIRE(exp_of(88.7F) == Approx(std::exp(double{88.7F})).epsilon(1e-6));
  REQUIRE(std::isnan(exp_of(std::numeric_limits<float>::quiet_NaN())));
}

TEST_CASE("vector erf is within 5e-7 of the error function, and odd") {
  for (float x = -6.0F; x < 6.0F; x += 0.00731F) {
    float lanes[Pack<float>::size], mirrored[Pack<float>::size];
    host::store(lanes, host::erf(Pack<float>(x)));
    host::store(mirrored, host::erf(Pack<float>(-x)));
    REQUIRE(double{lanes[0]} == Approx(std::erf(double{x})).margin(5e-7).epsilon(0.0));
    REQUIRE(mirrored[0] == -lanes[0]);
  }
}

TEMPLATE_TEST_CASE("square roots are exact", "", float, double) {
  for (TestType const x : {TestType(0), TestType(1e-30), TestType(2), TestType(144), std::numeric_limits<TestType>::infinity()}) {
    TestType lanes[Pack<TestType>::size];
    host::store(lanes, host::sqrt(Pack<TestType>(x)));
    REQUIRE(lanes[Pack<TestType>::size - 1] == std::sqrt(x));
  }
}

TEMPLATE_TEST_CASE("sums, dot products and maxima cover every length", "", float, double) {
  for (Index count = 0; count < 70; ++count) {
    std::vector<TestType> values(static_cast<std::size_t>(count)), ones(values.size(), TestType(1));
    std::iota(values.begin(), values.end(), TestType(-30));
    TestType const expected = std::accumulate(values.begin(), values.end(), TestType(0));
    REQUIRE(host::dot(count, values.data(), ones.data()) == expected);
    REQUIRE(host::map_sum(count, [](Pack<TestType> x) { return x + Pack<TestType>(1); }, values.data()) ==
            expected + static_cast<TestType>(count));
    TestType const largest = count == 0 ? -std::numeric_limits<TestType>::infinity() : values.back();
    REQUIRE(host::maximum(count, static_cast<TestType const*>(values.data())) == largest);
    auto exponentials = values;
    TestType const total = host::exp_and_sum(count, TestType(2), exponentials.data());
    double sum = 0.0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      sum += std::exp(static_cast<double>(values[i]) - 2.0);
      REQUIRE(static_cast<double>(exponentials[i]) == Approx(std::exp(static_cast<double>(values[i]) - 2.0)).epsilon(1e-6));
    }
    REQUIRE(static_cast<double>(total) == Approx(sum).epsilon(1e-5).margin(0.0));
  }
}

TEMPLATE_TEST_CASE("a map writes its elements and nothing else", "", float, double) {
  for (Index count = 0; count < 20; ++count) {
    std::vector<TestType> in(static_cast<std::size_t>(count), TestType(3)), out(static_cast<std::size_t>(count) + 8, TestType(-1));
    host::map(count, [](Pack<TestType> x) { return x * x; }, out.data(), static_cast<TestType const*>(in.data()));
    for (std::size_t i = 0; i < out.size(); ++i) {
      REQUIRE(out[i] == (static_cast<Index>(i) < count ? TestType(9) : TestType(-1)));
    }
  }
}
