// SPDX-License-Identifier: Apache-2.0
// Requests may be cancelled at any time: each is answered once, its pages come back, and nobody else notices.
#include "served/served.hpp"
#include "support/catch.hpp"

#include <algorithm>

using namespace mor;
using namespace mor::test;

namespace {

ServedSetup setup_of(ReportsArrive reports) {
  ServedSetup setup = tiny_setup();
  setup.reports = reports;
  return setup;
}

infer::Request long_request() {
  infer::Request request;
  request.prompt.assign(20, 3);
  for (std::size_t i = 0; i < 20; ++i) request.prompt[i] = static_cast<Token>(i);
  request.max_new_tokens = 25;
  return request;
}

void check_drained(Served& served) {
  served.drop_prefixes();
  auto const now = served.statistics();
  CHECK(now.free_pages == now.total_pages);
  CHECK(now.free_end_pages == now.total_end_pages);
  CHECK(now.running + now.queued == 0);
  CHECK(now.submitted == now.finished + now.cancelled);
}

}  // namespace

TEST_CASE("a request may be cancelled before any tick of its life: in the queue, in its prompt, while it decodes") {
  for (auto const reports : {ReportsArrive::AtOnce, ReportsArrive::Late}) {
    auto setup = setup_of(reports);
    auto const company = mixed_requests(9, setup.model, 20, 1);
    auto const expected = serve_all(*make_served(setup), company);
    for (Index tick = 0; tick < 70; ++tick) {
      INFO("cancelled before tick " << tick);
      auto const served = make_served(setup);
      Outcomes outcomes;
      std::vector<infer::RequestId> ids;
      auto const submit = [&](infer::Request const& request) {
        ids.push_back(served->submit(request));
        outcomes.expect(ids.back(), request.prompt);
      };
      for (std::size_t i = 0; i < 3; ++i) submit(company[i]);
      submit(long_request());
      auto const victim = ids.back();
      for (std::size_t i = 3; i < company.size(); ++i) submit(company[i]);
      for (Index t = 0; t < tick; ++t) outcomes.take(served->step());
      bool const ran = outcomes.of(victim).finished == 0;
      REQUIRE(served->cancel(victim) == ran);
      CHECK(!served->cancel(victim));
      if (ran) CHECK(!served->idle());
      outcomes.take(served->step());
      CHECK(outcomes.of(victim).finished == 1);
      if (ran) CHECK(outcomes.of(victim).reason == infer::FinishReason::Cancelled);
      while (!served->idle()) outcomes.take(served->step());
      REQUIRE(outcomes.complaint() == "");
      CHECK(outcomes.finished() == 10);
      for (std::size_t i = 0; i < company.size(); ++i) CHECK(outcomes.of(ids[i < 3 ? i : i + 1]) == expected[i]);
      CHECK(served->statistics().cancelled == (ran ? 1 : 0));
      check_drained(*served);
    }
  }
}

TEST_CASE("a cancelled request says how far it came") {
  auto const served = make_served(setup_of(ReportsArrive::AtOnce));
  Outcomes outcomes;
  auto const request = long_request();
  auto const id = served->submit(request);
  outcomes.expect(id, request.prompt);
  while (outcomes.of(id).text.size() < 25) outcomes.take(served->step());
  auto const so_far = outcomes.of(id);
  served->cancel(id);
  outcomes.take(served->step());
  auto const& outcome = outcomes.of(id);
  CHECK(outcome.text == so_far.text);
  CHECK(outcome.depths.size() == 24);
  Index cost = 0;
  for (Row const depth : outcome.depths) cost += depth;
  CHECK(outcome.cost == cost);
}

TEST_CASE("events stay valid until the next step while requests are submitted and cancelled") {
  for (auto const reports : {ReportsArrive::AtOnce, ReportsArrive::Late}) {
    auto const setup = setup_of(reports);
    auto const served = make_served(setup);
    auto const requests = mixed_requests(200, setup.model, 20, 2);
    Outcomes outcomes;
    std::vector<infer::RequestId> ids;
    for (auto const& request : requests) {
      ids.push_back(served->submit(request));
      outcomes.expect(ids.back(), request.prompt);
    }
    std::size_t cancelled = 0;
    auto const late = long_request();
    while (!served->idle()) {
      auto const events = served->step();
      for (auto const& event : events) {
        // As a caller does that finds a stop string, or whose client has gone.
        if (event.kind == infer::EventKind::Token && event.request % 3 == 0)
          cancelled += served->cancel(event.request) ? 1U : 0U;
        if (event.kind == infer::EventKind::Finished && event.request % 50 == 0) {
          cancelled += served->cancel(ids.back()) ? 1U : 0U;
          ids.push_back(served->submit(late));
          outcomes.expect(ids.back(), late.prompt);
        }
      }
      outcomes.take(events);
    }
    CHECK(outcomes.complaint() == "");
    CHECK(outcomes.finished() == static_cast<Index>(ids.size()));
    CHECK(cancelled > 50);
    CHECK(served->statistics().cancelled == static_cast<Index>(cancelled));
    check_drained(*served);
  }
}

TEST_CASE("nobody can cancel what was never submitted or has ended") {
  auto const served = make_served(setup_of(ReportsArrive::AtOnce));
  CHECK(!served->cancel(0));
  CHECK(!served->cancel(1));
  auto const outcome = serve_all(*served, {long_request()}).front();
  CHECK(outcome.finished == 1);
  CHECK(!served->cancel(1));
  CHECK(served->step().empty());
}

TEST_CASE("an engine that is cancelled empty goes on with the next request") {
  for (auto const reports : {ReportsArrive::AtOnce, ReportsArrive::Late}) {
    auto const setup = setup_of(reports);
    auto const served = make_served(setup);
    auto const requests = mixed_requests(5, setup.model, 20, 3);
    auto const expected = serve_all(*make_served(setup), requests);
    for (Index tick = 0; tick < 12; ++tick) {
      std::vector<infer::RequestId> ids;
      for (Index i = 0; i < 4; ++i) ids.push_back(served->submit(long_request()));
      for (Index t = 0; t < tick; ++t) served->step();
      for (auto const id : ids) CHECK(served->cancel(id));
      CHECK(served->step().size() == 4);
      CHECK(serve_all(*served, requests) == expected);
    }
    check_drained(*served);
  }
}
