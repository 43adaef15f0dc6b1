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
using mor::train::UpdateReport;

constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();
std::vector<double> const bad_values = {nan_value, -nan_value, infinity, -infinity, 1e30, -1e30};

/// An update that was made.
UpdateReport made(double loss) {
  UpdateReport update;
  update.norms.main = 1.0;
  update.loss = loss;
  update.applied = true;
  return update;
}

/// An update that was left out.
UpdateReport left_out(double loss, double gradient_norm) {
  UpdateReport update = made(loss);
  update.norms.main = gradient_norm;
  update.applied = false;
  return update;
}

TEST_CASE("an update that was made needs no message") {
  NonFiniteGuard guard;
  for (double const loss : {0.0, -0.0, 1e-310, 3.5, 1e4, 1e20}) REQUIRE(guard.judge(0, made(loss)).empty());
  REQUIRE(guard.state().accepted == 6);
}

TEST_CASE("every kind of bad value in either place is told in the same step, and shown as it is") {
  for (double const bad : bad_values) {
    for (bool const in_loss : {true, false}) {
      if (!in_loss && bad < 0.0) continue;  // no norm is negative
      NonFiniteGuard guard;
      std::string const message = guard.judge(17, left_out(in_loss ? bad : 2.5, in_loss ? 0.75 : bad));
      INFO(message);
      CHECK(message.find("training step 17") != std::string::npos);
      CHECK(message.find((in_loss ? "loss " : "gradient norm ") + mor::text_of(bad)) != std::string::npos);
      CHECK(message.find("skip 1 of at most 5") != std::string::npos);
    }
  }
}

TEST_CASE("the norm of the auxiliary router is shown where it is the bad one") {
  NonFiniteGuard guard;
  for (double const bad : {nan_value, infinity, 1e30}) {
    UpdateReport update = left_out(2.5, 0.75);
    update.norms.aux_router = bad;
    CHECK(guard.judge(17, update).find("gradient norm " + mor::text_of(bad)) != std::string::npos);
  }
}

TEST_CASE("five skips in a row are allowed, the sixth ends the training with the true value") {
  NonFiniteGuard guard;
  for (int i = 0; i < 5; ++i) REQUIRE_FALSE(guard.judge(i, left_out(nan_value, 1.0)).empty());
  REQUIRE(fails_with(ErrorCode::NonFinite, [&] { static_cast<void>(guard.judge(5, left_out(nan_value, infinity))); },
                     "training step 5", "loss nan, gradient norm inf"));
  REQUIRE(guard.state().skips_in_all == 6);
}

TEST_CASE("a good step between bad ones starts the count again") {
  NonFiniteGuard guard;
  for (int round = 0; round < 20; ++round) {
    for (int i = 0; i < 5; ++i) REQUIRE_FALSE(guard.judge(i, left_out(infinity, 1.0)).empty());
    REQUIRE(guard.judge(5, made(1.0)).empty());
  }
  REQUIRE(guard.state().skips_in_all == 100);
  REQUIRE(guard.state().skips_in_row == 0);
}

TEST_CASE("the halt policy stops at the first bad value") {
  for (double const bad : bad_values) {
    NonFiniteGuard guard({.policy = NonFinitePolicy::Halt});
    REQUIRE(guard.judge(0, made(1.0)).empty());
    REQUIRE(fails_with(ErrorCode::NonFinite, [&] { static_cast<void>(guard.judge(1, left_out(bad, 1.0))); }, "policy is to halt",
                       "loss " + mor::text_of(bad)));
  }
}

TEST_CASE("values of updates left out never enter the running statistic, and the guard still works after them") {
  NonFiniteGuard disturbed, calm;
  for (int step = 0; step < 200; ++step) {
    double const loss = 4.0 - 0.01 * step;
    if (step % 3 == 0) {
      for (double const bad : {nan_value, infinity, 1e30}) {
        REQUIRE_FALSE(disturbed.judge(step, left_out(bad, 1.0)).empty());
        REQUIRE_FALSE(disturbed.judge(step, left_out(loss, bad)).empty());
        if (step % 2 == 0) REQUIRE(disturbed.judge(step, made(loss)).empty());
        if (step % 2 == 0) REQUIRE(calm.judge(step, made(loss)).empty());
        if (step % 2 != 0) break;
      }
    }
    REQUIRE(disturbed.judge(step, made(loss)).empty());
    REQUIRE(calm.judge(step, made(loss)).empty());
    REQUIRE(disturbed.state().mean_loss == calm.state().mean_loss);
    REQUIRE(disturbed.state().accepted == calm.state().accepted);
  }
}

TEST_CASE("the mean of the accepted losses starts at the first and follows with a fiftieth a step") {
  NonFiniteGuard guard;
  REQUIRE(guard.judge(0, made(8.0)).empty());
  REQUIRE(guard.state().mean_loss == 8.0);
  REQUIRE(guard.judge(1, made(4.0)).empty());
  REQUIRE(guard.state().mean_loss == Approx(6.0));
  for (int i = 2; i < 50; ++i) REQUIRE(guard.judge(i, made(6.0)).empty());
  double const before = guard.state().mean_loss;
  REQUIRE(guard.judge(50, made(7.0)).empty());
  REQUIRE(guard.state().mean_loss == Approx(before + 0.02 * (7.0 - before)));
}

TEST_CASE("a restored guard continues where the other stood") {
  NonFiniteGuard first;
  for (int i = 0; i < 7; ++i) REQUIRE(first.judge(i, made(1.0 / (i + 1))).empty());
  for (int i = 0; i < 4; ++i) REQUIRE_FALSE(first.judge(i, left_out(nan_value, 1.0)).empty());
  NonFiniteGuard second;
  second.restore(first.state());
  for (int i = 0; i < 3; ++i) {
    UpdateReport const update = i == 0 ? left_out(nan_value, 1.0) : made(0.3);
    REQUIRE(first.judge(i, update) == second.judge(i, update));
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
