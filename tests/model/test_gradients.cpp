// SPDX-License-Identifier: Apache-2.0
// Promise 1: the gradient of the whole training objective equals central differences under every policy combination.
#include "support/catch.hpp"
#include "zoo/zoo.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string>

using namespace mor;
using namespace mor::test;

namespace {

struct Objective {
  OwnedBatch batch;
  std::vector<Token> targets;
  LossWeights weights;
  double z_coefficient = 0.0, aux_coefficient = 0.0, balance_coefficient = 0.0;

  /// The scalar that forward_backward differentiates; `aux_only` for the parameters of an auxiliary router, whose loss no
  /// other parameter sees.
  double operator()(ZooModel& model, bool aux_only) const {
    auto const report = model.train(batch.view(), targets, {}, weights);
    bool const has_aux_router = model.config().recursion.sampling == RouterSampling::AuxRouter;
    if (aux_only) return weights.router * report.aux_loss;
    double value = weights.language_model * report.loss_sum + weights.router * z_coefficient * report.z_loss +
                   weights.router * balance_coefficient * report.balance_loss;
    if (!has_aux_router) value += weights.router * aux_coefficient * report.aux_loss;
    return value;
  }
};

std::vector<std::vector<Row>> routing(ZooModel const& model) {
  std::vector<std::vector<Row>> sets;
  for (Index r = 0; r < model.config().recursion.num_recursions; ++r) sets.push_back(model.active_rows(r));
  return sets;
}

struct Worst {
  double error = 0.0;
  std::string place;
};

/// The largest relative error of any checked element against a 4-point stencil; nothing where a step of the stencil moved
/// a routing decision, since the derivative does not exist there.
std::optional<Worst> worst_error(ModelConfig const& config, std::uint64_t seed) {
  auto const model = make_zoo_model(config);
  model->initialize(seed);
  Objective objective;
  objective.batch = random_batch({5, 1, 7}, config.transformer.vocab_size, seed);
  objective.targets = objective.batch.targets();
  objective.weights = {0.1, 0.7};
  objective.z_coefficient = config.recursion.z_coefficient;
  objective.aux_coefficient = config.recursion.aux_coefficient;
  objective.balance_coefficient =
      config.recursion.balance() == Balancing::Loss ? config.recursion.balance_coefficient : 0.0;

  model->zero_gradients();
  (void)objective(*model, false);
  auto const frozen = routing(*model);
  std::vector<std::vector<double>> gradients;
  for (auto const& info : model->layout().all()) gradients.push_back(model->gradient(info.name));
  Worst worst;
  for (Index t = 0; t < model->layout().count(); ++t) {
    auto const& info = model->layout()[t];
    if (info.group == ParameterGroup::Frozen) continue;
    auto const original = model->read(info.name);
    for (Index const element : std::array<Index, 3>{0, info.size() / 2, info.size() - 1}) {
      auto const i = static_cast<std::size_t>(element);
      double const h = 1e-4 * std::max(1.0, std::abs(original[i]));
      bool moved_routing = false;
      auto const at = [&](double shift) {
        auto moved = original;
        moved[i] += shift;
        model->write(info.name, moved);
        double const value = objective(*model, info.group == ParameterGroup::AuxRouter);
        moved_routing = moved_routing || routing(*model) != frozen;
        return value;
      };
      double const numeric = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h);
      if (moved_routing) return std::nullopt;
      double const analytic = gradients[static_cast<std::size_t>(t)][i];
      double const error = std::abs(numeric - analytic) / std::max(std::abs(numeric), 1e-3);
      if (!(error <= worst.error)) worst = {error, info.name + "[" + std::to_string(i) + "]"};
    }
    model->write(info.name, original);
  }
  return worst;
}

