// SPDX-License-Identifier: Apache-2.0
/// @file
/// The command line of `train`, and what it means together with a preset.
#pragma once

#include "common/command_line.hpp"
#include "common/device_choice.hpp"
#include "mor/core/types.hpp"
#include "mor/model/recompute.hpp"
#include "mor/train/adamw.hpp"
#include "mor/train/learning_rate.hpp"
#include "mor/train/non_finite_guard.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace examples {

/// As given; nothing where the preset decides.
struct TrainFlags {
  ModelFlags model;
  std::vector<std::string> data;
  std::string out;
  std::optional<std::string> init;
  bool resume = false, overwrite = false, official_names = false, dry_run = false;
  std::optional<std::string> tokenizer;
  std::optional<mor::Index> vocab_size, steps, tokens, batch_size, batch_tokens, total_batch, warmup;
  std::optional<double> minutes, learning_rate, decay_fraction, weight_decay;
  std::optional<std::string> schedule, sample_prompt, dtype;
  std::optional<mor::Index> eval_every, sample_every, save_every, log_every;
  double clip = 1.0, validation_fraction = 0.05;
  mor::Index eval_rows = 64, sample_tokens = 60, keep = 2, capacity_warmup = 0, balance_warmup = 0;
  std::uint64_t seed = 1;
  int threads = 0;
  std::string non_finite = "skip", device = "auto", aux_accumulation = "mean", recompute = "none";
};

/// Adds every option of `train`.
void add_train_options(CLI::App& app, TrainFlags& flags);

/// How long a run is: exactly one of the two.
struct TrainLength {
  std::optional<mor::Index> steps;
  std::optional<double> seconds;
};

/// What `flags` and the preset come to. The model's configuration is apart, because its vocabulary depends on the data.
struct TrainPlan {
  mor::Index context = 0;
  mor::Index batch_size = 0;    ///< rows of a micro-batch
  mor::Index accumulation = 1;  ///< micro-batches of a step
  TrainLength length;
  mor::train::LearningRateSchedule schedule;  ///< total_steps is set for a length in steps
  mor::train::AdamwSettings optimizer;
  mor::train::NonFinitePolicy non_finite = mor::train::NonFinitePolicy::Skip;
  mor::Recompute recompute = mor::Recompute::None;
  double router_weight = 1.0;  ///< LossWeights::router
  mor::Index capacity_warmup = 0, balance_warmup = 0;
  std::uint64_t seed = 1;
  DeviceChoice device;  ///< with the number of threads resolved

  [[nodiscard]] mor::Index tokens_per_step() const { return context * batch_size * accumulation; }
};

/// @param context  tokens of a training row
/// @throws mor::error InvalidConfig naming the option, and as choose_device does
[[nodiscard]] TrainPlan make_plan(TrainFlags const& flags, TrainingDefaults const& defaults, mor::Index context);

}  // namespace examples
