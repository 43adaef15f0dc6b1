// SPDX-License-Identifier: Apache-2.0
/// @file
/// Configurations and batches that the tests of traced models share.
#pragma once

#include "mor/core/batch.hpp"
#include "mor/core/config.hpp"

#include <initializer_list>
#include <vector>

namespace mor::test {

/// Sequences of these lengths with arbitrary tokens; targets are the tokens.
struct Rows {
  std::vector<Token> tokens;
  std::vector<Row> positions, offsets{0};

  Rows(std::initializer_list<Row> lengths, Index vocabulary) {
    for (Row const length : lengths) add(length, vocabulary);
  }
  void add(Row length, Index vocabulary) {
    for (Row i = 0; i < length; ++i) {
      tokens.push_back(static_cast<Token>((tokens.size() * 7 + 3) % static_cast<std::size_t>(vocabulary)));
      positions.push_back(i);
    }
    offsets.push_back(static_cast<Row>(tokens.size()));
  }
  [[nodiscard]] Batch batch() const { return {tokens, positions, offsets}; }
  [[nodiscard]] Index size() const { return static_cast<Index>(tokens.size()); }
  /// Visible query-key pairs of causal attention over whole sequences.
  [[nodiscard]] Index causal_pairs() const {
    Index pairs = 0;
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
      Index const length = offsets[s + 1] - offsets[s];
      pairs += length * (length + 1) / 2;
    }
    return pairs;
  }
};

/// A small recursive model: one prelude layer, `recursions` times two layers, one coda layer.
inline ModelConfig small_recursive(Index recursions) {
  ModelConfig config;
  config.transformer.vocab_size = 64;
  config.transformer.hidden_size = 32;
  config.transformer.intermediate_size = 48;
  config.transformer.num_attention_heads = 4;
  config.transformer.num_key_value_heads = 2;
  config.transformer.head_dim = 8;
  config.recursion.num_recursions = recursions;
  config.recursion.num_prelude_layers = 1;
  config.recursion.num_coda_layers = 1;
  config.num_hidden_layers = 2 + 2 * recursions;
  return config;
}

/// The same without recursion, of `layers` layers.
inline ModelConfig small_vanilla(Index layers) {
  ModelConfig config = small_recursive(1);
  config.recursion.num_prelude_layers = 0;
  config.recursion.num_coda_layers = 0;
  config.num_hidden_layers = layers;
  return config;
}

}  // namespace mor::test
