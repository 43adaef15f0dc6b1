// SPDX-License-Identifier: Apache-2.0
// I6 (work conserving), I7 (conservation) and I8 (monotone knobs) of a serving engine, and what it does at the edges:
// exact ties, full contexts, weights that are not numbers.
#include "served/served.hpp"
#include "support/catch.hpp"

#include "mor/infer/scheduler.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

using namespace mor;
using namespace mor::test;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Ticks that a request needs with nothing in its way: each chunk enters and goes as deep as its deepest token, then
/// each new token that is read takes its recursions; coda, sampling and prelude are part of the last of them.
Index ticks_alone(Outcome const& outcome, Index prompt, Index chunk) {
  Index ticks = 0;
  for (Index first = 0; first < prompt; first += chunk) {
    auto const begin = outcome.depths.begin() + first;
    ticks += 1 + *std::max_element(begin, begin + std::min(chunk, prompt - first));
  }
  return std::accumulate(outcome.depths.begin() + prompt, outcome.depths.end(), ticks);
}

void check_drained(Served& served) {
  served.drop_prefixes();
  auto const now = served.statistics();
  CHECK(now.free_pages == now.total_pages);
  CHECK(now.free_end_pages == now.total_end_pages);
  CHECK(now.cached_pages == 0);
  CHECK(now.queued == 0);
  CHECK(now.running == 0);
  CHECK(now.submitted == now.finished + now.cancelled);
  CHECK(served.idle());
}

void set_to(Served& served, std::string const& part, float value) {
  for (auto const& [name, values] : served.weights()) {
    if (name.find(part) != std::string::npos) served.write(name, std::vector<float>(values.size(), value));
  }
}

}  // namespace

TEST_CASE("I6: a request with free slots beside it takes no tick more than alone") {
  auto setup = tiny_setup();
  auto const requests = mixed_requests(24, setup.model, 20, 1);
  setup.options.slots = 24;
  setup.options.prefill_rows = 24 * setup.options.prefill_chunk;
  setup.options.prefix_cache = false;
  for (bool const shipped : {true, false}) {
    setup.shipped_scheduler = shipped;
    auto const served = make_served(setup);
    auto const outcomes = serve_all(*served, requests);
    Index longest = 0;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      auto const prompt = static_cast<Index>(requests[i].prompt.size());
      longest = std::max(longest, ticks_alone(outcomes[i], prompt, setup.options.prefill_chunk));
      auto const one = make_served(setup);
      serve_all(*one, {requests[i]});
      CHECK(one->statistics().ticks == ticks_alone(outcomes[i], prompt, setup.options.prefill_chunk));
    }
    CHECK(served->statistics().ticks == longest);
  }
}

TEST_CASE("I6: under every scheduler each step of a busy engine launches rows, and each request ends") {
  auto setup = tiny_setup();
  auto const requests = mixed_requests(40, setup.model, 20, 2);
  for (auto const scheduler : kAllSchedulers) {
    for (bool const shipped : {true, false}) {
      INFO("scheduler " << static_cast<int>(scheduler));
      setup.scheduler = scheduler;
      setup.shipped_scheduler = shipped;
      auto const served = make_served(setup);
      Outcomes outcomes;
      for (auto const& request : requests) outcomes.expect(served->submit(request), request.prompt);
      while (served->statistics().queued + served->statistics().running > 0) {
        auto const before = served->statistics();
        outcomes.take(served->step());
        auto const after = served->statistics();
        REQUIRE(after.ticks == before.ticks + 1);
        bool const recursion = after.recursion_rows > before.recursion_rows;
        REQUIRE((recursion || after.coda_ticks > before.coda_ticks || after.prompt_tokens > before.prompt_tokens));
      }
      CHECK(outcomes.finished() == 40);
      check_drained(*served);
    }
  }
}

TEST_CASE("the host waits for the number of rows only where many rows of prompts may have left") {
  auto setup = tiny_setup();
  setup.reports = ReportsArrive::Late;
  auto requests = mixed_requests(40, setup.model, 20, 4);
  auto const waited = [&] {
    auto const served = make_served(setup);
    serve_all(*served, requests);
    auto const now = served->statistics();
    CHECK(now.counted_ticks < now.ticks);
    return now.counted_ticks;
  };
  CHECK(waited() == 0);  // few rows
  setup.options.few_rows = 0;
  CHECK(waited() > 0);
  for (auto& request : requests) request.prompt.resize(1);
  CHECK(waited() == 0);
}

