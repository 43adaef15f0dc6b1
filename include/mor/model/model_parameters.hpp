// SPDX-License-Identifier: Apache-2.0
/// @file
/// Declares every tensor of a model, under its checkpoint name, in the order of the flat buffer.
#pragma once

#include "mor/model/decoder_layer.hpp"
#include "mor/model/tensor_names.hpp"

#include <vector>

namespace mor {

/// Indices of a model's tensors in its `ParameterLayout`.
struct ModelParameters {
  Index embedding = 0;                  ///< model.embed_tokens.weight [V, D]
  Index final_norm = 0;                 ///< model.norm.weight [D]
  Index head = 0;                       ///< lm_head.weight [V, D]; the embedding where they are tied
  std::vector<LayerParameters> layers;  ///< by parameter set

  /// Declares all but the router's tensors. A set that several layers use is named after the first of them.
  static ModelParameters declare(ModelConfig const& config, LayerSchedule const& schedule, LayerNaming naming,
                                 ParameterLayout& layout) {
    auto const& t = config.transformer;
    ModelParameters parameters;
    parameters.embedding = layout.add_matrix("model.embed_tokens.weight", t.vocab_size, t.hidden_size);
    auto const prefixes = layer_prefixes(naming, schedule);
    auto const sets = schedule.unrolled();
    for (std::size_t l = 0; l < sets.size(); ++l) {
      if (sets[l] == static_cast<Index>(parameters.layers.size())) {
        parameters.layers.push_back(LayerParameters::declare(t, prefixes[l], layout));
      }
    }
    parameters.final_norm = layout.add_norm("model.norm.weight", t.hidden_size);
    parameters.head = t.tie_word_embeddings ? parameters.embedding
                                            : layout.add_matrix("lm_head.weight", t.vocab_size, t.hidden_size);
    return parameters;
  }
};

}  // namespace mor
