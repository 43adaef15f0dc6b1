// SPDX-License-Identifier: Apache-2.0
// I4: what a request gets does not depend on what runs beside it, nor on how the engine orders the work. Everything is
// compared bit for bit: tokens, log-probabilities, depths.
#include "served/served.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <string>

using namespace mor;
using namespace mor::test;

namespace {

std::size_t differences(std::vector<Outcome> const& a, std::vector<Outcome> const& b) {
  std::size_t count = a.size() == b.size() ? 0 : 1;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) count += a[i] == b[i] ? 0 : 1;
  return count;
}

/// Requests with depth knobs of all kinds.
std::vector<infer::Request> knobbed(std::size_t count, ModelConfig const& model, std::uint64_t seed) {
  auto requests = mixed_requests(count, model, 20, seed);
  Index const most = model.recursion.num_recursions;
  for (std::size_t i = 0; i < count; i += 2) {
    auto& depth = requests[i].depth;
    depth.threshold = 0.1 * static_cast<double>(i / 2 % 5) - 0.2;
    if (i % 3 == 0) depth.min_depth = std::min<Index>(most, 2);
    if (i % 5 == 0) depth.max_depth = std::max<Index>(depth.min_depth, most - 1);
    if (i % 7 == 0) depth.min_depth = depth.max_depth = most;
  }
  return requests;
}

struct Variation {
  std::string name;
  std::function<void(ServedSetup&)> change;
  Index arrivals = 0;
};

std::vector<Variation> variations() {
  return {
      {"the same again", [](ServedSetup&) {}, 0},
      {"one slot", [](ServedSetup& s) { s.options.slots = 1; }, 0},
      {"two slots, arrivals every third tick", [](ServedSetup& s) { s.options.slots = 2; }, 3},
      {"more slots than rows of a launch size", [](ServedSetup& s) { s.options.slots = 29; }, 0},
      {"a request every tick", [](ServedSetup&) {}, 1},
      {"prompts token by token", [](ServedSetup& s) { s.options.prefill_chunk = 1; }, 0},
      {"prompts at once", [](ServedSetup& s) { s.options.prefill_chunk = s.options.prefill_rows = 64; }, 0},
      {"one prompt row for all", [](ServedSetup& s) { s.options.prefill_rows = 1; }, 0},
      {"padded launches", [](ServedSetup& s) { s.options.pad_rows = true; }, 0},
      {"no prefix cache", [](ServedSetup& s) { s.options.prefix_cache = false; }, 0},
      {"pages of one token", [](ServedSetup& s) { s.options.page_size = 1; }, 0},
      {"pages of five tokens", [](ServedSetup& s) { s.options.page_size = 5; }, 0},
  };
}

/// Room for so many pages of the block, a model with unique layers taken.
void limit_pages(ServedSetup& setup, Index pages) {
  auto const& t = setup.model.transformer;
  Index const layer = 2 * t.key_value_size() * setup.options.page_size * static_cast<Index>(sizeof(float));
  setup.options.cache_bytes =
      pages * layer * (1 + setup.model.recursion.num_prelude_layers + setup.model.recursion.num_coda_layers);
  setup.options.admission_margin = -4.0;
}

}  // namespace

TEST_CASE("I4: an engine gives the tokens, log-probabilities and depths of plain generation, bit for bit") {
  for (auto const& [model, lock_step] : all_servable()) {
    auto setup = tiny_setup(model);
    setup.scheduler = lock_step ? Schedulers::NoRefill : Schedulers::Tick;
    auto const requests = mixed_requests(25, model, 20, 1);
    for (Index const page_size : {1, 5, 64}) {
      INFO(describe(model) << ", pages of " << page_size << " tokens");
      setup.options.page_size = page_size;
      auto const served = make_served(setup);
      auto const outcomes = serve_all(*served, requests);
      for (std::size_t i = 0; i < requests.size(); ++i) {
        auto const expected = served->generate(requests[i]);
        REQUIRE(outcomes[i].text == expected.text);
        REQUIRE(outcomes[i].depths == expected.depths);
        REQUIRE(outcomes[i].reason == expected.reason);
        REQUIRE(outcomes[i].log_probabilities == expected.log_probabilities);
      }
    }
  }
}

TEST_CASE("I4: a thousand sampled requests get the same bits alone and in any company, in any order") {
  auto const setup = tiny_setup();
  auto requests = knobbed(1000, setup.model, 2);
  for (auto& request : requests) request.sampling.temperature = 0.9;
  auto const expected = serve_each_alone(setup, requests);
  for (auto const& variation : variations()) {
    INFO(variation.name);
    auto changed = setup;
    variation.change(changed);
    CHECK(differences(serve_all(*make_served(changed), requests, variation.arrivals), expected) == 0);
  }
  std::reverse(requests.begin(), requests.end());
  auto reversed = serve_all(*make_served(setup), requests);
  std::reverse(reversed.begin(), reversed.end());
  CHECK(differences(reversed, expected) == 0);
}

