// SPDX-License-Identifier: Apache-2.0
/// @file
/// Refuses model configurations that cannot work, field by field, before any memory is taken for them.
#pragma once

#include "mor/core/config.hpp"
#include "mor/core/config_text.hpp"
#include "mor/core/error.hpp"
#include "mor/core/types.hpp"

#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <utility>

namespace mor {

/// @name Upper bounds of a configuration; they keep every product of sizes far inside 64 bits
/// @{
inline constexpr Index max_layers = 1024;
inline constexpr Index max_recursions = 64;
inline constexpr Index max_hidden_size = Index{1} << 20;
inline constexpr Index max_intermediate_size = Index{1} << 24;
inline constexpr Index max_heads = Index{1} << 14;
inline constexpr Index max_head_dim = Index{1} << 12;
/// @}

namespace detail {

/// Checks one configuration; every message names the field, what would do, and what was given.
class ConfigChecker {
 public:
  ConfigChecker(ModelConfig const& config, std::string const& where) : config_(config), where_(where) {}

  void run() const {
    check_sizes();
    check_numbers();
    check_layers();
    check_sharing();
    check_router();
    check_router_numbers();
    check_capacities();
    check_cache();
  }

 private:
  [[noreturn]] void refuse(std::string const& field, std::string what, std::string expected, std::string got) const {
    std::string const place = "field " + field;
    fail(ErrorCode::InvalidConfig, std::move(what), where_.empty() ? place : where_ + ": " + place, std::move(expected),
         std::move(got));
  }

  void demand_range(std::string const& field, Index value, Index least, Index most) const {
    if (value >= least && value <= most) return;
    refuse(field, "out of range", "an integer in [" + std::to_string(least) + ", " + std::to_string(most) + "]",
           std::to_string(value));
  }

  void demand(bool holds, std::string const& field, std::string expected, double got) const {
    if (!holds) refuse(field, "out of range", std::move(expected), text_of(got));
  }

  void check_sizes() const {
    TransformerConfig const& t = config_.transformer;
    constexpr Index most = std::numeric_limits<Token>::max();
    demand_range("vocab_size", t.vocab_size, 1, most);
    demand_range("hidden_size", t.hidden_size, 1, max_hidden_size);
    demand_range("intermediate_size", t.intermediate_size, 1, max_intermediate_size);
    demand_range("num_attention_heads", t.num_attention_heads, 1, max_heads);
    demand_range("num_key_value_heads", t.num_key_value_heads, 1, t.num_attention_heads);
    if (t.num_attention_heads % t.num_key_value_heads != 0) {
      refuse("num_key_value_heads", "does not divide num_attention_heads",
             "a divisor of " + std::to_string(t.num_attention_heads), std::to_string(t.num_key_value_heads));
    }
    demand_range("head_dim", t.head_dim, 2, max_head_dim);
    if (t.head_dim % 2 != 0) {
      refuse("head_dim", "odd, but rotary positions turn pairs", "an even number", std::to_string(t.head_dim));
    }
    demand_range("max_position_embeddings", t.max_position_embeddings, 1, most);
    demand_range("bos_token_id", t.bos_token_id, -1, t.vocab_size - 1);
    demand_range("eos_token_id", t.eos_token_id, -1, t.vocab_size - 1);
  }

  void check_numbers() const {
    TransformerConfig const& t = config_.transformer;
    demand(t.rms_norm_eps > 0 && t.rms_norm_eps < 1, "rms_norm_eps", "a number in (0, 1)", t.rms_norm_eps);
    demand(t.rope_theta > 0 && std::isfinite(t.rope_theta), "rope_theta", "a finite number > 0", t.rope_theta);
    demand(t.initializer_range >= 0 && std::isfinite(t.initializer_range), "initializer_range", "a finite number >= 0",
           t.initializer_range);
  }

  void check_layers() const {
    RecursionConfig const& r = config_.recursion;
    demand_range("num_hidden_layers", config_.num_hidden_layers, 1, max_layers);
    demand_range("mor.num_recursions", r.num_recursions, 1, max_recursions);
    demand_range("mor.num_prelude_layers", r.num_prelude_layers, 0, max_layers);
    demand_range("mor.num_coda_layers", r.num_coda_layers, 0, max_layers);
    Index const inner = config_.num_hidden_layers - r.num_prelude_layers - r.num_coda_layers;
    if (inner < r.num_recursions || inner % r.num_recursions != 0) {
      refuse("num_hidden_layers", "does not fit the recursion",
             "prelude + recursions x block + coda = " + std::to_string(r.num_prelude_layers) + " + " +
                 std::to_string(r.num_recursions) + " x B + " + std::to_string(r.num_coda_layers) + " with B >= 1",
             std::to_string(config_.num_hidden_layers));
    }
  }

