// SPDX-License-Identifier: Apache-2.0
// I5: what an engine serves is what the model computes offline with the same decisions, for every router, cache and
// sharing strategy, and for every depth knob.
#include "served/plain_forward.hpp"
#include "served/served.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

using namespace mor;
using namespace mor::test;

namespace {

constexpr double kTolerance = 1e-4;  // float against double
constexpr double kClose = 2e-5;      // a decision nearer than this might fall either way

/// log softmax of a row, in double.
std::vector<double> log_probabilities(std::span<float const> logits) {
  double most = -std::numeric_limits<double>::infinity(), sum = 0.0;
  for (float const z : logits) most = std::max(most, static_cast<double>(z));
  for (float const z : logits) sum += std::exp(static_cast<double>(z) - most);
  std::vector<double> out;
  for (float const z : logits) out.push_back(static_cast<double>(z) - most - std::log(sum));
  return out;
}

/// Depths of the tokens read and log-probabilities of the tokens made; the greedy ones are the likeliest.
template <class LogProbabilities>
void check_outcome(infer::Request const& request, Outcome const& got, std::vector<Row> depths,
                   LogProbabilities const& of_token_after) {
  depths.resize(got.text.size() - 1);
  CHECK(got.depths == depths);
  Index cost = 0;
  for (Row const depth : depths) cost += depth;
  CHECK(got.cost == cost);
  REQUIRE(got.log_probabilities.size() == got.text.size() - request.prompt.size());
  for (std::size_t i = 0; i < got.log_probabilities.size(); ++i) {
    auto const position = request.prompt.size() + i;
    std::vector<double> const expected = of_token_after(position - 1);
    auto const token = static_cast<std::size_t>(got.text[position]);
    CHECK(std::abs(got.log_probabilities[i] - expected[token]) < kTolerance);
    CHECK(got.token_depths[i] == depths[position - 1]);
    if (request.sampling.temperature == 0.0 && request.sampling.repetition_penalty == 1.0) {
      CHECK(expected[token] > *std::max_element(expected.begin(), expected.end()) - kTolerance);
    }
  }
}

void check_forward(Served& served, std::vector<infer::Request> const& requests) {
  auto const outcomes = serve_all(served, requests, 1);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    auto const pass = served.forward(outcomes[i].text);
    auto const columns = static_cast<std::size_t>(pass.columns);
    check_outcome(requests[i], outcomes[i], pass.depths, [&](std::size_t row) {
      return log_probabilities({pass.logits.data() + row * columns, columns});
    });
  }
}

void check_plain(Served& served, std::vector<infer::Request> const& requests) {
  auto const outcomes = serve_all(served, requests, 1);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    auto const pass = plain_forward(served, outcomes[i].text, {requests[i].depth, served.options().mode});
    REQUIRE(pass.closest_decision > kClose);
    check_outcome(requests[i], outcomes[i], pass.depths, [&](std::size_t row) { return pass.log_probabilities[row]; });
  }
}

ServedSetup setup_of(Servable const& servable) {
  ServedSetup setup = tiny_setup(servable.model);
  setup.scheduler = servable.lock_step ? Schedulers::NoRefill : Schedulers::Tick;
  return setup;
}

std::vector<infer::DepthKnobs> knobs_of(RouterKind router) {
  if (router == RouterKind::AllTokens) return {{0.0, 1, 0}, {0.0, 1, 2}, {0.0, 3, 3}, {0.0, 1, 1}};
  if (router == RouterKind::TokenChoice)
    return {{0.0, 1, 0}, {0.0, 2, 0}, {0.0, 1, 2}, {0.0, 2, 2}, {0.0, 3, 3}, {0.0, 1, 1}};
  double const infinity = std::numeric_limits<double>::infinity();
  return {{0.0, 1, 0},      {0.3, 1, 0},       {-0.4, 1, 0}, {0.2, 2, 0},       {-0.2, 1, 2},
          {infinity, 1, 0}, {-infinity, 1, 0}, {0.0, 2, 2},  {-infinity, 1, 1}, {infinity, 3, 3}};
}

}  // namespace