TEST_CASE("I4: every router, cache and sharing strategy gives the same bits alone and in any company") {
  for (auto const& [model, lock_step] : all_servable()) {
    auto setup = tiny_setup(model);
    setup.scheduler = lock_step ? Schedulers::NoRefill : Schedulers::Tick;
    auto const requests = knobbed(40, model, 3);
    auto const expected = serve_each_alone(setup, requests);
    for (auto const& variation : variations()) {
      INFO(describe(model) << ": " << variation.name);
      auto changed = setup;
      variation.change(changed);
      CHECK(differences(serve_all(*make_served(changed), requests, variation.arrivals), expected) == 0);
    }
  }
}

TEST_CASE("I4: requests that are pre-empted for want of pages go on as if nothing had happened") {
  for (auto const router : {RouterKind::ExpertChoice, RouterKind::TokenChoice, RouterKind::AllTokens}) {
    for (auto const cache : {CacheKind::RecursionWise, CacheKind::Shared, CacheKind::Hybrid}) {
      auto setup = tiny_setup(tiny_model(router, cache, SharingKind::MiddleCycle));
      INFO(describe(setup.model));
      auto const requests = knobbed(100, setup.model, 4);
      auto const expected = serve_each_alone(setup, requests);
      bool preempted = false;
      for (Index const pages : {20, 23, 30}) {
        for (bool const kept : {true, false}) {
          auto changed = setup;
          limit_pages(changed, pages);
          changed.options.slots = 9;
          changed.options.prefix_cache = kept;
          auto const served = make_served(changed);
          CHECK(differences(serve_all(*served, requests), expected) == 0);
          preempted = preempted || served->statistics().preempted > 0;
        }
      }
      CHECK(preempted == (cache == CacheKind::RecursionWise && router != RouterKind::AllTokens));
    }
  }
}

TEST_CASE("I4: every scheduler gives the same bits") {
  for (bool const shipped : {true, false}) {
    for (auto const cache : {CacheKind::RecursionWise, CacheKind::Hybrid}) {
      if (shipped && cache != CacheKind::RecursionWise) continue;
      auto setup = tiny_setup(tiny_model(RouterKind::ExpertChoice, cache, SharingKind::MiddleCycle));
      auto const requests = knobbed(100, setup.model, 5);
      auto const expected = serve_each_alone(setup, requests);
      for (auto const scheduler : kAllSchedulers) {
        if (scheduler == Schedulers::FullDepth) continue;  // below
        INFO("scheduler " << static_cast<int>(scheduler) << ", " << describe(setup.model));
        setup.scheduler = scheduler;
        setup.shipped_scheduler = shipped;
        for (auto const& variation : variations()) {
          INFO(variation.name);
          auto changed = setup;
          variation.change(changed);
          CHECK(differences(serve_all(*make_served(changed), requests, variation.arrivals), expected) == 0);
        }
      }
      setup.scheduler = Schedulers::FullDepth;
      auto const full = serve_each_alone(setup, requests);
      CHECK(differences(serve_all(*make_served(setup), requests), full) == 0);
      CHECK(std::all_of(full.begin(), full.end(), [&](Outcome const& o) {
        auto const& asked = requests[static_cast<std::size_t>(&o - full.data())].depth;
        Row const deepest = static_cast<Row>(asked.max_depth == 0 ? 3 : asked.max_depth);
        return std::all_of(o.depths.begin(), o.depths.end(), [deepest](Row d) { return d == deepest; });
      }));
    }
  }
}

TEST_CASE("I4: every scheduler gives the same bits where the host learns ticks later what its rule has decided") {
  auto setup = tiny_setup();
  auto const requests = knobbed(100, setup.model, 7);
  auto const expected = serve_each_alone(setup, requests);
  setup.reports = ReportsArrive::Late;
  for (auto const scheduler : kAllSchedulers) {
    if (scheduler == Schedulers::FullDepth) continue;
    setup.scheduler = scheduler;
    for (Index const few : {0, 6, 100}) {  // launches of more rows wait for the host
      setup.options.few_rows = few;
      for (auto const& variation : variations()) {
        INFO("scheduler " << static_cast<int>(scheduler) << ", " << few << " rows, " << variation.name);
        auto changed = setup;
        variation.change(changed);
        auto const served = make_served(changed);
        CHECK(differences(serve_all(*served, requests, variation.arrivals), expected) == 0);
        auto const now = served->statistics();
        if (few == 100) CHECK(now.counted_ticks < now.ticks);
        if (few == 100 && scheduler != Schedulers::NoRefill) CHECK(now.counted_ticks == 0);  // there for prompts
      }
    }
  }
}