TEST_CASE("a launch whose rows were waited for has no others") {
  auto setup = tiny_setup();
  setup.reports = ReportsArrive::Late;
  setup.options.few_rows = 0;
  setup.options.pad_rows = false;
  setup.options.prefill_chunk = setup.options.prefill_rows = 30;
  infer::Request request;
  for (Token token = 1; token <= 30; ++token) request.prompt.push_back(token % 20);
  request.max_new_tokens = 1;
  auto const served = make_served(setup);
  serve_all(*served, {request});
  auto const now = served->statistics();
  CHECK(now.mean_depth() < 3.0);
  CHECK(now.counted_ticks == now.ticks);
  CHECK(now.launched_rows == now.recursion_rows + 1);  // the first tick has none yet
}

TEST_CASE("I6: late reports cost no step without a launch while work is known") {
  auto setup = tiny_setup();
  setup.reports = ReportsArrive::Late;
  setup.options.ticks_in_flight = 3;
  auto const served = make_served(setup);
  Outcomes outcomes;
  auto const requests = mixed_requests(40, setup.model, 20, 3);
  for (auto const& request : requests) outcomes.expect(served->submit(request), request.prompt);
  Index ticks = 0;
  while (!served->idle()) {
    outcomes.take(served->step());
    Index const now = served->statistics().ticks;
    REQUIRE((now == ticks + 1 || served->statistics().running == 0));
    ticks = now;
  }
  CHECK(outcomes.finished() == 40);
  check_drained(*served);
}

TEST_CASE("I7: rows launched are the recursions that tokens took, and every page comes back") {
  for (auto const& [model, lock_step] : all_servable()) {
    for (bool const kept : {false, true}) {
      INFO(describe(model) << (kept ? ", prefixes kept" : ""));
      auto setup = tiny_setup(model);
      setup.scheduler = lock_step ? Schedulers::NoRefill : Schedulers::Tick;
      setup.options.prefix_cache = kept;
      auto const served = make_served(setup);
      auto const requests = mixed_requests(50, model, 20, 4);
      auto const outcomes = serve_all(*served, requests);
      auto const now = served->statistics();
      Index taken = 0, read = 0, cost = 0, new_tokens = 0, texts = 0;
      for (std::size_t d = 0; d < now.depths.size(); ++d) {
        taken += static_cast<Index>(d) * now.depths[d];
        read += now.depths[d];
      }
      for (std::size_t i = 0; i < outcomes.size(); ++i) {
        cost += outcomes[i].cost;
        texts += static_cast<Index>(outcomes[i].depths.size());
        new_tokens += static_cast<Index>(outcomes[i].text.size() - requests[i].prompt.size());
      }
      CHECK(now.recursion_rows == taken);
      CHECK(now.launched_rows == taken);
      CHECK(now.new_tokens == new_tokens);
      CHECK(read + now.prefix_tokens == texts);
      CHECK((kept ? taken < cost : taken == cost));
      CHECK((now.prefix_hits > 0) == kept);
      CHECK((now.cached_pages > 0) == kept);
      CHECK(now.free_pages + now.cached_pages == now.total_pages);
      CHECK(now.mean_depth() == Approx(static_cast<double>(taken) / static_cast<double>(read)));
      check_drained(*served);
    }
  }
}

TEST_CASE("I7: padding rows are counted as launched and as nothing else") {
  auto setup = tiny_setup();
  auto const requests = mixed_requests(30, setup.model, 20, 5);
  auto const plain = make_served(setup);
  serve_all(*plain, requests);
  setup.options.pad_rows = true;
  auto const padded = make_served(setup);
  serve_all(*padded, requests);
  CHECK(padded->statistics().recursion_rows == plain->statistics().recursion_rows);
  CHECK(padded->statistics().launched_rows > plain->statistics().launched_rows);
  CHECK(padded->statistics().ticks == plain->statistics().ticks);
}

