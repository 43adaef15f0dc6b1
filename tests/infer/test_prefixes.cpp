// SPDX-License-Identifier: Apache-2.0
// Keys that an earlier text left are used for as much as a later one begins like it, and change nothing but the work.
#include "served/served.hpp"
#include "support/catch.hpp"

#include "mor/core/philox.hpp"

#include <algorithm>
#include <vector>

using namespace mor;
using namespace mor::test;

namespace {

infer::Request greedy(std::vector<Token> prompt, Index new_tokens, infer::DepthKnobs knobs = {}) {
  infer::Request request;
  request.prompt = std::move(prompt);
  request.max_new_tokens = new_tokens;
  request.sampling.temperature = 0.0;
  request.depth = knobs;
  return request;
}

std::vector<Token> counting(Token first, Token count) {
  std::vector<Token> tokens;
  for (Token i = 0; i < count; ++i) tokens.push_back(static_cast<Token>((first + 3 * i) % 29));
  return tokens;
}
std::vector<Token> operator+(std::vector<Token> head, std::vector<Token> const& tail) {
  head.insert(head.end(), tail.begin(), tail.end());
  return head;
}

/// Tokens that were not read again, of requests served one after the other.
std::vector<Index> saved(Served& served, std::vector<infer::Request> const& requests) {
  std::vector<Index> tokens;
  for (auto const& request : requests) {
    auto const before = served.statistics().prefix_tokens;
    serve_all(served, {request});
    tokens.push_back(served.statistics().prefix_tokens - before);
  }
  return tokens;
}

}  // namespace

TEST_CASE("the same prompt again reads one token, one that begins alike what is not in whole pages of eight") {
  auto const system = counting(1, 20);
  auto const served = make_served(tiny_setup());
  std::vector<infer::Request> const requests{
      greedy(system + counting(5, 6), 4),                  // nothing there
      greedy(system + counting(5, 6), 4),                  // all but the last token, which makes the next
      greedy(system + counting(11, 9), 4),                 // 16 of 20 in common
      greedy(system + counting(11, 9) + counting(2, 3), 4),  // behind that prompt
      greedy(system, 4),                                   // 16, in every one of them
      greedy(counting(2, 20), 4),                          // nothing in common
      greedy(system + counting(5, 6), 4, {0.1, 1, 0}),     // with other knobs nothing
  };
  CHECK(saved(*served, requests) == std::vector<Index>{0, 25, 16, 29, 16, 0, 0});
}

TEST_CASE("a conversation goes on from where it was, and its earlier turns hold no pages of their own") {
  auto const served = make_served(tiny_setup());
  auto text = counting(3, 10);
  Index cached = 0;
  for (int turn = 0; turn < 4; ++turn) {
    auto const before = served->statistics().prefix_tokens;
    std::size_t const length = text.size();
    text = serve_all(*served, {greedy(text, 4)}).front().text;
    if (turn > 0) CHECK(served->statistics().prefix_tokens - before == static_cast<Index>(length) - 4);  // its last and what was said
    text = text + counting(static_cast<Token>(turn), 3);
    cached = served->statistics().cached_pages;
  }
  served->drop_prefixes();
  auto const fresh = make_served(tiny_setup());
  text.resize(text.size() - 3);
  serve_all(*fresh, {greedy({text.begin(), text.end() - 1}, 1)});
  CHECK(cached == fresh->statistics().cached_pages);
}

TEST_CASE("I4: texts that begin like earlier ones, wherever they part, get the same bits as alone") {
  for (auto const router : {RouterKind::ExpertChoice, RouterKind::TokenChoice, RouterKind::AllTokens}) {
    for (auto const cache : {CacheKind::RecursionWise, CacheKind::Shared, CacheKind::Hybrid}) {
      auto setup = tiny_setup(tiny_model(router, cache, SharingKind::MiddleCycle));
      Philox const generator{17};
      std::vector<infer::Request> requests;
      for (std::uint64_t i = 0; i < 60; ++i) {
        auto const dice = generator.block(i);
        std::vector<Token> prompt;
        if (i > 0 && dice[0] % 8 != 0) {  // some of an earlier prompt
          auto const& earlier = requests[dice[1] % i].prompt;
          prompt.assign(earlier.begin(), earlier.begin() + static_cast<std::ptrdiff_t>(1 + dice[2] % earlier.size()));
        }
        auto const more = static_cast<Token>(dice[3] % 12 + (prompt.empty() ? 1 : 0));
        prompt = prompt + counting(static_cast<Token>(dice[3] % 29), more);
        if (prompt.size() > 40) prompt.resize(40);
        auto request = greedy(prompt, 1 + static_cast<Index>(dice[0] % 7));
        request.sampling = {.temperature = 1.0, .seed = i};
        if (dice[2] % 5 == 0) request.depth.min_depth = 2;
        requests.push_back(std::move(request));
      }
      auto const expected = serve_each_alone(setup, requests);
      for (Index const page_size : {1, 5, 8, 64}) {
        INFO("router " << static_cast<int>(router) << ", cache " << static_cast<int>(cache) << ", pages of " << page_size);
        setup.options.page_size = page_size;
        auto const served = make_served(setup);
        for (int again = 0; again < 2; ++again) {
          auto const got = serve_all(*served, requests, again);
          for (std::size_t i = 0; i < got.size(); ++i) REQUIRE(got[i] == expected[i]);
        }
        CHECK(served->statistics().prefix_hits > (page_size == 64 ? 0 : 60));  // hardly any room for pages longer than texts
        served->drop_prefixes();
        CHECK(served->statistics().free_pages == served->statistics().total_pages);
        CHECK(served->statistics().free_end_pages == served->statistics().total_end_pages);
      }
    }
  }
}
