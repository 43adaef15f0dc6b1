// SPDX-License-Identifier: Apache-2.0
#include "mor/backend/host/backend.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/expert_choice.hpp"
#include "mor/policy/sharing.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"

#include <vector>

namespace {

using mor::Batch;
using mor::Index;
using mor::Row;
using mor::RoutingMode;
using mor::Token;
using Backend = mor::host::Backend<float>;
using Net = mor::RecursiveTransformer<mor::ExpertChoice<>, mor::RecursionWiseCache, mor::MiddleCycle, Backend>;

mor::ModelConfig small_config() {
  mor::ModelConfig config;
  config.recursion.num_recursions = 3;
  config.recursion.num_prelude_layers = config.recursion.num_coda_layers = 1;
  config.num_hidden_layers = 1 + 3 * 2 + 1;
  return config;
}

TEST_CASE("logits and losses of chosen rows are the bits that all rows get") {
  Backend backend;
  Net net(backend, small_config());
  net.initialize(5);
  std::vector<Token> const tokens = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3}, targets = {1, 4, 1, 5, 9, 2, 6, 5, 3, 5};
  std::vector<Row> const positions = {0, 1, 2, 3, 0, 1, 2, 3, 4, 5}, offsets = {0, 4, 10};
  Batch const batch{tokens, positions, offsets};
  std::vector<Row> const rows = {9, 0, 4, 3, 4};
  for (RoutingMode const mode : {RoutingMode::TopK, RoutingMode::Threshold}) {
    auto const all = net.forward(batch, mode);
    std::vector<float> const logits(all.data, all.data + all.size());
    auto const some = net.forward(batch, mode, rows);
    REQUIRE(some.rows == static_cast<Index>(rows.size()));
    for (Index i = 0; i < some.rows; ++i) {
      std::vector<float> const found(some.row(i), some.row(i) + some.cols);
      auto const first = logits.begin() + rows[static_cast<std::size_t>(i)] * some.cols;
      CHECK((found == std::vector<float>(first, first + some.cols)));
    }
    auto const values = net.loss(batch, targets, mode);
    std::vector<float> const losses(values.begin(), values.end());
    std::vector<Token> chosen;
    for (Row const row : rows) chosen.push_back(targets[static_cast<std::size_t>(row)]);
    auto const few = net.loss(batch, chosen, mode, rows);
    REQUIRE(few.size() == rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) CHECK(few[i] == losses[static_cast<std::size_t>(rows[i])]);
  }
}

TEST_CASE("a row that the batch does not have is refused") {
  Backend backend;
  Net net(backend, small_config());
  net.initialize(5);
  std::vector<Token> const tokens = {3, 1}, target = {1};
  std::vector<Row> const positions = {0, 1}, offsets = {0, 2};
  Batch const batch{tokens, positions, offsets};
  for (Row const bad : {-1, 2}) {
    std::vector<Row> const rows = {bad};
    auto const code = mor::ErrorCode::InvalidArgument;
    CHECK(mor::test::fails_with(code, [&] { (void)net.forward(batch, RoutingMode::TopK, rows); }, "no such row"));
    CHECK(mor::test::fails_with(code, [&] { (void)net.loss(batch, target, RoutingMode::TopK, rows); }, "no such row"));
  }
}

}  // namespace
