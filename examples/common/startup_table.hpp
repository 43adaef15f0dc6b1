// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a training program says before it starts: the model, its size, the memory it will take, the data.
#pragma once

#include "common/forecast.hpp"
#include "common/train_options.hpp"
#include "common/training_data.hpp"
#include "mor/train/token_source.hpp"

#include <string>

namespace examples {

using mor::Index;

/// How many numbers a model has.
struct ParameterCounts {
  Index unique = 0;     ///< stored and trained
  Index embedding = 0;  ///< of these, in the token embedding and an output matrix of its own
  Index unrolled = 0;   ///< as if no two layers shared their weights
};

/// @param unique  `Forecast::parameters`
[[nodiscard]] ParameterCounts count_parameters(mor::ModelConfig const& config, Index unique);

/// The model in lines of text: policies, layers, widths, parameters.
[[nodiscard]] std::string model_table(mor::ModelConfig const& config, Forecast const& forecast);

/// The run: GPU, memory, data, batch, schedule.
[[nodiscard]] std::string run_table(TrainPlan const& plan, Forecast const& forecast, TrainingData const& data,
                                    mor::train::TokenSplit const& split);

/// "1,234,567"
[[nodiscard]] std::string grouped(Index value);
/// "12.3 MB", in powers of 1000.
[[nodiscard]] std::string byte_text(Index bytes);
/// "1.98 M"
[[nodiscard]] std::string count_text(Index count);

}  // namespace examples
