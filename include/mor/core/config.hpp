// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a model is: the shape of its Transformer and how tokens recur through it, as plain data.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

namespace mor {

enum class RouterKind { AllTokens, ExpertChoice, TokenChoice };
enum class RouterNetwork { Linear, Mlp, WideMlp };
enum class RouterActivation { Sigmoid, Tanh, Softmax, None };
enum class Gating { Weighted, Additive };
enum class RouterSampling { AuxLoss, AuxRouter };
enum class Balancing { None, Loss, LossFree };
enum class CacheKind { RecursionWise, Shared, Hybrid };
enum class SharingKind { None, Cycle, MiddleCycle, Sequence, MiddleSequence };

/// How a token's further recursions are decided outside training (mor-spec section 3.6).
enum class RoutingMode {
  TopK,       ///< capacities over the whole sequence, as in training; not causal
  Threshold,  ///< router logit >= 0; causal, the default for generation
  AuxRouter,  ///< auxiliary router logit >= 0; causal
  FullDepth   ///< every token takes every recursion
};

/// The Transformer's shape, in the field names of a Hugging Face Llama `config.json`.
struct TransformerConfig {
  Index vocab_size = 256;
  Index hidden_size = 64;
  Index intermediate_size = 172;
  Index num_attention_heads = 4;
  Index num_key_value_heads = 2;
  Index head_dim = 16;
  Index max_position_embeddings = 256;
  double rms_norm_eps = 1e-5;
  double rope_theta = 10000.0;
  double initializer_range = 0.02;
  bool tie_word_embeddings = true;
  Token bos_token_id = 0;
  Token eos_token_id = 0;

  [[nodiscard]] Index query_size() const { return num_attention_heads * head_dim; }
  [[nodiscard]] Index key_value_size() const { return num_key_value_heads * head_dim; }
  bool operator==(TransformerConfig const&) const = default;
};

/// How tokens recur: the `mor` object of `config.json`. Optional members take a default that depends on the router.
struct RecursionConfig {
  RouterKind router = RouterKind::AllTokens;
  RouterNetwork router_network = RouterNetwork::Linear;
  std::optional<RouterActivation> router_activation = {};  ///< default: sigmoid (expert choice), softmax (token choice)
  std::optional<double> alpha = {};                        ///< gate scale; default 0.1, or 1 with softmax
  double temperature = 1.0;
  Gating gating = Gating::Weighted;
  std::vector<double> capacities = {};  ///< share of tokens of each recursion; empty: (Nr - r + 1) / Nr exactly
  RouterSampling sampling = RouterSampling::AuxLoss;
  double aux_coefficient = 0.001;
  std::optional<Balancing> balancing = {};  ///< default: loss (token choice), none (others)
  double balance_coefficient = 0.1;
  double bias_update_rate = 0.001;
  double z_coefficient = 0.0;
  bool random_router = false;  ///< control experiment: scores are uniform random numbers
  bool paper_eq2 = false;      ///< token choice: gate the intermediate outputs too (mor-spec 4)
  CacheKind cache = CacheKind::RecursionWise;
  SharingKind sharing = SharingKind::None;
  Index num_recursions = 1;
  Index num_prelude_layers = 0;
  Index num_coda_layers = 0;

  [[nodiscard]] RouterActivation activation() const {
    return router_activation.value_or(router == RouterKind::TokenChoice ? RouterActivation::Softmax
                                                                        : RouterActivation::Sigmoid);
  }
  [[nodiscard]] double gate_scale() const {
    return alpha.value_or(activation() == RouterActivation::Softmax ? 1.0 : 0.1);
  }
  [[nodiscard]] Balancing balance() const {
    return balancing.value_or(router == RouterKind::TokenChoice ? Balancing::Loss : Balancing::None);
  }
  bool operator==(RecursionConfig const&) const = default;
};

/// A whole model. `num_hidden_layers` counts unrolled layers: prelude + recursions x block + coda.
struct ModelConfig {
  TransformerConfig transformer = {};
  RecursionConfig recursion = {};
  Index num_hidden_layers = 4;

  /// Layers in one pass of the recursion block.
  [[nodiscard]] Index block_layers() const {
    Index const inner = num_hidden_layers - recursion.num_prelude_layers - recursion.num_coda_layers;
    return recursion.num_recursions > 0 ? inner / recursion.num_recursions : 0;
  }
  bool operator==(ModelConfig const&) const = default;
};

}  // namespace mor
