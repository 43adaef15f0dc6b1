// SPDX-License-Identifier: Apache-2.0
/// @file
/// Configurations of models so small that tests can afford every combination of policies.
#pragma once

#include "mor/core/config.hpp"
#include "mor/core/config_text.hpp"

#include <string>

namespace mor::test {

/// D 8, 2 heads of 4, 1 key/value head, F 12, V 13, `block_layers` layers a block; with a middle strategy one layer before the
/// recursions and one after, without sharing 3 layers.
[[nodiscard]] inline ModelConfig tiny_config(RouterKind router, CacheKind cache, SharingKind sharing, Index recursions = 3,
                                             Index block_layers = 2) {
  ModelConfig config;
  auto& t = config.transformer;
  t.vocab_size = 13;
  t.hidden_size = 8;
  t.intermediate_size = 12;
  t.num_attention_heads = 2;
  t.num_key_value_heads = 1;
  t.head_dim = 4;
  t.initializer_range = 0.3;
  auto& r = config.recursion;
  r.router = router;
  r.cache = cache;
  r.sharing = sharing;
  r.num_recursions = sharing == SharingKind::None ? 1 : recursions;
  bool const middle = sharing == SharingKind::MiddleCycle || sharing == SharingKind::MiddleSequence;
  r.num_prelude_layers = r.num_coda_layers = middle ? 1 : 0;
  config.num_hidden_layers =
      sharing == SharingKind::None ? 3 : block_layers * r.num_recursions + (middle ? 2 : 0);
  return config;
}

/// "expert_choice, shared, middle_cycle".
[[nodiscard]] inline std::string describe(ModelConfig const& config) {
  auto const& r = config.recursion;
  return std::string(to_text(r.router)) + ", " + std::string(to_text(r.cache)) + ", " + std::string(to_text(r.sharing));
}

}  // namespace mor::test
