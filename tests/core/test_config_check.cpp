// SPDX-License-Identifier: Apache-2.0
#include "mor/core/config_check.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"

#include <functional>
#include <limits>
#include <string>
#include <vector>

using mor::Balancing;
using mor::CacheKind;
using mor::ErrorCode;
using mor::ModelConfig;
using mor::RouterActivation;
using mor::RouterKind;
using mor::RouterSampling;
using mor::SharingKind;
using mor::test::fails_with;

namespace {

/// Expert choice, middle cycle, three recursions of two layers.
ModelConfig expert() {
  ModelConfig config;
  config.num_hidden_layers = 8;
  config.recursion.router = RouterKind::ExpertChoice;
  config.recursion.sharing = SharingKind::MiddleCycle;
  config.recursion.num_recursions = 3;
  config.recursion.num_prelude_layers = 1;
  config.recursion.num_coda_layers = 1;
  return config;
}

ModelConfig token() {
  ModelConfig config = expert();
  config.recursion.router = RouterKind::TokenChoice;
  return config;
}

using Change = std::function<void(ModelConfig&)>;

/// True when `base` is accepted, and refused after the change with a message that names the field and holds `part`.
bool refused(ModelConfig config, Change const& change, std::string const& field, std::string const& part = "") {
  mor::check(config, "c.json");
  change(config);
  return fails_with(
      ErrorCode::InvalidConfig, [&] { mor::check(config, "c.json"); }, "c.json: field " + field, part);
}

}  // namespace

TEST_CASE("configurations that work are accepted") {
  REQUIRE_NOTHROW(mor::check(ModelConfig{}, ""));
  REQUIRE_NOTHROW(mor::check(expert(), ""));
  REQUIRE_NOTHROW(mor::check(token(), ""));
  ModelConfig config = expert();
  config.recursion.capacities = {1.0, 0.6667, 0.3333};
  config.recursion.cache = CacheKind::Hybrid;
  config.recursion.sampling = RouterSampling::AuxRouter;
  config.recursion.random_router = true;
  REQUIRE_NOTHROW(mor::check(config, ""));
  config.recursion.num_prelude_layers = 3;
  config.recursion.num_coda_layers = 2;
  REQUIRE_NOTHROW(mor::check(config, ""));  // 8 = 3 + 3 x 1 + 2
  config = ModelConfig{};
  config.num_hidden_layers = 6;
  config.recursion.num_recursions = 2;
  config.recursion.sharing = SharingKind::Sequence;
  REQUIRE_NOTHROW(mor::check(config, ""));
  config.recursion.sharing = SharingKind::MiddleSequence;
  config.recursion.num_prelude_layers = config.recursion.num_coda_layers = 1;
  config.recursion.cache = CacheKind::Shared;
  REQUIRE_NOTHROW(mor::check(config, ""));
  config.transformer.bos_token_id = config.transformer.eos_token_id = -1;  // none
  REQUIRE_NOTHROW(mor::check(config, ""));
}

TEST_CASE("sizes out of range are refused by name") {
  auto const bad = [](auto member, auto value, std::string const& field) {
    return refused(
        ModelConfig{}, [&](ModelConfig& config) { config.transformer.*member = value; }, field,
        "got " + std::to_string(value));
  };
  using T = mor::TransformerConfig;
  for (mor::Index const value : {mor::Index{0}, mor::Index{-1}, std::numeric_limits<mor::Index>::max()}) {
    REQUIRE(bad(&T::vocab_size, value, "vocab_size"));
    REQUIRE(bad(&T::hidden_size, value, "hidden_size"));
    REQUIRE(bad(&T::intermediate_size, value, "intermediate_size"));
    REQUIRE(bad(&T::num_attention_heads, value, "num_attention_heads"));
    REQUIRE(bad(&T::num_key_value_heads, value, "num_key_value_heads"));
    REQUIRE(bad(&T::head_dim, value, "head_dim"));
    REQUIRE(bad(&T::max_position_embeddings, value, "max_position_embeddings"));
  }
  REQUIRE(bad(&T::head_dim, 15, "head_dim"));
  REQUIRE(bad(&T::num_key_value_heads, 3, "num_key_value_heads"));
  REQUIRE(bad(&T::bos_token_id, 256, "bos_token_id"));
  REQUIRE(bad(&T::eos_token_id, -2, "eos_token_id"));
}

TEST_CASE("numbers out of range are refused, infinities and NaN included") {
  double const nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  using T = mor::TransformerConfig;
  using R = mor::RecursionConfig;
  for (double const value : {nan, infinity, -1.0}) {
    for (auto const& [member, field] :
         {std::pair(&T::rms_norm_eps, "rms_norm_eps"), std::pair(&T::rope_theta, "rope_theta"),
          std::pair(&T::initializer_range, "initializer_range")}) {
      auto const place = member;
      REQUIRE(refused(
          ModelConfig{}, [&](ModelConfig& config) { config.transformer.*place = value; }, field));
    }
    for (auto const& [member, field] :
         {std::pair(&R::temperature, "mor.temperature"), std::pair(&R::aux_coefficient, "mor.aux_coefficient"),
          std::pair(&R::balance_coefficient, "mor.balance_coefficient"),
          std::pair(&R::bias_update_rate, "mor.bias_update_rate"), std::pair(&R::z_coefficient, "mor.z_coefficient")}) {
      auto const place = member;
      REQUIRE(refused(
          expert(), [&](ModelConfig& config) { config.recursion.*place = value; }, field));
    }
  }
  REQUIRE(refused(
      expert(), [](ModelConfig& config) { config.recursion.temperature = 0; }, "mor.temperature", "> 0"));
  REQUIRE(refused(
      expert(), [&](ModelConfig& config) { config.recursion.alpha = nan; }, "mor.alpha", "finite"));
}

