// SPDX-License-Identifier: Apache-2.0
/// @file
/// Scores a model on few-shot tasks and shows the result.
#pragma once

#include "common/any_model.hpp"
#include "mor/eval/metrics.hpp"
#include "mor/eval/prompt.hpp"
#include "mor/eval/task.hpp"
#include "mor/io/tokenizer.hpp"

#include <nlohmann/json_fwd.hpp>

#include <filesystem>
#include <iosfwd>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace examples {

/// What `evaluate --tasks` is to do.
struct TaskSettings {
  std::vector<std::string> files;
  std::optional<mor::eval::TaskKind> kind;
  std::optional<std::filesystem::path> shots_file;  ///< where solved examples come from; nothing: the task itself
  std::optional<std::filesystem::path> examples_file;
  mor::eval::PromptOptions prompt;
  std::optional<Index> limit;  ///< first examples of each task
  Index batch_size = 8;        ///< examples computed together
};

/// A task's figures under one routing mode.
struct TaskResult {
  std::string name, file;
  mor::eval::TaskKind kind = mor::eval::TaskKind::LastWord;
  mor::RoutingMode routing = mor::RoutingMode::TopK;
  Index shots = 0;
  mor::eval::TaskMetrics metrics{mor::eval::TaskKind::LastWord};
  double mean_depth = 0.0;  ///< recursions of the rows computed
};

/// Every task under every mode. Files are read, and everything that can be refused is, before anything is computed.
[[nodiscard]] std::vector<TaskResult> evaluate_tasks(AnyModel& model, mor::io::Tokenizer const& tokenizer,
                                                     TaskSettings const& settings,
                                                     std::span<mor::RoutingMode const> modes);

/// A table for people.
void print_tasks(std::ostream& out, std::span<TaskResult const> results);

[[nodiscard]] nlohmann::ordered_json json_of(std::span<TaskResult const> results, TaskSettings const& settings);

}  // namespace examples