TEST_CASE("full batches leave no text behind, also where the coda has no room for all that wait") {
  auto setup = tiny_setup();
  setup.options.slots = 8;
  setup.scheduler = Schedulers::FullBatch;
  setup.scheduled_rows = 4;
  setup.options.pad_rows = false;  // so that the coda has room for `few` rows
  infer::Request request;
  request.prompt = {1, 2};
  request.max_new_tokens = 40;
  request.sampling.temperature = 0.0;
  for (auto const reports : {ReportsArrive::AtOnce, ReportsArrive::Late}) {
    for (Index const few : {5, 100}) {
      for (Index const deepest : {1, 3}) {
        INFO("few rows " << few << ", depth " << deepest << ", late " << (reports == ReportsArrive::Late));
        setup.reports = reports;
        setup.options.few_rows = few;
        request.depth.max_depth = deepest;
        auto const served = make_served(setup);
        std::map<infer::RequestId, int> made;
        for (int i = 0; i < 8; ++i) made[served->submit(request)] = 0;
        int widest = 0;
        while (served->statistics().finished == 0) {
          for (auto const& event : served->step()) made[event.request] += event.kind == infer::EventKind::Token ? 1 : 0;
          auto const [least, most] = std::minmax_element(made.begin(), made.end(), [](auto const& a, auto const& b) { return a.second < b.second; });
          widest = std::max(widest, most->second - least->second);
        }
        CHECK(widest <= 6);
      }
    }
  }
}

TEST_CASE("where tokens take one recursion, rows are in step by themselves, and no prompt has the host wait") {
  auto setup = tiny_setup(tiny_model(RouterKind::ExpertChoice, CacheKind::RecursionWise, SharingKind::MiddleCycle, 1));
  auto const requests = mixed_requests(60, setup.model, 20, 8);
  auto const expected = serve_each_alone(setup, requests);
  setup.reports = ReportsArrive::Late;
  setup.options.few_rows = 100;
  setup.scheduler = Schedulers::NoRefill;
  auto const served = make_served(setup);
  CHECK(differences(serve_all(*served, requests), expected) == 0);
  CHECK(served->statistics().counted_ticks == 0);
}

TEST_CASE("I4: reports that arrive ticks later change nothing") {
  auto setup = tiny_setup();
  auto const requests = knobbed(150, setup.model, 6);
  auto const expected = serve_each_alone(setup, requests);
  setup.reports = ReportsArrive::Late;
  for (Index const ticks : {1, 2, 3, 5}) {
    for (auto const& variation : variations()) {
      INFO(ticks << " ticks in flight: " << variation.name);
      auto changed = setup;
      variation.change(changed);
      changed.options.ticks_in_flight = ticks;
      changed.options.few_rows = 4 * (ticks - 1);  // from none on: with and without exact counts for prompts
      CHECK(differences(serve_all(*make_served(changed), requests, variation.arrivals), expected) == 0);
    }
    auto changed = setup;
    changed.options.ticks_in_flight = ticks;
    limit_pages(changed, 20);
    auto const served = make_served(changed);
    CHECK(differences(serve_all(*served, requests), expected) == 0);
    CHECK(served->statistics().preempted > 0);
  }
}

TEST_CASE("I4: launches ahead change nothing where prompts short and long come and go among many rows") {
  auto setup = tiny_setup();
  setup.reports = ReportsArrive::Late;
  setup.options.few_rows = 2;
  for (std::uint64_t const seed : {11, 12, 13}) {
    auto requests = knobbed(150, setup.model, seed);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      if (i % 6 != 0) requests[i].prompt.resize(1);
    }
    auto const expected = serve_each_alone(setup, requests);
    for (Index const slots : {3, 8, 40}) {
      for (Index const arrivals : {0, 1, 4}) {
        INFO("seed " << seed << ", " << slots << " slots, a request every " << arrivals << " ticks");
        auto changed = setup;
        changed.options.slots = slots;
        changed.options.pad_rows = arrivals != 1;
        auto const served = make_served(changed);
        CHECK(differences(serve_all(*served, requests, arrivals), expected) == 0);
        auto const now = served->statistics();
        CHECK((now.counted_ticks > 0 && now.counted_ticks < now.ticks));
      }
    }
  }
}

TEST_CASE("I4: ticks that a launch goes on for by itself change nothing") {
  auto setup = tiny_setup();
  auto const requests = knobbed(100, setup.model, 8);
  auto const expected = serve_each_alone(setup, requests);
  setup.shipped_scheduler = true;
  for (Index const in_flight : {0, 1, 3}) {  // 0: reports arrive at once
    setup.reports = in_flight == 0 ? ReportsArrive::AtOnce : ReportsArrive::Late;
    setup.options.ticks_in_flight = std::max<Index>(in_flight, 1);
    for (Index const ticks : {2, 5, 50}) {
      INFO(ticks << " ticks a launch, " << in_flight << " launches in flight");
      setup.options.ticks_per_launch = ticks;
      for (auto const& variation : variations()) {
        INFO(variation.name);
        auto changed = setup;
        variation.change(changed);
        auto const served = make_served(changed);
        CHECK(differences(serve_all(*served, requests, variation.arrivals), expected) == 0);
        CHECK(served->statistics().launches < served->statistics().ticks);
        served->drop_prefixes();
        CHECK(served->statistics().free_pages == served->statistics().total_pages);
      }
      auto changed = setup;
      limit_pages(changed, 20);
      auto const served = make_served(changed);
      CHECK(differences(serve_all(*served, requests), expected) == 0);
      // With 50, longer than any text, all pages that a text may need are taken before it begins.
      CHECK((served->statistics().preempted > 0) == (ticks < 50));
    }
  }
}