TEST_CASE("the layer count must be prelude plus whole recursions plus coda") {
  REQUIRE(refused(
      expert(), [](ModelConfig& config) { config.num_hidden_layers = 9; }, "num_hidden_layers",
      "1 + 3 x B + 1 with B >= 1, got 9"));
  REQUIRE(refused(
      expert(), [](ModelConfig& config) { config.num_hidden_layers = 2; }, "num_hidden_layers"));
  REQUIRE(refused(
      expert(), [](ModelConfig& config) { config.num_hidden_layers = 1; }, "num_hidden_layers"));
  REQUIRE(refused(
      expert(), [](ModelConfig& config) { config.num_hidden_layers = 1025; }, "num_hidden_layers"));
  REQUIRE(refused(
      expert(), [](ModelConfig& config) { config.num_hidden_layers = 0; }, "num_hidden_layers"));
  REQUIRE(refused(
      expert(), [](ModelConfig& config) { config.recursion.num_recursions = 0; }, "mor.num_recursions"));
  REQUIRE(refused(
      expert(), [](ModelConfig& config) { config.recursion.num_recursions = 65; }, "mor.num_recursions"));
  REQUIRE(refused(
      expert(), [](ModelConfig& config) { config.recursion.num_prelude_layers = -1; }, "mor.num_prelude_layers"));
}

TEST_CASE("sharing decides whether there are layers around the recursion") {
  REQUIRE(refused(
      expert(),
      [](ModelConfig& config) {
        config.recursion.num_prelude_layers = 0;
        config.num_hidden_layers = 7;
      },
      "mor.num_prelude_layers", "at least 1"));
  REQUIRE(refused(
      expert(),
      [](ModelConfig& config) {
        config.recursion.num_coda_layers = 0;
        config.num_hidden_layers = 7;
      },
      "mor.num_coda_layers", "at least 1"));
  REQUIRE(refused(
      expert(), [](ModelConfig& config) { config.recursion.sharing = SharingKind::Cycle; }, "mor.num_prelude_layers",
      "with sharing cycle (expected 0, got 1)"));
}

TEST_CASE("a model without sharing has nothing to recur, route or share") {
  REQUIRE(refused(
      ModelConfig{}, [](ModelConfig& config) { config.recursion.num_recursions = 2; }, "mor.num_recursions",
      "sharing none"));
  REQUIRE(refused(
      ModelConfig{}, [](ModelConfig& config) { config.recursion.router = RouterKind::ExpertChoice; }, "mor.router",
      "sharing none"));
  for (CacheKind const cache : {CacheKind::Shared, CacheKind::Hybrid}) {
    REQUIRE(refused(
        ModelConfig{}, [&](ModelConfig& config) { config.recursion.cache = cache; }, "mor.cache",
        "expected recursion_wise"));
  }
}

TEST_CASE("a router is refused what it cannot use") {
  for (SharingKind const sharing : {SharingKind::MiddleSequence}) {
    REQUIRE(refused(
        expert(), [&](ModelConfig& config) { config.recursion.sharing = sharing; }, "mor.sharing",
        "cycle or middle_cycle"));
    REQUIRE(refused(
        token(), [&](ModelConfig& config) { config.recursion.sharing = sharing; }, "mor.sharing"));
  }
  auto const activation = [](RouterActivation value) {
    return [value](ModelConfig& config) { config.recursion.router_activation = value; };
  };
  REQUIRE(refused(expert(), activation(RouterActivation::Softmax), "mor.router_activation", "sigmoid, tanh or none"));
  REQUIRE(refused(token(), activation(RouterActivation::Tanh), "mor.router_activation", "softmax or sigmoid"));
  REQUIRE(refused(token(), activation(RouterActivation::None), "mor.router_activation", "got none"));
  REQUIRE(refused(
      token(), [](ModelConfig& config) { config.recursion.sampling = RouterSampling::AuxRouter; }, "mor.sampling"));
  REQUIRE(refused(
      expert(), [](ModelConfig& config) { config.recursion.balancing = Balancing::LossFree; }, "mor.balancing"));
  REQUIRE(refused(
      expert(), [](ModelConfig& config) { config.recursion.paper_eq2 = true; }, "mor.paper_eq2"));
  REQUIRE(refused(
      ModelConfig{}, [](ModelConfig& config) { config.recursion.random_router = true; }, "mor.random_router"));
}

TEST_CASE("capacities are one a recursion, in (0, 1], and never grow") {
  auto const bad = [](std::vector<double> capacities, std::string const& field, std::string const& part) {
    return refused(
        expert(), [&](ModelConfig& config) { config.recursion.capacities = capacities; }, field, part);
  };
  REQUIRE(bad({1.0, 0.5}, "mor.capacities", "3, one a recursion, got 2"));
  REQUIRE(bad({1.0, 0.5, 0.0}, "mor.capacities[2]", "(0, 1]"));
  REQUIRE(bad({1.5, 0.5, 0.1}, "mor.capacities[0]", "got 1.5"));
  REQUIRE(bad({1.0, 0.3, 0.4}, "mor.capacities[2]", "at most 0.3, got 0.4"));
  REQUIRE(bad({1.0, std::numeric_limits<double>::quiet_NaN(), 0.1}, "mor.capacities[1]", "(0, 1]"));
}

TEST_CASE("a cache that later recursions read must hold every token") {
  for (CacheKind const cache : {CacheKind::Shared, CacheKind::Hybrid}) {
    ModelConfig config = expert();
    config.recursion.capacities = {0.9, 0.5, 0.1};
    REQUIRE(refused(
        config, [&](ModelConfig& changed) { changed.recursion.cache = cache; }, "mor.capacities[0]",
        "expected 1, got 0.9"));
  }
}
