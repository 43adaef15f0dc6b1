// SPDX-License-Identifier: Apache-2.0
// How much room keys have where nobody says: enough for kept prefixes beside the longest texts in all slots.
#include "served/served.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <vector>

using namespace mor;
using namespace mor::test;

namespace {

ServedSetup setup_of(CacheKind cache, Index slots) {
  ServedSetup setup = tiny_setup(tiny_model(RouterKind::ExpertChoice, cache, SharingKind::MiddleCycle));
  setup.options.slots = slots;
  return setup;
}

/// Every token of it takes every recursion.
infer::Request deep_request(std::vector<Token> prompt, Index new_tokens) {
  infer::Request request;
  request.prompt = std::move(prompt);
  request.max_new_tokens = new_tokens;
  request.depth.min_depth = 3;
  return request;
}

}  // namespace

TEST_CASE("a kept prompt outlasts texts that fill the context in all slots") {
  for (auto const cache : {CacheKind::RecursionWise, CacheKind::Shared, CacheKind::Hybrid}) {
    for (Index const slots : {1, 4}) {
      INFO("cache " << static_cast<int>(cache) << ", slots " << slots);
      auto const setup = setup_of(cache, slots);
      Index const context = setup.model.transformer.max_position_embeddings;
      auto const served = make_served(setup);
      std::vector<Token> prompt;
      for (Token token = 1; token < 21; ++token) prompt.push_back(token);
      serve_all(*served, {deep_request(prompt, 1)});
      std::vector<infer::Request> long_texts;
      for (Token first = 0; first < slots; ++first) long_texts.push_back(deep_request({first, 25}, context));
      serve_all(*served, long_texts);
      CHECK(served->statistics().preempted == 0);
      CHECK(served->statistics().prefix_hits == 0);
      prompt.push_back(21);
      serve_all(*served, {deep_request(prompt, 1)});
      CHECK(served->statistics().prefix_hits == 1);
      CHECK(served->statistics().prefix_tokens == 20);
    }
  }
}

TEST_CASE("room for kept prefixes comes on top of the slots' where nobody says how much, and only then") {
  for (Index const slots : {1, 3, 4, 9}) {
    auto setup = setup_of(CacheKind::RecursionWise, slots);
    auto const room = make_served(setup)->cache_bytes();
    setup.options.prefix_cache = false;
    auto const without = make_served(setup)->cache_bytes();
    CHECK(room * slots == without * (slots + std::max<Index>(slots / 4, 1)));
    setup.options.cache_bytes = without;
    auto const asked = make_served(setup)->cache_bytes();
    CHECK(asked <= without);
    setup.options.prefix_cache = true;
    CHECK(make_served(setup)->cache_bytes() == asked);
  }
}