void check_gradients(ModelConfig const& config) {
  for (std::uint64_t seed = 1; seed < 60; ++seed) {
    auto const worst = worst_error(config, seed);
    if (!worst) continue;
    INFO(describe(config) << ", seed " << seed << ", worst at " << worst->place);
    CHECK(worst->error < 1e-6);
    return;
  }
  FAIL("no seed keeps the routing fixed: " << describe(config));
}

}  // namespace

TEST_CASE("gradients of the whole model agree with central differences under every policy triple") {
  for (auto config : all_configs()) {
    config.recursion.aux_coefficient = 0.3;
    check_gradients(config);
  }
}

TEST_CASE("gradients agree for every router network, activation, gating and loss term") {
  auto const expert = tiny_config(RouterKind::ExpertChoice, CacheKind::RecursionWise, SharingKind::MiddleCycle);
  auto const token = tiny_config(RouterKind::TokenChoice, CacheKind::RecursionWise, SharingKind::MiddleCycle);
  std::vector<ModelConfig> configs;
  for (auto const network : {RouterNetwork::Mlp, RouterNetwork::WideMlp}) {
    for (auto const& base : {expert, token}) {
      configs.push_back(base);
      configs.back().recursion.router_network = network;
      configs.back().recursion.z_coefficient = 0.2;
      configs.back().recursion.temperature = 1.7;
    }
  }
  for (auto const activation : {RouterActivation::Tanh, RouterActivation::None}) {
    configs.push_back(expert);
    configs.back().recursion.router_activation = activation;
  }
  configs.push_back(token);
  configs.back().recursion.router_activation = RouterActivation::Sigmoid;
  configs.back().recursion.z_coefficient = 0.2;
  configs.push_back(token);
  configs.back().recursion.balancing = Balancing::LossFree;
  configs.push_back(token);
  configs.back().recursion.paper_eq2 = true;
  for (auto const& base : {expert, token}) {
    configs.push_back(base);
    configs.back().recursion.gating = Gating::Additive;
    configs.push_back(base);
    configs.back().recursion.random_router = true;
    configs.push_back(base);
    configs.back().transformer.tie_word_embeddings = false;
  }
  configs.push_back(expert);
  configs.back().recursion.sampling = RouterSampling::AuxRouter;
  configs.push_back(expert);
  configs.back().recursion.sampling = RouterSampling::AuxRouter;
  configs.back().recursion.router_network = RouterNetwork::Mlp;
  configs.push_back(expert);
  configs.back().recursion.capacities = {0.9, 0.5, 0.2};
  configs.push_back(expert);
  configs.back().recursion.num_prelude_layers = 2;
  configs.back().recursion.num_coda_layers = 3;
  configs.back().num_hidden_layers = 2 + 3 * 1 + 3;
  for (auto& config : configs) {
    config.recursion.aux_coefficient = 0.3;
    check_gradients(config);
  }
}

TEST_CASE("a token that leaves early gets exactly no gradient through the block") {
  // With one recursion that keeps one of five tokens, and the loss on a dropped token alone, the block's weights see
  // nothing: the dropped token's value does not depend on them.
  auto config = tiny_config(RouterKind::ExpertChoice, CacheKind::RecursionWise, SharingKind::Cycle, 1);
  config.recursion.capacities = {0.2};
  config.recursion.aux_coefficient = 0.0;
  auto const model = make_zoo_model(config);
  model->initialize(3);
  auto const batch = random_batch({5}, config.transformer.vocab_size, 3);
  std::vector<Token> targets(5, -1);
  model->zero_gradients();
  model->train(batch.view(), targets, {}, {1.0, 0.0});
  auto const kept = model->active_rows(0);
  REQUIRE(kept.size() == 1);
  targets[kept[0] == 2 ? 3 : 2] = 4;
  model->zero_gradients();
  model->train(batch.view(), targets, {}, {1.0, 0.0});
  for (auto const& info : model->layout().all()) {
    if (info.name.find(".block.") == std::string::npos && info.name.find("router") == std::string::npos) continue;
    for (double const value : model->gradient(info.name)) CHECK(value == 0.0);
  }
}
