// SPDX-License-Identifier: Apache-2.0
// What an engine refuses, at once and in words: options, models, requests.
#include "served/served.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"

#include <cmath>
#include <functional>
#include <limits>

using namespace mor;
using namespace mor::test;

namespace {

/// Refused with this code and these words, once `change` has spoilt a good setup.
void check_options(std::function<void(ServedSetup&)> const& change, ErrorCode code, std::string const& words) {
  INFO(words);
  auto setup = tiny_setup();
  change(setup);
  CHECK(fails_with(
      code, [&] { make_served(setup); }, words));
}

void check_request(Served& served, std::function<void(infer::Request&)> const& change, ErrorCode code,
                   std::string const& words) {
  INFO(words);
  infer::Request request;
  request.prompt = {1, 2, 3};
  change(request);
  CHECK(fails_with(
      code, [&] { served.submit(request); }, words));
}

}  // namespace

TEST_CASE("options that cannot work are refused with the name of the option") {
  using E = infer::EngineOptions;
  std::vector<std::pair<Index E::*, char const*>> const counts{{&E::slots, "slots"},
                                                               {&E::page_size, "page_size"},
                                                               {&E::prefill_chunk, "prefill_chunk"},
                                                               {&E::prefill_rows, "prefill_rows"},
                                                               {&E::queue, "queue"},
                                                               {&E::ticks_in_flight, "ticks_in_flight"}};
  for (auto const& [field, name] : counts) {
    for (Index const value : {Index{0}, Index{-1}, (Index{1} << 20) + 1, std::numeric_limits<Index>::max()}) {
      check_options([&, f = field](ServedSetup& s) { s.options.*f = value; }, ErrorCode::InvalidArgument,
                    std::string("EngineOptions, ") + name);
    }
  }
  auto const invalid = ErrorCode::InvalidArgument;
  check_options([](ServedSetup& s) { s.options.context = 1; }, invalid, "context");
  check_options([](ServedSetup& s) { s.options.context = 49; }, invalid, "context");
  check_options([](ServedSetup& s) { s.options.context = -1; }, invalid, "negative");
  check_options([](ServedSetup& s) { s.options.cache_bytes = -1; }, invalid, "negative");
  check_options([](ServedSetup& s) { s.options.admission_margin = std::nan(""); }, invalid, "admission_margin");
  check_options([](ServedSetup& s) { s.options.admission_margin = std::numeric_limits<double>::infinity(); }, invalid, "admission_margin");
  check_options([](ServedSetup& s) { s.options.mode = RoutingMode::TopK; }, invalid, "not causal");
  check_options([](ServedSetup& s) { s.options.cache_bytes = 100; }, ErrorCode::OutOfMemory, "cache_bytes");
}

TEST_CASE("an engine that would be too large for its tables is refused before memory is taken") {
  auto const invalid = ErrorCode::InvalidArgument;
  check_options([](ServedSetup& s) { s.options.slots = 1 << 18; }, invalid, "slots + prefill_rows");
  check_options([](ServedSetup& s) { s.options.prefill_rows = 1 << 19; }, invalid, "slots + prefill_rows");
  check_options([](ServedSetup& s) { s.model.transformer.max_position_embeddings = (1 << 24) + 1; }, invalid,
                "EngineOptions, context");
  check_options(
      [](ServedSetup& s) {
        s.model.transformer.max_position_embeddings = 1 << 20;
        s.options.slots = 4096;
      },
      invalid, "words for slots, context and page_size");
  check_options([](ServedSetup& s) { s.options.cache_bytes = Index{1} << 50; }, invalid, "tokens of key storage");
}

