// SPDX-License-Identifier: Apache-2.0
/// @file
/// The small models that whole-model benchmarks run: 256 wide, 8 unrolled layers, vocabulary 512.
#pragma once

#include "mor/core/batch.hpp"
#include "mor/core/config.hpp"

#include <string>
#include <vector>

namespace mor::bench {

/// `recursions` 1 is a vanilla stack; else a middle cycle of about the same unrolled depth.
[[nodiscard]] inline ModelConfig small_model(Index recursions, Index context = 256) {
  ModelConfig config;
  config.transformer.vocab_size = 512;
  config.transformer.hidden_size = 256;
  config.transformer.intermediate_size = 704;
  config.transformer.num_attention_heads = 4;
  config.transformer.num_key_value_heads = 2;
  config.transformer.head_dim = 64;
  config.transformer.max_position_embeddings = context;
  config.num_hidden_layers = 8;
  if (recursions == 1) return config;
  config.recursion.sharing = SharingKind::MiddleCycle;
  config.recursion.num_recursions = recursions;
  config.recursion.num_prelude_layers = 1;
  config.recursion.num_coda_layers = 1;
  config.num_hidden_layers = 2 + recursions * ((6 + recursions - 1) / recursions);
  return config;
}

/// The shapes of SmolLM (135m, 360m, 1.7b), which published measurements use. `recursions` 1 is the vanilla stack; else a
/// middle cycle: first and last layer of their own, the block rounded up to whole layers.
[[nodiscard]] inline ModelConfig smollm(std::string const& size, Index recursions, Index context) {
  struct Shape {
    Index layers, hidden, heads, kv_heads, intermediate;
  };
  Shape const shape = size == "135m"   ? Shape{30, 576, 9, 3, 1536}
                      : size == "360m" ? Shape{32, 960, 15, 5, 2560}
                                       : Shape{24, 2048, 32, 32, 8192};
  ModelConfig config;
  config.transformer.vocab_size = 49152;
  config.transformer.hidden_size = shape.hidden;
  config.transformer.intermediate_size = shape.intermediate;
  config.transformer.num_attention_heads = shape.heads;
  config.transformer.num_key_value_heads = shape.kv_heads;
  config.transformer.head_dim = 64;
  config.transformer.max_position_embeddings = context;
  config.num_hidden_layers = shape.layers;
  if (recursions == 1) return config;
  config.recursion.sharing = SharingKind::MiddleCycle;
  config.recursion.num_recursions = recursions;
  config.recursion.num_prelude_layers = 1;
  config.recursion.num_coda_layers = 1;
  config.num_hidden_layers = 2 + recursions * ((shape.layers - 2 + recursions - 1) / recursions);
  return config;
}

/// `sequences` rows of `length` pseudo-random tokens, with next-token targets.
struct TrainingRows {
  std::vector<Token> tokens, targets;
  std::vector<Row> positions, offsets{0};
  TrainingRows(Index sequences, Index length, Index vocab_size = 509) {
    for (Index i = 0; i < sequences * length; ++i) {
      tokens.push_back(static_cast<Token>(i * 7919 % vocab_size));
      targets.push_back(static_cast<Token>((i + 1) * 7919 % vocab_size));
      positions.push_back(static_cast<Row>(i % length));
      if ((i + 1) % length == 0) offsets.push_back(static_cast<Row>(i + 1));
    }
  }
  [[nodiscard]] Batch batch() const { return {tokens, positions, offsets}; }
};

}  // namespace mor::bench
