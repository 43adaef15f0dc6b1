// SPDX-License-Identifier: Apache-2.0
/// @file
/// Named starting points: the shape of a model and how to train it. Every value can be overridden on the command line.
#pragma once

#include "mor/core/config.hpp"
#include "mor/train/learning_rate.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace examples {

/// Training settings that suit a preset's size.
struct TrainingDefaults {
  std::string tokenizer = "bpe";  ///< byte or bpe; the model's vocab_size says how large
  mor::Index batch_size = 8;      ///< rows of a micro-batch
  mor::Index total_batch = 8;     ///< rows of an optimizer step
  double learning_rate = 3e-3;
  mor::train::LearningRateSchedule::Kind schedule = mor::train::LearningRateSchedule::Kind::WarmupStableDecay;
  double decay_fraction = 0.2;
  mor::Index warmup_steps = 50;
  double weight_decay = 0.1;
  std::optional<mor::Index> steps;  ///< nothing: the command line must say how long
  std::optional<double> minutes;
};

struct Preset {
  std::string_view name;
  std::string_view summary;
  mor::ModelConfig model;
  TrainingDefaults training;
};

/// All presets, smallest first.
[[nodiscard]] std::vector<Preset> const& presets();

/// @throws mor::error InvalidConfig that lists the known names
[[nodiscard]] Preset const& find_preset(std::string_view name);

/// "tiny, quickstart, ..."
[[nodiscard]] std::string preset_names();

}  // namespace examples
