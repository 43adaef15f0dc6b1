// SPDX-License-Identifier: Apache-2.0
#include "common/training_run.hpp"

#include "common/interrupt.hpp"
#include "common/model_folder.hpp"
#include "mor/core/config_text.hpp"
#include "mor/core/finite.hpp"
#include "mor/core/visible_text.hpp"
#include "mor/io/report_html.hpp"

#include <algorithm>
#include <cmath>
#include <iostream>

namespace examples {

namespace {

constexpr double longest_without_saving = 600.0;  // seconds

using mor::train::detail::fixed_text;

mor::train::LoaderOptions loader_options(TrainPlan const& plan) {
  return {plan.context, plan.batch_size, plan.seed, true};
}

mor::train::NonFiniteOptions guard_options(TrainPlan const& plan) {
  mor::train::NonFiniteOptions options;
  options.policy = plan.non_finite;
  return options;
}

/// The last part of a path, for a title.
std::string run_name(std::filesystem::path const& root) {
  auto const path = std::filesystem::absolute(root).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

/// The first tokens of a source, at most `most`.
std::vector<Token> beginning(mor::train::TokenSource const& source, Index most) {
  std::vector<Token> tokens(static_cast<std::size_t>(std::min(most, source.size())));
  source.copy(0, tokens);
  return tokens;
}

}  // namespace

TrainingRun::TrainingRun(RunFolder const& folder, TrainFlags const& flags, TrainPlan const& plan,
                         Forecast const& forecast, AnyModel& model, TrainingData const& data,
                         mor::train::TokenSplit const& split, std::optional<mor::train::Checkpoint> const& checkpoint)
    : folder_(folder),
      flags_(flags),
      plan_(plan),
      forecast_(forecast),
      model_(model),
      data_(data),
      loader_(split.training, loader_options(plan)),
      guard_(guard_options(plan)),
      log_every_(flags.log_every, 50),
      eval_every_(flags.eval_every, 10),
      sample_every_(flags.sample_every ? flags.sample_every : flags.eval_every, 10),
      save_every_(flags.save_every, 10),
      peak_flops_(plan.device.dtype == mor::DType::BF16 ? peak_flops(plan.device.gpu) : std::nullopt),
      terminal_(is_terminal()) {
  if (split.validation.size() > plan.context) {
    validation_.emplace(split.validation, plan.context, plan.batch_size, flags.eval_rows);
  }
  if (data.tokenizer) {
    sample_prompt_ = flags.sample_prompt ? data.tokenizer->encode(*flags.sample_prompt)
                                         : beginning(validation_ ? split.validation : split.training, 8);
    if (static_cast<Index>(sample_prompt_.size()) >= model.config().transformer.max_position_embeddings) {
      mor::fail(mor::ErrorCode::InvalidArgument, "the prompt leaves no room for a sample", "--sample-prompt",
                "less than " + mor::text_of(model.config().transformer.max_position_embeddings) + " tokens",
                mor::text_of(sample_prompt_.size()));
    }
  }
  state_.seed = plan.seed;
  state_.sample_seed = plan.seed;
  state_.backend = model.backend_name();
  if (checkpoint) {
    auto const saved = load_checkpoint(*checkpoint, model);
    restore(saved.train);
    seconds_before_ = saved.seconds;
    saved_step_ = state_.step;
  }
}

void TrainingRun::open_files() {
  metrics_.emplace(folder_.file(metrics_file), state_.metrics_offset);
  store_.emplace(folder_.checkpoints(), flags_.keep);
  store_->discard_after(state_.step);
}

void TrainingRun::restore(mor::train::TrainState const& saved) {
  auto const demand = [&](char const* what, auto const& expected, auto const& got) {
    if (expected == got) return;
    mor::fail(mor::ErrorCode::InvalidArgument, std::string("the run was begun with another ") + what,
              folder_.root().string(), mor::text_of(expected), mor::text_of(got));
  };
  demand("seed", saved.seed, plan_.seed);
  demand("backend", saved.backend, model_.backend_name());
  state_ = saved;
  loader_.restore(saved.loader);
  guard_.restore(saved.guard);
}

bool TrainingRun::run() {
  InterruptGuard const interrupts;
  clock_.emplace(plan_, seconds_before_);
  saved_at_ = seconds_before_;
  for (Every* const every : {&log_every_, &eval_every_, &sample_every_, &save_every_}) {
    every->skip_to(clock_->progress(state_.step));
  }
  while (!clock_->finished(state_.step) && !InterruptGuard::requested()) {
    auto const result = train_step();
    log(result);
    double const progress = clock_->progress(state_.step);
    bool const eval = eval_every_.due(state_.step, progress);
    if (log_every_.due(state_.step, progress) || eval || !result.skipped.empty()) {
      show(result, true);
    } else {
      show(result, false);
    }
    if (eval) validate();
    if (sample_every_.due(state_.step, progress)) sample();
    bool const overdue = clock_->seconds() - saved_at_ > longest_without_saving && !flags_.save_every;
    if (save_every_.due(state_.step, progress) || overdue) save();
  }
  line_.clear();
  bool const finished = clock_->finished(state_.step);
  if (finished && validated_step_ != state_.step) validate();
  if (saved_step_ != state_.step) save();
  save_weights(folder_.file(weights_file), model_, flags_.official_names);
  write_report();
  return finished;
}

TrainingRun::StepResult TrainingRun::train_step() {
  auto const begin = clock_->seconds();
  StepResult result;
  auto const recursions = static_cast<std::size_t>(model_.config().recursion.num_recursions);
  result.load.assign(recursions, 0.0);
  result.active_share.assign(recursions, 0.0);
  result.learning_rate = clock_->learning_rate(state_.step);
  model_.zero_gradients();
  for (Index m = 0; m < plan_.accumulation; ++m) {
    micro_batch();
    // Asked for before the first number is read, so that a GPU goes straight from the gradients to the update.
    if (m + 1 == plan_.accumulation) model_.update(result.learning_rate);
    add_report(result);
  }
  auto const update = model_.last_update();
  result.loss = update.loss;
  result.gradient_norm = update.norms.main;
  result.skipped = guard_.judge(state_.step, update);
  if (update.applied) model_.finish_step(result.load);
  state_.optimizer_steps = update.updates;
  ++state_.step;
  state_.tokens += plan_.tokens_per_step();
  result.seconds = clock_->seconds() - begin;
  time_step(result.seconds);
  return result;
}

/// A program's first step also loads and chooses kernels: it counts until there is another one.
void TrainingRun::time_step(double seconds) {
  seconds_a_step_ = steps_timed_ < 2 ? seconds : 0.9 * seconds_a_step_ + 0.1 * seconds;
  ++steps_timed_;
}

void TrainingRun::micro_batch() {
  auto const batch = loader_.next();
  mor::TrainingProgress progress;
  progress.forward_calls = ++state_.micro_steps;
  progress.capacity_warmup_calls = plan_.capacity_warmup;
  progress.balance_warmup_calls = plan_.balance_warmup;
  progress.seed = state_.seed;
  double const a_target = 1.0 / static_cast<double>(plan_.tokens_per_step());
  model_.forward_backward({batch.inputs, batch.positions, batch.sequence_offsets}, batch.targets, progress,
                          {a_target, plan_.router_weight});
}

/// What the router did in the last micro-batch; waits for it.
void TrainingRun::add_report(StepResult& result) {
  auto const report = model_.report();
  double const a_target = 1.0 / static_cast<double>(plan_.tokens_per_step());
  double const part = 1.0 / static_cast<double>(plan_.accumulation);
  result.aux_loss += report.aux_loss * part;
  result.balance_loss += report.balance_loss * part;
  for (std::size_t r = 0; r < result.load.size(); ++r) {
    result.load[r] += report.load[r] * part;
    result.active_share[r] += static_cast<double>(report.active_rows[r]) * a_target;
  }
}

void TrainingRun::log(StepResult const& result) {
  std::vector<double> depth_share = result.active_share;
  double mean_depth = 0.0;
  for (std::size_t r = 0; r < depth_share.size(); ++r) {
    mean_depth += result.active_share[r];
    if (r + 1 < depth_share.size()) depth_share[r] -= result.active_share[r + 1];
  }
  mor::train::TrainingRow row;
  row.step = state_.step - 1;
  row.loss = result.loss;
  row.gradient_norm = result.gradient_norm;
  row.learning_rate = result.learning_rate;
  row.milliseconds = result.seconds * 1e3;
  row.tokens_per_second = static_cast<double>(plan_.tokens_per_step()) / result.seconds;
  row.tokens = state_.tokens;
  row.mean_depth = mean_depth;
  row.depth_share = depth_share;
  auto const router = model_.config().recursion.router;
  if (router == mor::RouterKind::ExpertChoice) row.aux_loss = result.aux_loss;
  if (router == mor::RouterKind::TokenChoice) row.balance_loss = result.balance_loss;
  metrics_->append(row);
}

void TrainingRun::show(StepResult const& result, bool keep_line) {
  constexpr double refresh = 0.1;  // seconds between the updates of a line on a terminal
  if (!keep_line && (!terminal_ || clock_->seconds() - shown_at_ < refresh)) return;
  shown_at_ = clock_->seconds();
  mor::train::Progress progress;
  progress.step = state_.step;
  progress.total_steps = clock_->total_steps(state_.step);
  progress.loss = result.loss;
  progress.gradient_norm = result.gradient_norm;
  progress.learning_rate = result.learning_rate;
  progress.milliseconds = seconds_a_step_ * 1e3;
  progress.tokens_per_second = static_cast<double>(plan_.tokens_per_step()) / seconds_a_step_;
  progress.seconds_left = clock_->seconds_left(state_.step, seconds_a_step_);
  for (double const share : result.active_share) progress.mean_depth += share;
  progress.num_recursions = model_.config().recursion.num_recursions;
  if (peak_flops_) {
    progress.utilization = forecast_.flops_at(progress.mean_depth) * progress.tokens_per_second / *peak_flops_;
  }
  std::string const line = mor::train::progress_line(progress);
  if (keep_line) {
    print(line);
    if (!result.skipped.empty()) print(result.skipped);
  } else {
    line_.show(line);
  }
}

void TrainingRun::print(std::string const& line) {
  line_.clear();
  std::cout << line << std::endl;
}

TextLoss TrainingRun::validation_loss(mor::RoutingMode mode) {
  TextLoss sum;
  for (Index i = 0; i < validation_->count(); ++i) {
    auto const batch = validation_->batch(i);
    add_loss(sum, model_, {batch.inputs, batch.positions, batch.sequence_offsets}, batch.targets, mode);
    if (data_.tokenizer) sum.bytes += target_bytes(*data_.tokenizer, batch.targets);
  }
  return sum;
}

void TrainingRun::validate() {
  validated_step_ = state_.step;
  if (!validation_) return;
  auto const modes = reported_modes(model_.config().recursion);
  std::string line = "validation ";
  std::vector<mor::train::ValidationRow> rows;
  for (std::size_t i = 0; i < modes.size(); ++i) {
    auto const loss = validation_loss(modes[i]);
    double const nats = loss.nats_per_token();
    line += std::string(i == 0 ? "  " : "; ") + std::string(mor::to_text(modes[i])) + " " + fixed_text(nats, 4) +
            " nats/token";
    if (loss.bytes > 0) line += " " + fixed_text(loss.bits_per_byte(), 3) + " bits/byte";
    line += " depth " + fixed_text(loss.mean_depth(), 2);
    rows.push_back({state_.step, nats, mor::to_text(modes[i])});
    bool const best = !state_.best_validation_loss || nats < *state_.best_validation_loss;
    if (i == 0 && best && mor::is_finite(nats)) {
      state_.best_validation_loss = nats;
      state_.best_validation_step = state_.step;
    }
  }
  // The report draws the last row of a step: the loss with the routing of training.
  for (auto row = rows.rbegin(); row != rows.rend(); ++row) metrics_->append(*row);
  print(line);
  write_report();
}

void TrainingRun::sample() {
  if (sample_prompt_.empty()) return;
  mor::infer::GenerationRequest request;
  request.prompt = sample_prompt_;
  request.max_new_tokens = flags_.sample_tokens;
  request.sampling.temperature = 0.8;
  request.sampling.top_k = 40;
  request.sampling.seed = state_.sample_seed;
  request.mode = generation_mode(model_.config().recursion);
  request.last_depth = false;
  std::string bytes;
  model_.generate(request, [&](mor::infer::GeneratedToken const& token) {
    bytes += token_text(*data_.tokenizer, token.token);
    return !InterruptGuard::requested();
  });
  std::string text = "  | ";
  for (char const c : mor::visible_text(bytes)) {
    text += c;
    if (c == '\n') text += "  | ";
  }
  print(text);
}

void TrainingRun::save() {
  metrics_->sync();
  state_.metrics_offset = metrics_->offset();
  state_.loader = loader_.state();
  state_.guard = guard_.state();
  auto const report = save_checkpoint(*store_, folder_, model_, {state_, clock_->seconds()});
  saved_step_ = state_.step;
  saved_at_ = clock_->seconds();
  if (!report.cleanup_warning.empty()) print("note: " + report.cleanup_warning);
}

void TrainingRun::write_report() {
  if (metrics_->offset() == 0) return;
  mor::io::write_report(folder_.file(metrics_file), folder_.file(report_file), run_name(folder_.root()));
}

}  // namespace examples