  void check_sharing() const {
    RecursionConfig const& r = config_.recursion;
    std::string const name = "with sharing " + std::string(to_text(r.sharing));
    bool const middle = r.sharing == SharingKind::MiddleCycle || r.sharing == SharingKind::MiddleSequence;
    for (auto const& [field, count] : {std::pair("mor.num_prelude_layers", r.num_prelude_layers),
                                       std::pair("mor.num_coda_layers", r.num_coda_layers)}) {
      if (middle != (count > 0)) refuse(field, "wrong " + name, middle ? "at least 1" : "0", std::to_string(count));
    }
    if (r.sharing != SharingKind::None) return;
    if (r.num_recursions != 1) refuse("mor.num_recursions", "wrong " + name, "1", std::to_string(r.num_recursions));
    if (r.router != RouterKind::AllTokens) {
      refuse("mor.router", "wrong " + name, "all_tokens", std::string(to_text(r.router)));
    }
    if (r.cache != CacheKind::RecursionWise) {
      refuse("mor.cache", "wrong " + name, "recursion_wise", std::string(to_text(r.cache)));
    }
  }

  void check_router() const {
    RecursionConfig const& r = config_.recursion;
    std::string const name = "with router " + std::string(to_text(r.router));
    bool const expert = r.router == RouterKind::ExpertChoice, token = r.router == RouterKind::TokenChoice;
    if ((expert || token) && r.sharing != SharingKind::Cycle && r.sharing != SharingKind::MiddleCycle) {
      refuse("mor.sharing", "wrong " + name, "cycle or middle_cycle", std::string(to_text(r.sharing)));
    }
    std::string const activation(to_text(r.activation()));
    if (expert && r.activation() == RouterActivation::Softmax) {
      refuse("mor.router_activation", "wrong " + name + ", whose router has one logit", "sigmoid, tanh or none",
             activation);
    }
    if (token && r.activation() != RouterActivation::Softmax && r.activation() != RouterActivation::Sigmoid) {
      refuse("mor.router_activation", "wrong " + name, "softmax or sigmoid", activation);
    }
    // What follows would have no effect; silence would let an experiment believe that it had.
    if (!expert && r.sampling == RouterSampling::AuxRouter) {
      refuse("mor.sampling", "wrong " + name, "aux_loss", "aux_router");
    }
    if (!token && r.balance() != Balancing::None) {
      refuse("mor.balancing", "wrong " + name, "none", std::string(to_text(r.balance())));
    }
    if (!token && r.paper_eq2) refuse("mor.paper_eq2", "wrong " + name, "false", "true");
    if (!token && !expert && r.random_router) refuse("mor.random_router", "wrong " + name, "false", "true");
  }

  void check_router_numbers() const {
    RecursionConfig const& r = config_.recursion;
    demand(r.temperature > 0 && std::isfinite(r.temperature), "mor.temperature", "a finite number > 0", r.temperature);
    if (r.alpha) demand(std::isfinite(*r.alpha), "mor.alpha", "a finite number", *r.alpha);
    for (auto const& [field, value] :
         {std::pair("mor.aux_coefficient", r.aux_coefficient),
          std::pair("mor.balance_coefficient", r.balance_coefficient),
          std::pair("mor.bias_update_rate", r.bias_update_rate), std::pair("mor.z_coefficient", r.z_coefficient)}) {
      demand(value >= 0 && std::isfinite(value), field, "a finite number >= 0", value);
    }
  }

  void check_capacities() const {
    RecursionConfig const& r = config_.recursion;
    if (r.capacities.empty()) return;
    if (r.capacities.size() != static_cast<std::size_t>(r.num_recursions)) {
      refuse("mor.capacities", "wrong number of entries", std::to_string(r.num_recursions) + ", one a recursion",
             std::to_string(r.capacities.size()));
    }
    double previous = 1.0;
    for (std::size_t i = 0; i < r.capacities.size(); ++i) {
      std::string const field = "mor.capacities[" + std::to_string(i) + "]";
      double const share = r.capacities[i];
      demand(share > 0 && share <= 1, field, "a number in (0, 1]", share);
      if (share > previous) refuse(field, "capacities grow", "at most " + text_of(previous), text_of(share));
      previous = share;
    }
  }

  void check_cache() const {
    RecursionConfig const& r = config_.recursion;
    if (r.cache == CacheKind::RecursionWise) return;
    std::string const name = "with cache " + std::string(to_text(r.cache));
    // Later recursions read the keys and values of recursion 1, so recursion 1 must hold every token.
    if (!r.capacities.empty() && r.capacities.front() != 1.0) {
      refuse("mor.capacities[0]", "wrong " + name, "1", text_of(r.capacities.front()));
    }
  }

  ModelConfig const& config_;
  std::string const& where_;
};

}  // namespace detail

/// Checks every field alone and against the others.
/// @param where  the file, or another source of the configuration, for the message
/// @throws mor::error InvalidConfig naming the field, what it may be and what it is
inline void check(ModelConfig const& config, std::string const& where) {
  detail::ConfigChecker(config, where).run();
}

}  // namespace mor
