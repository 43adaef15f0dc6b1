// SPDX-License-Identifier: Apache-2.0
#include "served/served.hpp"

#include "mor/core/config_check.hpp"
#include "mor/core/philox.hpp"

#include <algorithm>
#include <stdexcept>

namespace mor::test {

std::unique_ptr<Served> make_served(ServedSetup const& setup) {
  check(setup.model, "served");
  if (setup.reports == ReportsArrive::Late) return make_served_late(setup);
  if (setup.shipped_scheduler && setup.model.recursion.router == RouterKind::ExpertChoice)
    return make_served_shipped(setup);
  switch (setup.model.recursion.router) {
    case RouterKind::AllTokens: return make_served_all_tokens(setup);
    case RouterKind::ExpertChoice: return make_served_expert_choice(setup);
    case RouterKind::TokenChoice: return make_served_token_choice(setup);
  }
  return nullptr;
}

ModelConfig tiny_model(RouterKind router, CacheKind cache, SharingKind sharing, Index recursions) {
  ModelConfig config = tiny_config(router, cache, sharing, recursions, 1);
  config.transformer.vocab_size = 29;
  config.transformer.max_position_embeddings = 48;
  config.transformer.initializer_range = 0.5;
  return config;
}

std::vector<Servable> all_servable() {
  std::vector<Servable> all{{tiny_model(RouterKind::AllTokens, CacheKind::RecursionWise, SharingKind::None), false}};
  for (auto const cache : {CacheKind::RecursionWise, CacheKind::Shared, CacheKind::Hybrid}) {
    for (auto const router : {RouterKind::AllTokens, RouterKind::ExpertChoice, RouterKind::TokenChoice}) {
      all.push_back({tiny_model(router, cache, SharingKind::Cycle), false});
      all.push_back({tiny_model(router, cache, SharingKind::MiddleCycle), false});
    }
    for (auto const sharing : {SharingKind::Sequence, SharingKind::MiddleSequence}) {
      auto two_layers = tiny_model(RouterKind::AllTokens, cache, sharing);
      two_layers.num_hidden_layers += two_layers.recursion.num_recursions;
      all.push_back({two_layers, true});
    }
  }
  return all;
}

infer::EngineOptions tiny_options() {
  infer::EngineOptions options;
  options.slots = 5;
  options.page_size = 8;
  options.prefill_chunk = 7;
  options.prefill_rows = 16;
  return options;
}

ServedSetup tiny_setup(ModelConfig const& model) {
  ServedSetup setup;
  setup.model = model;
  setup.options = tiny_options();
  return setup;
}

void Outcomes::take(std::span<infer::Event const> events) {
  for (auto const& event : events) {
    auto const complain = [&](char const* what) {
      complaint_ += std::string(what) + " (request " + std::to_string(event.request) + ")\n";
    };
    auto const found = all_.find(event.request);
    if (found == all_.end()) {
      complain("an event of an unknown request");
      continue;
    }
    auto& outcome = found->second;
    if (outcome.finished > 0) complain("an event after the last one");
    auto const size = static_cast<Index>(outcome.text.size());
    if (event.position != size) complain("a position is left out or repeated");
    if (event.kind == infer::EventKind::Token) {
      outcome.text.push_back(event.token);
      outcome.log_probabilities.push_back(event.log_probability);
      outcome.token_depths.push_back(event.depth);
      continue;
    }
    outcome.depths.assign(event.depths.begin(), event.depths.end());
    outcome.reason = event.reason;
    outcome.cost = event.cost;
    ++outcome.finished;
    ++finished_;
  }
}

std::vector<Outcome> serve_all(Served& served, std::vector<infer::Request> const& requests, Index arrivals) {
  Outcomes outcomes;
  std::vector<infer::RequestId> ids;
  auto const submit = [&] {
    auto const& request = requests[ids.size()];
    ids.push_back(served.submit(request));
    outcomes.expect(ids.back(), request.prompt);
  };
  while (arrivals == 0 && ids.size() < requests.size()) submit();
  for (Index tick = 0; ids.size() < requests.size() || !served.idle(); ++tick) {
    if (ids.size() < requests.size() && tick % std::max<Index>(arrivals, 1) == 0) submit();
    outcomes.take(served.step());
    if (tick > 1'000'000) throw std::runtime_error("requests are never answered");
  }
  if (!outcomes.complaint().empty()) throw std::runtime_error(outcomes.complaint());
  std::vector<Outcome> results;
  for (auto const id : ids) results.push_back(outcomes.of(id));
  return results;
}

std::vector<Outcome> serve_each_alone(ServedSetup setup, std::vector<infer::Request> const& requests) {
  setup.options.slots = 1;
  setup.options.prefix_cache = false;
  auto const served = make_served(setup);
  std::vector<Outcome> outcomes;
  for (auto const& request : requests) outcomes.push_back(serve_all(*served, {request}).front());
  return outcomes;
}

std::vector<infer::Request> mixed_requests(std::size_t count, ModelConfig const& model, Index longest,
                                           std::uint64_t seed) {
  std::vector<infer::Request> requests;
  Philox const generator{stream_key(seed, 5)};
  for (std::size_t i = 0; i < count; ++i) {
    auto const dice = generator.block(2 * i), more = generator.block(2 * i + 1);
    auto const below = [](std::uint32_t bits, Index size) {
      return static_cast<Index>(bits % static_cast<std::uint32_t>(size));
    };
    infer::Request request;
    Index const length = 1 + below(dice[0], longest);
    Index const family = below(dice[1], 4);  // texts of a family begin alike
    Index const own = below(dice[2], length + 1);
    for (Index t = 0; t < length; ++t) {
      Index const salt = t < own ? 0 : static_cast<Index>(i);
      request.prompt.push_back(
          static_cast<Token>((family * 11 + t * t + 3 * t + salt * 7) % model.transformer.vocab_size));
    }
    request.max_new_tokens = 1 + below(dice[3], 20);
    request.sampling.seed = seed + i;
    request.sampling.temperature = below(more[0], 3) == 0 ? 0.0 : 0.9;
    if (below(more[1], 4) == 0) request.sampling.repetition_penalty = 1.3;
    if (below(more[2], 4) == 0) request.sampling.top_k = 5;
    if (below(more[2] / 4, 4) == 0) request.sampling.top_p = 0.8;
    if (below(more[3], 3) == 0)
      request.end_token = static_cast<Token>(below(more[3] / 3, model.transformer.vocab_size));
    requests.push_back(std::move(request));
  }
  return requests;
}

}  // namespace mor::test
