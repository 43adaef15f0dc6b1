// SPDX-License-Identifier: Apache-2.0
#include "mor/train/non_finite_guard.hpp"

#include "support/catch.hpp"
#include "support/failure.hpp"

#include <limits>
#include <string>
#include <vector>

namespace {

using mor::ErrorCode;
using mor::Index;
using mor::test::fails_with;
using mor::train::NonFiniteGuard;
using mor::train::NonFiniteOptions;
using mor::train::NonFinitePolicy;
using mor::train::NonFiniteState;
using mor::train::UpdateVerdict;

constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();
std::vector<double> const bad_values = {nan_value, -nan_value, infinity, -infinity, 1e30, -1e30};

TEST_CASE("a finite step is applied, however large its loss within reason") {
  NonFiniteGuard guard;
  for (double const value : {0.0, -0.0, 1e-310, 3.5, 1e4, 1e20}) {
    UpdateVerdict const verdict = guard.judge(0, value, value);
    REQUIRE(verdict.apply);
    REQUIRE(verdict.message.empty());
  }
  REQUIRE(guard.state().accepted == 6);
}

TEST_CASE("every kind of bad value in either place is rejected in the same step, and shown as it is") {
  for (double const bad : bad_values) {
    for (bool const in_loss : {true, false}) {
      NonFiniteGuard guard;
      UpdateVerdict const verdict = guard.judge(17, in_loss ? bad : 2.5, in_loss ? 0.75 : bad);
      REQUIRE_FALSE(verdict.apply);
      INFO(verdict.message);
      CHECK(verdict.message.find("training step 17") != std::string::npos);
      CHECK(verdict.message.find((in_loss ? "loss " : "gradient norm ") + mor::text_of(bad)) != std::string::npos);
      CHECK(verdict.message.find("skip 1 of at most 5") != std::string::npos);
    }
  }
}

TEST_CASE("five skips in a row are allowed, the sixth ends the training with the true value") {
  NonFiniteGuard guard;
  for (int i = 0; i < 5; ++i) REQUIRE_FALSE(guard.judge(i, nan_value, 1.0).apply);
  REQUIRE(fails_with(ErrorCode::NonFinite, [&] { static_cast<void>(guard.judge(5, nan_value, infinity)); },
                     "training step 5", "loss nan, gradient norm inf"));
  REQUIRE(guard.state().skips_in_all == 6);
}

TEST_CASE("a good step between bad ones starts the count again") {
  NonFiniteGuard guard;
  for (int round = 0; round < 20; ++round) {
    for (int i = 0; i < 5; ++i) REQUIRE_FALSE(guard.judge(i, infinity, 1.0).apply);
    REQUIRE(guard.judge(5, 1.0, 1.0).apply);
  }
  REQUIRE(guard.state().skips_in_all == 100);
  REQUIRE(guard.state().skips_in_row == 0);
}

TEST_CASE("the halt policy stops at the first bad value") {
  for (double const bad : bad_values) {
    NonFiniteGuard guard({.policy = NonFinitePolicy::Halt});
    REQUIRE(guard.judge(0, 1.0, 1.0).apply);
    REQUIRE(fails_with(ErrorCode::NonFinite, [&] { static_cast<void>(guard.judge(1, bad, 1.0)); }, "policy is to halt",
                       "loss " + mor::text_of(bad)));
  }
}

TEST_CASE("rejected values never enter the running statistic, and the guard still works after them") {
  NonFiniteGuard disturbed, calm;
  for (int step = 0; step < 200; ++step) {
    double const loss = 4.0 - 0.01 * step;
    if (step % 3 == 0) {
      for (double const bad : {nan_value, infinity, 1e30}) {
        REQUIRE_FALSE(disturbed.judge(step, bad, 1.0).apply);
        REQUIRE_FALSE(disturbed.judge(step, loss, bad).apply);
        if (step % 2 == 0) REQUIRE(disturbed.judge(step, loss, 1.0).apply);
        if (step % 2 == 0) REQUIRE(calm.judge(step, loss, 1.0).apply);
        if (step % 2 != 0) break;
      }
    }
    REQUIRE(disturbed.judge(step, loss, 1.0).apply);
    REQUIRE(calm.judge(step, loss, 1.0).apply);
    REQUIRE(disturbed.state().mean_loss == calm.state().mean_loss);
    REQUIRE(disturbed.state().accepted == calm.state().accepted);
  }
}

TEST_CASE("the mean of the accepted losses starts at the first and follows with a fiftieth a step") {
  NonFiniteGuard guard;
  REQUIRE(guard.judge(0, 8.0, 1.0).apply);
  REQUIRE(guard.state().mean_loss == 8.0);
  REQUIRE(guard.judge(1, 4.0, 1.0).apply);
  REQUIRE(guard.state().mean_loss == Approx(6.0));
  for (int i = 2; i < 50; ++i) REQUIRE(guard.judge(i, 6.0, 1.0).apply);
  double const before = guard.state().mean_loss;
  REQUIRE(guard.judge(50, 7.0, 1.0).apply);
  REQUIRE(guard.state().mean_loss == Approx(before + 0.02 * (7.0 - before)));
}

TEST_CASE("a restored guard continues where the other stood") {
  NonFiniteGuard first;
  for (int i = 0; i < 7; ++i) REQUIRE(first.judge(i, 1.0 / (i + 1), 1.0).apply);
  for (int i = 0; i < 4; ++i) REQUIRE_FALSE(first.judge(i, nan_value, 1.0).apply);
  NonFiniteGuard second;
  second.restore(first.state());
  for (int i = 0; i < 3; ++i) {
    double const loss = i == 0 ? nan_value : 0.3;
    REQUIRE(first.judge(i, loss, 1.0).apply == second.judge(i, loss, 1.0).apply);
    REQUIRE(first.state() == second.state());
  }
}

TEST_CASE("policy names read and write") {
  for (NonFinitePolicy const policy : {NonFinitePolicy::Halt, NonFinitePolicy::Skip}) {
    REQUIRE(mor::train::parse_non_finite_policy(to_string(policy)) == policy);
  }
  REQUIRE(fails_with(
      ErrorCode::InvalidConfig, [] { static_cast<void>(mor::train::parse_non_finite_policy("ignore")); },
      "halt or skip", "ignore"));
}

}  // namespace