TEST_CASE("I8: with what a token sees held fixed, a lower threshold never makes it shallower") {
  for (auto const cache : {CacheKind::RecursionWise, CacheKind::Shared, CacheKind::Hybrid}) {
    auto setup = tiny_setup(tiny_model(RouterKind::ExpertChoice, cache, SharingKind::MiddleCycle, 4));
    auto const served = make_served(setup);
    auto const prompts = mixed_requests(20, setup.model, 20, 6);
    std::vector<std::vector<Row>> before(prompts.size());
    Index rises = 0;
    for (double const threshold : {kInfinity, 0.6, 0.4, 0.2, 0.1, 0.0, -0.1, -0.2, -0.4, -0.6, -kInfinity}) {
      for (std::size_t i = 0; i < prompts.size(); ++i) {
        infer::Request request;
        request.prompt = prompts[i].prompt;
        request.max_new_tokens = 1;
        request.depth.threshold = threshold;
        auto depths = serve_all(*served, {request}).front().depths;
        // Shared keys do not depend on depths, so every token's view is fixed; otherwise the first token's is.
        if (cache != CacheKind::Shared) depths.resize(1);
        for (std::size_t t = 0; t < before[i].size(); ++t) {
          CHECK(depths[t] >= before[i][t]);
          rises += depths[t] > before[i][t] ? 1 : 0;
        }
        if (before[i].empty()) CHECK(std::all_of(depths.begin(), depths.end(), [](Row d) { return d == 1; }));
        before[i] = depths;
      }
    }
    for (auto const& depths : before) CHECK(std::all_of(depths.begin(), depths.end(), [](Row d) { return d == 4; }));
    CHECK(rises > 10);
  }
}

TEST_CASE("I8: depths are those without knobs, kept between them") {
  for (auto const router : {RouterKind::ExpertChoice, RouterKind::TokenChoice, RouterKind::AllTokens}) {
    auto setup = tiny_setup(tiny_model(router, CacheKind::Shared, SharingKind::MiddleCycle, 4));
    INFO(describe(setup.model));
    auto const served = make_served(setup);
    auto const prompts = mixed_requests(12, setup.model, 20, 7);
    for (auto const& prompt : prompts) {
      infer::Request request;
      request.prompt = prompt.prompt;
      request.max_new_tokens = 1;
      auto const free = serve_all(*served, {request}).front().depths;
      for (Index least = 1; least <= 4; ++least) {
        for (Index most = least; most <= 4; ++most) {
          request.depth = {0.0, least, most};
          auto const depths = serve_all(*served, {request}).front().depths;
          for (std::size_t t = 0; t < depths.size(); ++t) {
            Row const expected = std::clamp(free[t], static_cast<Row>(least), static_cast<Row>(most));
            // A token that is made to go on may like to go further than it wanted to.
            bool const pushed = router == RouterKind::ExpertChoice && free[t] < least;
            CHECK((depths[t] == expected || (pushed && depths[t] > expected && depths[t] <= most)));
          }
        }
      }
    }
  }
}

TEST_CASE("a score that equals the threshold goes on, the next number above it does not") {
  for (auto const cache : {CacheKind::RecursionWise, CacheKind::Shared, CacheKind::Hybrid}) {
    auto const setup = tiny_setup(tiny_model(RouterKind::ExpertChoice, cache, SharingKind::MiddleCycle));
    auto const served = make_served(setup);
    set_to(*served, "router", 0.0F);  // every score is 0
    auto requests = mixed_requests(30, setup.model, 20, 8);
    float const tiny = std::numeric_limits<float>::denorm_min();
    for (std::size_t i = 0; i < requests.size(); ++i) {
      requests[i].depth.threshold = i % 3 == 0 ? 0.0 : i % 3 == 1 ? static_cast<double>(tiny) : -0.0;
      if (i % 2 == 0) requests[i].depth.min_depth = 2;
    }
    auto const outcomes = serve_all(*served, requests);
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
      Row const expected = i % 3 == 1 ? static_cast<Row>(requests[i].depth.min_depth) : 3;
      for (Row const depth : outcomes[i].depths) CHECK(depth == expected);
    }
    check_drained(*served);
  }
}

