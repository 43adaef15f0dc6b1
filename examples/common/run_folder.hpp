// SPDX-License-Identifier: Apache-2.0
/// @file
/// The folder of a training run, and its checkpoints: everything that makes a resumed run the same as an unbroken one.
#pragma once

#include "common/any_model.hpp"
#include "mor/train/checkpoint.hpp"
#include "mor/train/checkpoint_store.hpp"
#include "mor/train/train_state.hpp"

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace examples {

/// Names inside the folder. Beside the model's own three files: `settings.toml` (the command line, for a resume),
/// `metrics.jsonl`, `report.html`, `checkpoints/`, and `run.lock`.
class RunFolder {
 public:
  explicit RunFolder(std::filesystem::path root) : root_(std::move(root)) {}

  [[nodiscard]] std::filesystem::path const& root() const { return root_; }
  [[nodiscard]] std::filesystem::path file(char const* name) const { return root_ / name; }
  [[nodiscard]] std::filesystem::path checkpoints() const { return root_ / "checkpoints"; }

  /// @throws mor::error InvalidArgument when it holds a run and neither flag is set, or something that is not a run
  void check(bool resume, bool overwrite) const;

  /// Creates the folder; with `overwrite` without what an earlier run left in it.
  void create(bool overwrite) const;

 private:
  std::filesystem::path root_;
};

inline constexpr char settings_file[] = "settings.toml";
inline constexpr char metrics_file[] = "metrics.jsonl";
inline constexpr char report_file[] = "report.html";

/// What a checkpoint holds beside weights and moments.
struct RunState {
  mor::train::TrainState train;
  double seconds = 0.0;  ///< of training so far
};

/// Writes a checkpoint: a model folder with `optimizer.safetensors`, `state.json` and `clock.json` added. The
/// configuration and the tokenizer are copied from the run's folder.
mor::train::SaveReport save_checkpoint(mor::train::CheckpointStore& store, RunFolder const& folder,
                                       AnyModel const& model, RunState const& state);

/// The newest checkpoint, verified.
/// @throws mor::error naming the file when the newest is damaged, and what to do to go on from an older one
[[nodiscard]] std::optional<mor::train::Checkpoint> newest_checkpoint(RunFolder const& folder);

/// Puts a checkpoint's weights and moments into the model.
/// @throws mor::error when the checkpoint belongs to another model
[[nodiscard]] RunState load_checkpoint(mor::train::Checkpoint const& checkpoint, AnyModel& model);

}  // namespace examples
