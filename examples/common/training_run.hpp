// SPDX-License-Identifier: Apache-2.0
/// @file
/// The training loop: micro-batches, guard, optimizer; and beside it logging, validation, samples and checkpoints.
#pragma once

#include "common/any_model.hpp"
#include "common/forecast.hpp"
#include "common/run_folder.hpp"
#include "common/terminal.hpp"
#include "common/text_loss.hpp"
#include "common/train_options.hpp"
#include "common/training_clock.hpp"
#include "common/training_data.hpp"
#include "mor/train/data_loader.hpp"
#include "mor/train/metrics_log.hpp"
#include "mor/train/progress_line.hpp"
#include "mor/train/validation_batches.hpp"

#include <optional>
#include <string>
#include <vector>

namespace examples {

/// One run of one model. All that it is given must outlive it.
class TrainingRun {
 public:
  /// Starts at step 0, or where the checkpoint stands. Refuses what cannot be trained, and changes nothing in the
  /// folder.
  TrainingRun(RunFolder const& folder, TrainFlags const& flags, TrainPlan const& plan, Forecast const& forecast,
              AnyModel& model, TrainingData const& data, mor::train::TokenSplit const& split,
              std::optional<mor::train::Checkpoint> const& checkpoint);

  /// Opens the log and the checkpoints in the folder, which is there by now; what lies beyond this run's step goes.
  void open_files();

  /// Trains to the end or to an interrupt, and saves. Call `open_files` before. @return whether the end was reached
  bool run();

  [[nodiscard]] Index step() const { return state_.step; }

 private:
  /// What one step measured; sums over its micro-batches until `train_step` returns.
  struct StepResult {
    double loss = 0.0, aux_loss = 0.0, balance_loss = 0.0, gradient_norm = 0.0, learning_rate = 0.0, seconds = 0.0;
    std::vector<double> load, active_share;  ///< [Nr] share of tokens that chose a depth; that entered a recursion
    std::string skipped;                     ///< why the update was not applied; empty when it was
  };

  void restore(mor::train::TrainState const& saved);
  StepResult train_step();
  void micro_batch();
  void add_report(StepResult& result);
  void time_step(double seconds);
  void log(StepResult const& result);
  void show(StepResult const& result, bool keep_line);
  void validate();
  [[nodiscard]] TextLoss validation_loss(mor::RoutingMode mode);
  void sample();
  void save();
  void write_report();
  void print(std::string const& line);

  RunFolder const& folder_;
  TrainFlags const& flags_;
  TrainPlan const& plan_;
  Forecast const& forecast_;
  AnyModel& model_;
  TrainingData const& data_;
  mor::train::DataLoader loader_;
  std::optional<mor::train::ValidationBatches> validation_;
  std::vector<Token> sample_prompt_;
  mor::train::NonFiniteGuard guard_;
  std::optional<mor::train::CheckpointStore> store_;
  mor::train::TrainState state_;
  std::optional<mor::train::MetricsLog> metrics_;
  std::optional<TrainingClock> clock_;
  Every log_every_, eval_every_, sample_every_, save_every_;
  Index validated_step_ = -1, saved_step_ = -1;
  std::optional<double> peak_flops_;
  int steps_timed_ = 0;
  double seconds_a_step_ = 0.0;  ///< moving average
  double seconds_before_ = 0.0;  ///< that earlier parts of the run took
  double saved_at_ = 0.0;        ///< seconds of training
  double shown_at_ = 0.0;
  bool terminal_ = false;
  TransientLine line_;
};

}  // namespace examples