TEST_CASE("texts end at the token asked for, at the limit or at the end of the context, and the reason says which") {
  auto const setup = tiny_setup();
  auto const served = make_served(setup);
  infer::Request request;
  request.prompt = {1, 2, 3};
  request.sampling.temperature = 0.0;
  request.max_new_tokens = 6;
  auto const limited = serve_all(*served, {request}).front();
  CHECK(limited.reason == infer::FinishReason::Length);
  CHECK(limited.text.size() == 9);
  CHECK(limited.depths.size() == 8);

  auto ended = request;
  ended.end_token = limited.text[5];
  auto const stopped = serve_all(*served, {ended}).front();
  auto const first = std::find(limited.text.begin() + 3, limited.text.end(), *ended.end_token) - limited.text.begin();
  CHECK(stopped.reason == infer::FinishReason::EndToken);
  CHECK(stopped.text == std::vector<Token>(limited.text.begin(), limited.text.begin() + first + 1));

  ended.max_new_tokens = first + 1 - 3;  // the end token is also the last that may be made
  CHECK(serve_all(*served, {ended}).front().reason == infer::FinishReason::EndToken);

  auto endless = request;
  endless.max_new_tokens = std::numeric_limits<Index>::max();
  auto const full = serve_all(*served, {endless}).front();
  CHECK(full.reason == infer::FinishReason::ContextFull);
  CHECK(full.text.size() == 48);

  for (Index const length : {46, 47}) {
    auto almost = endless;
    almost.prompt.assign(static_cast<std::size_t>(length), 5);
    auto const outcome = serve_all(*served, {almost}).front();
    CHECK(outcome.reason == infer::FinishReason::ContextFull);
    CHECK(outcome.text.size() == 48);
    CHECK(outcome.depths.size() == 47);
    almost.max_new_tokens = 48 - length;
    CHECK(serve_all(*served, {almost}).front().reason == infer::FinishReason::Length);
  }
  check_drained(*served);
}

TEST_CASE("a request whose logits are not numbers ends as such, and the others are as they would be without it") {
  for (auto const cache : {CacheKind::RecursionWise, CacheKind::Hybrid}) {
    auto setup = tiny_setup(tiny_model(RouterKind::ExpertChoice, cache, SharingKind::MiddleCycle));
    setup.model.transformer.tie_word_embeddings = false;
    auto requests = mixed_requests(80, setup.model, 20, 9);
    constexpr Token poison = 28;
    for (auto& request : requests) std::replace(request.prompt.begin(), request.prompt.end(), poison, Token{27});
    auto const clean = make_served(setup);
    auto const expected = serve_all(*clean, requests);
    for (bool const kept : {true, false}) {
      setup.options.prefix_cache = kept;
      auto const served = make_served(setup);
      auto embedding = served->weights().at("model.embed_tokens.weight");
      std::fill(embedding.end() - 8, embedding.end(), std::numeric_limits<float>::quiet_NaN());
      served->write("model.embed_tokens.weight", embedding);
      auto poisoned = requests;
      for (std::size_t i = 0; i < poisoned.size(); i += 4) poisoned[i].prompt.push_back(poison);
      auto const outcomes = serve_all(*served, poisoned);
      for (std::size_t i = 0; i < outcomes.size(); ++i) {
        auto const& text = expected[i].text;
        // Where the model makes the token itself, its next logits are not numbers.
        auto const made = std::find(text.begin(), text.end(), poison);
        if (i % 4 == 0) {
          CHECK(outcomes[i].reason == infer::FinishReason::NonFinite);
          CHECK(outcomes[i].text == poisoned[i].prompt);
          CHECK(outcomes[i].depths.size() == poisoned[i].prompt.size());
        } else if (made != text.end() && made + 1 != text.end()) {
          CHECK(outcomes[i].reason == infer::FinishReason::NonFinite);
          CHECK(outcomes[i].text == std::vector<Token>(text.begin(), made + 1));
        } else {
          CHECK(outcomes[i] == expected[i]);
        }
      }
      check_drained(*served);
      CHECK(serve_all(*served, {requests[1]}).front() == expected[1]);
    }
  }
}

TEST_CASE("an engine that has warmed up takes no more memory, whatever it serves") {
  for (auto const reports : {ReportsArrive::AtOnce, ReportsArrive::Late}) {
    auto setup = tiny_setup();
    setup.reports = reports;
    auto const served = make_served(setup);
    serve_all(*served, mixed_requests(30, setup.model, 20, 10));
    auto const warm = served->memory();
    serve_all(*served, mixed_requests(200, setup.model, 40, 11), 1);
    CHECK(served->memory() == warm);
    // Keys and values of 4 floats, 6 pages of 8 tokens for each of 5 slots and one more: 3 lists of the block, 2 unique layers.
    CHECK(served->cache_bytes() == 2 * 4 * 4 * 8 * 6 * (5 + 1) * (3 + 2));
  }
}
