// SPDX-License-Identifier: Apache-2.0
#include "mor/train/progress_line.hpp"

#include "support/catch.hpp"

#include <limits>
#include <string>

namespace {

using mor::train::duration_text;
using mor::train::Progress;
using mor::train::progress_line;
using mor::train::rate_text;

Progress sample() {
  return {.step = 120,
          .total_steps = 2000,
          .loss = 3.41213,
          .gradient_norm = 0.8151,
          .learning_rate = 3e-3,
          .milliseconds = 812.4,
          .tokens_per_second = 5043.0,
          .seconds_left = 161.0,
          .mean_depth = 2.0119,
          .num_recursions = 3};
}

TEST_CASE("the progress line is this") {
  REQUIRE(progress_line(sample()) ==
          "step   120/2000  loss 3.4121  grad 0.82  lr 3.0e-03  812 ms  5.0k tok/s  eta 2m41s  depth 2.01/3");
}

TEST_CASE("steps stay in their column") {
  Progress progress = sample();
  progress.step = 7;
  REQUIRE(progress_line(progress).starts_with("step     7/2000  loss"));
  progress.total_steps = 1234567;
  REQUIRE(progress_line(progress).starts_with("step       7/1234567  loss"));
}

TEST_CASE("utilisation is shown where it is known, and bad values as they are") {
  Progress progress = sample();
  progress.utilization = 0.4123;
  progress.loss = std::numeric_limits<double>::quiet_NaN();
  progress.gradient_norm = std::numeric_limits<double>::infinity();
  progress.seconds_left = std::numeric_limits<double>::infinity();
  progress.milliseconds = 3.14;
  REQUIRE(progress_line(progress) ==
          "step   120/2000  loss nan  grad inf  lr 3.0e-03  3.1 ms  5.0k tok/s  mfu 41.2%  eta ?  depth 2.01/3");
  progress.gradient_norm = 1e300;
  REQUIRE(progress_line(progress).find("grad 1.00e+300") != std::string::npos);
}

TEST_CASE("durations show their two largest units") {
  CHECK(duration_text(0.0) == "0s");
  CHECK(duration_text(59.4) == "59s");
  CHECK(duration_text(59.5) == "1m00s");
  CHECK(duration_text(161.0) == "2m41s");
  CHECK(duration_text(3599.0) == "59m59s");
  CHECK(duration_text(3720.0) == "1h02m");
  CHECK(duration_text(86399.0) == "23h59m");
  CHECK(duration_text(273600.0) == "3d04h");
  CHECK(duration_text(-1.0) == "?");
  CHECK(duration_text(1e300) == "?");
}

TEST_CASE("rates take four characters and a unit at most") {
  CHECK(rate_text(0.4) == "0");
  CHECK(rate_text(999.4) == "999");
  CHECK(rate_text(999.5) == "1.0k");
  CHECK(rate_text(5043.0) == "5.0k");
  CHECK(rate_text(81234.0) == "81.2k");
  CHECK(rate_text(999949.0) == "999.9k");
  CHECK(rate_text(999950.0) == "1.0M");
  CHECK(rate_text(1.26e6) == "1.3M");
  CHECK(rate_text(2.5e9) == "2.5G");
}

}  // namespace
