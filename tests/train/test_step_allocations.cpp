// SPDX-License-Identifier: Apache-2.0
// After the first step a training step allocates nothing: not from the backend, not with `new`.
#include "support/catch.hpp"
#include "train/allocation_count.hpp"

#include "mor/backend/host/backend.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/expert_choice.hpp"
#include "mor/policy/sharing.hpp"
#include "mor/policy/token_choice.hpp"
#include "mor/train/adamw.hpp"

#include <vector>

using namespace mor;

namespace {

template <class Router, class Cache>
void check_steady_state() {
  using Host = host::Backend<float>;
  ModelConfig config;
  config.recursion.num_recursions = 3;
  config.recursion.num_prelude_layers = 1;
  config.recursion.num_coda_layers = 1;
  config.num_hidden_layers = 8;
  Host backend;
  RecursiveTransformer<Router, Cache, MiddleCycle, Host> model(backend, config);
  model.initialize(1);
  model.parameters().enable_gradients();
  train::Adamw<Host> optimizer(backend, model.parameters(), {});
  std::vector<Token> tokens(96);
  std::vector<Row> positions(96);
  std::vector<Row> const offsets{0, 40, 96};
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<Token>(i * 37 % 251);
    positions[i] = static_cast<Row>(i < 40 ? i : i - 40);
  }
  Batch const batch{tokens, positions, offsets};
  auto const step = [&] {
    model.parameters().zero_gradients();
    model.forward_backward(batch, tokens, {}, {0.01, 1.0});
    // Token choice may send more tokens deep than before, so the weights stay where they are.
    optimizer.add_loss(model.losses(), 0.01);
    optimizer.step(0.0);
  };
  for (int i = 0; i < 3; ++i) step();
  long const before = test::allocation_count();
  Index const asked = backend.memory_statistics().allocations;
  for (int i = 0; i < 3; ++i) step();
  CHECK(test::allocation_count() == before);
  CHECK(backend.memory_statistics().allocations == asked);
}

}  // namespace

TEST_CASE("a training step of expert choice allocates nothing after the first") {
  check_steady_state<ExpertChoice<>, RecursionWiseCache>();
}
TEST_CASE("a training step of token choice allocates nothing after the first") {
  check_steady_state<TokenChoice<>, SharedCache>();
}