TEST_CASE("models that cannot be served are refused with the reason") {
  auto const invalid = ErrorCode::InvalidArgument;
  check_options([](ServedSetup& s) { s.model.recursion.random_router = true; }, invalid, "random router");
  check_options([](ServedSetup& s) { s.options.mode = RoutingMode::AuxRouter; }, invalid, "no auxiliary router");
  for (auto const sharing : {SharingKind::Sequence, SharingKind::MiddleSequence}) {
    auto setup = tiny_setup(tiny_model(RouterKind::AllTokens, CacheKind::RecursionWise, sharing));
    setup.model.num_hidden_layers += 3;  // two layers a block: AAABBB
    setup.shipped_scheduler = true;
    CHECK(fails_with(
        ErrorCode::InvalidConfig, [&] { make_served(setup); }, "cannot share a launch", "FullDepthScheduler"));
  }
}

TEST_CASE("requests that can never be served are refused with the name of the field") {
  auto const served = make_served(tiny_setup());
  auto const invalid = ErrorCode::InvalidArgument;
  using R = infer::Request;
  double const nan = std::nan("");
  check_request(
      *served, [](R& r) { r.prompt.clear(); }, invalid, "prompt is empty");
  check_request(
      *served, [](R& r) { r.prompt.assign(48, 1); }, invalid, "at most 47 tokens");
  check_request(
      *served, [](R& r) { r.prompt[1] = 29; }, invalid, "0 .. 28");
  check_request(
      *served, [](R& r) { r.prompt[1] = -1; }, invalid, "0 .. 28");
  check_request(
      *served, [](R& r) { r.max_new_tokens = 0; }, invalid, "max_new_tokens");
  check_request(
      *served, [](R& r) { r.max_new_tokens = std::numeric_limits<Index>::min(); }, invalid, "max_new_tokens");
  check_request(
      *served, [](R& r) { r.end_token = 29; }, invalid, "end_token");
  check_request(
      *served, [](R& r) { r.end_token = -1; }, invalid, "0 .. 28");
  check_request(
      *served, [&](R& r) { r.depth.threshold = nan; }, invalid, "threshold");
  check_request(
      *served, [](R& r) { r.depth.min_depth = 0; }, invalid, "min_depth");
  check_request(
      *served, [](R& r) { r.depth.min_depth = 4; }, invalid, "1 .. 3");
  check_request(
      *served,
      [](R& r) {
        r.depth = {0.0, 2, 1};
      },
      invalid, "max_depth");
  check_request(
      *served, [](R& r) { r.depth.max_depth = 4; }, invalid, "0, or min_depth .. 3");
  check_request(
      *served, [](R& r) { r.sampling.temperature = -1.0; }, invalid, "temperature");
  check_request(
      *served, [&](R& r) { r.sampling.top_p = nan; }, invalid, "top_p");
  check_request(
      *served, [](R& r) { r.sampling.top_k = -1; }, invalid, "top_k");
  CHECK(served->idle());
  CHECK(served->statistics().submitted == 0);
}

TEST_CASE("a text that would not fit the key storage even alone is refused; the next smaller one is served") {
  auto setup = tiny_setup();
  // 8 bytes x 4 x 8 tokens a page: 15 pages of the block, and the share of the two unique layers.
  setup.options.cache_bytes = 8300;
  auto const served = make_served(setup);
  auto const pages = served->statistics().total_pages;
  REQUIRE(pages == 15);
  check_request(
      *served, [](infer::Request& r) { r.max_new_tokens = 38; }, ErrorCode::OutOfMemory, "18 pages");
  infer::Request request;
  request.prompt = {1, 2, 3};
  request.max_new_tokens = 37;
  CHECK(serve_all(*served, {request, request, request}).back().text.size() == 40);
}

TEST_CASE("a full queue refuses a request, and takes one again when there is room") {
  auto setup = tiny_setup();
  setup.options.queue = 3;
  auto const served = make_served(setup);
  infer::Request request;
  request.prompt = {1, 2, 3};
  request.max_new_tokens = 2;
  for (int i = 0; i < 3; ++i) served->submit(request);
  check_request(
      *served, [](infer::Request&) {}, ErrorCode::OutOfMemory, "queue is full");
  served->step();
  served->submit(request);
  while (!served->idle()) served->step();
  CHECK(served->statistics().finished == 4);
}