TEST_CASE("I5: an engine's tokens, log-probabilities and depths are those of one causal pass over the text") {
  for (auto const& servable : all_servable()) {
    INFO(describe(servable.model));
    auto const served = make_served(setup_of(servable));
    check_forward(*served, mixed_requests(12, served->config(), 20, 1));
  }
}

TEST_CASE("I5: at full depth too, and with an auxiliary router") {
  for (auto const& servable : all_servable()) {
    INFO(describe(servable.model));
    auto setup = setup_of(servable);
    setup.scheduler = Schedulers::FullDepth;
    auto const full = make_served(setup);
    auto const requests = mixed_requests(5, full->config(), 20, 2);
    check_forward(*full, requests);
    if (setup.model.recursion.router != RouterKind::ExpertChoice) continue;
    setup.scheduler = Schedulers::Tick;
    setup.model.recursion.sampling = RouterSampling::AuxRouter;
    setup.options.mode = RoutingMode::AuxRouter;
    check_forward(*make_served(setup), requests);
    setup.options.mode = RoutingMode::Threshold;
    check_forward(*make_served(setup), requests);
  }
}

TEST_CASE("I5: with any depth knobs an engine follows the model as written down token by token") {
  for (auto const& servable : all_servable()) {
    INFO(describe(servable.model));
    auto const served = make_served(setup_of(servable));
    auto requests = mixed_requests(20, served->config(), 16, 3);
    auto const knobs = knobs_of(servable.model.recursion.router);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      requests[i].depth = knobs[i % knobs.size()];
      Index const most = served->config().recursion.num_recursions;
      requests[i].depth.min_depth = std::min(requests[i].depth.min_depth, most);
      requests[i].depth.max_depth = std::min(requests[i].depth.max_depth, most);
    }
    check_plain(*served, requests);
  }
}

TEST_CASE(
    "I5: routers of other shapes: two networks, tanh and plain gates, additive gates, equation 2, a bias, one "
    "recursion") {
  std::vector<ModelConfig> models;
  auto const add = [&](RouterKind router, auto const& change) {
    models.push_back(tiny_model(router, CacheKind::RecursionWise, SharingKind::MiddleCycle));
    change(models.back().recursion);
  };
  for (auto const router : {RouterKind::ExpertChoice, RouterKind::TokenChoice}) {
    add(router, [](RecursionConfig& r) { r.router_network = RouterNetwork::Mlp; });
    add(router, [](RecursionConfig& r) { r.gating = Gating::Additive; });
    add(router, [](RecursionConfig& r) { r.temperature = 2.0; });
    models.push_back(tiny_model(router, CacheKind::RecursionWise, SharingKind::MiddleCycle, 1));
    models.push_back(tiny_model(router, CacheKind::Hybrid, SharingKind::Cycle, 4));
  }
  add(RouterKind::ExpertChoice, [](RecursionConfig& r) { r.router_activation = RouterActivation::Tanh; });
  add(RouterKind::ExpertChoice, [](RecursionConfig& r) { r.router_activation = RouterActivation::None; });
  add(RouterKind::TokenChoice, [](RecursionConfig& r) { r.router_activation = RouterActivation::Sigmoid; });
  add(RouterKind::TokenChoice, [](RecursionConfig& r) { r.paper_eq2 = true; });
  add(RouterKind::TokenChoice, [](RecursionConfig& r) { r.balancing = Balancing::LossFree; });
  for (std::size_t i = 0; i < models.size(); ++i) {
    INFO("model " << i << ", " << describe(models[i]));
    ServedSetup setup;
    setup.model = models[i];
    setup.options = tiny_options();
    auto const served = make_served(setup);
    if (models[i].recursion.balance() == Balancing::LossFree)
      served->write("model.layers.1.router_bias", {-0.3F, 0.2F, 0.1F});
    check_forward(*served, mixed_requests(8, served->config(), 20, 4));
  }
}
