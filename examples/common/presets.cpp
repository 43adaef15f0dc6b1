// SPDX-License-Identifier: Apache-2.0
#include "common/presets.hpp"

#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"

namespace examples {

namespace {

/// Width of a model: hidden size, query heads, key/value heads, and MLP size; the head dimension follows.
struct Width {
  mor::Index hidden, heads, kv_heads, mlp;
};

/// Expert choice over a middle cycle of three recursions: the form of the published models.
mor::ModelConfig middle_cycle(Width width, mor::Index block_layers, mor::Index vocabulary, mor::Index context) {
  mor::ModelConfig config;
  auto& t = config.transformer;
  t.hidden_size = width.hidden;
  t.num_attention_heads = width.heads;
  t.num_key_value_heads = width.kv_heads;
  t.head_dim = width.hidden / width.heads;
  t.intermediate_size = width.mlp;
  t.vocab_size = vocabulary;
  t.max_position_embeddings = context;
  auto& r = config.recursion;
  r.router = mor::RouterKind::ExpertChoice;
  r.sharing = mor::SharingKind::MiddleCycle;
  r.num_recursions = 3;
  r.num_prelude_layers = 1;
  r.num_coda_layers = 1;
  config.num_hidden_layers = 2 + 3 * block_layers;
  return config;
}

/// The recipe of the published models: 1024 rows a step, trapezoid (mor-spec section 6).
TrainingDefaults published(mor::Index batch_size) {
  TrainingDefaults training;
  training.batch_size = batch_size;
  training.total_batch = 1024;
  training.warmup_steps = 86;
  return training;
}

std::vector<Preset> make_presets() {
  TrainingDefaults tiny;
  tiny.tokenizer = "byte";
  tiny.steps = 200;
  tiny.warmup_steps = 10;
  TrainingDefaults quickstart;
  quickstart.batch_size = 8;
  quickstart.total_batch = 8;
  quickstart.warmup_steps = 40;
  quickstart.decay_fraction = 0.4;
  quickstart.minutes = 3.0;
  TrainingDefaults small;
  small.batch_size = 8;
  small.total_batch = 32;
  small.learning_rate = 1.5e-3;
  small.warmup_steps = 100;
  return {
      {"tiny", "a test model: 64 wide, bytes, seconds", middle_cycle({64, 4, 2, 160}, 1, 257, 64), tiny},
      {"quickstart", "English words after three minutes on two cores", middle_cycle({192, 6, 3, 512}, 2, 2048, 128),
       quickstart},
      {"small", "an evening on a workstation", middle_cycle({512, 8, 4, 1408}, 3, 8192, 512), small},
      {"smollm-135m", "SmolLM-135M's width, 1 + 10 x 3 + 1 layers", middle_cycle({576, 9, 3, 1536}, 10, 49152, 2048),
       published(4)},
      {"smollm-360m", "SmolLM-360M's width, 1 + 10 x 3 + 1 layers", middle_cycle({960, 15, 5, 2560}, 10, 49152, 2048),
       published(4)},
      {"smollm-1.7b", "SmolLM-1.7B's width, 1 + 8 x 3 + 1 layers", middle_cycle({2048, 32, 32, 8192}, 8, 49152, 2048),
       published(1)},
  };
}

}  // namespace

std::vector<Preset> const& presets() {
  static std::vector<Preset> const all = make_presets();
  return all;
}

std::string preset_names() {
  std::string names;
  for (auto const& preset : presets()) names += (names.empty() ? "" : ", ") + std::string(preset.name);
  return names;
}

Preset const& find_preset(std::string_view name) {
  for (auto const& preset : presets()) {
    if (preset.name == name) return preset;
  }
  mor::fail(mor::ErrorCode::InvalidConfig, "unknown preset", "--preset", "one of " + preset_names(),
            mor::printable(name));
}

}  // namespace examples
