// SPDX-License-Identifier: Apache-2.0
#include "mor/core/capacity.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"

#include <algorithm>
#include <vector>

using mor::Index;
using mor::kept_tokens;
using mor::RecursionConfig;
using mor::test::fails_with;

namespace {

RecursionConfig recursions(Index count, std::vector<double> capacities = {}) {
  RecursionConfig config;
  config.num_recursions = count;
  config.capacities = std::move(capacities);
  return config;
}

}  // namespace

TEST_CASE("default capacities keep the published numbers of tokens") {
  auto const kept = [](Index count, Index length) {
    std::vector<Index> all;
    for (Index step = 0; step < count; ++step) all.push_back(kept_tokens(recursions(count), step, length));
    return all;
  };
  REQUIRE(kept(2, 2048) == std::vector<Index>{2048, 1024});
  REQUIRE(kept(3, 2048) == std::vector<Index>{2048, 1365, 682});
  REQUIRE(kept(4, 2048) == std::vector<Index>{2048, 1536, 1024, 512});
  REQUIRE(kept(3, 1) == std::vector<Index>{1, 1, 1});
  REQUIRE(kept(3, 2) == std::vector<Index>{2, 1, 1});
  REQUIRE(kept(3, 0) == std::vector<Index>{0, 0, 0});
  REQUIRE(kept(1, 7) == std::vector<Index>{7});
}

TEST_CASE("default capacities are exact integer division, also for lengths beyond double precision") {
  for (Index count = 1; count <= 8; ++count) {
    for (Index length = 1; length <= 500; ++length) {
      for (Index step = 0; step < count; ++step) {
        REQUIRE(kept_tokens(recursions(count), step, length) == std::max<Index>(1, (count - step) * length / count));
      }
    }
  }
  Index const huge = 9007199254740993;  // 2^53 + 1
  REQUIRE(kept_tokens(recursions(3), 0, huge) == huge);
  REQUIRE(kept_tokens(recursions(3), 2, 9223372036854775807) == 3074457345618258602);
}

TEST_CASE("configured capacities keep the floor of their share, at least one token and at most all") {
  RecursionConfig const config = recursions(3, {1.0, 0.5, 0.001});
  REQUIRE(kept_tokens(config, 0, 11) == 11);
  REQUIRE(kept_tokens(config, 1, 11) == 5);
  REQUIRE(kept_tokens(config, 2, 11) == 1);
  REQUIRE(kept_tokens(config, 2, 5000) == 5);
  REQUIRE(kept_tokens(config, 2, 0) == 0);
  REQUIRE(mor::capacity(config, 1) == 0.5);
  REQUIRE(mor::capacity(recursions(4), 1) == 0.75);
}

TEST_CASE("warm-up falls from nearly all tokens to the capacity along a half cosine") {
  RecursionConfig const config = recursions(2);
  REQUIRE(kept_tokens(config, 1, 1000, 0, 100) == 1000);
  REQUIRE(kept_tokens(config, 1, 1000, 25, 100) == 926);  // 0.5 + 0.25 (1 + cos(pi / 4)) = 0.92678
  REQUIRE(kept_tokens(config, 1, 1000, 75, 100) == 573);  // 0.5 + 0.25 (1 + cos(3 pi / 4)) = 0.57322
  REQUIRE(kept_tokens(config, 1, 1000, 100, 100) == 500);
  REQUIRE(kept_tokens(config, 1, 1000, 5000, 100) == 500);
  REQUIRE(kept_tokens(config, 1, 1000, 7, 0) == 500);
  REQUIRE(kept_tokens(config, 1, 0, 7, 100) == 0);
  Index previous = 1000;
  for (Index call = 1; call <= 100; ++call) {
    Index const kept = kept_tokens(config, 1, 1000, call, 100);
    REQUIRE(kept <= previous);
    REQUIRE(kept_tokens(config, 0, 1000, call, 100) == 1000);
    previous = kept;
  }
}

TEST_CASE("a recursion that does not exist and a negative length are refused") {
  RecursionConfig const config = recursions(3);
  REQUIRE(fails_with(
      mor::ErrorCode::InvalidArgument, [&] { (void)kept_tokens(config, 3, 10); }, "[0, 3)", "got 3"));
  REQUIRE(fails_with(
      mor::ErrorCode::InvalidArgument, [&] { (void)kept_tokens(config, -1, 10); }, "got -1"));
  REQUIRE(fails_with(
      mor::ErrorCode::InvalidArgument, [&] { (void)kept_tokens(config, 0, -5); }, "negative"));
}
