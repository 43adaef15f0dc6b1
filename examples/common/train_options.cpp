// SPDX-License-Identifier: Apache-2.0
#include "common/train_options.hpp"

#include "mor/backend/host/parallel.hpp"
#include "mor/core/error.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <utility>

namespace examples {

namespace {

using mor::Index;

[[noreturn]] void refuse(char const* option, std::string what, std::string expected, std::string got) {
  mor::fail(mor::ErrorCode::InvalidConfig, std::move(what), option, std::move(expected), std::move(got));
}

void at_least(char const* option, Index value, Index least) {
  if (value < least) refuse(option, "out of range", "at least " + mor::text_of(least), mor::text_of(value));
}

void at_most(char const* option, Index value, Index most) {
  if (value > most) refuse(option, "out of range", "at most " + mor::text_of(most), mor::text_of(value));
}

// Far beyond what anyone trains, and far enough below 2^63 that sums and products stay in range.
constexpr Index most_tokens_a_step = Index{1} << 40;
constexpr Index most_tokens_a_run = Index{1} << 60;
constexpr double most_minutes = 5e7;  // a century
constexpr Index most_rows = std::numeric_limits<mor::Row>::max();

/// Makes a path absolute, so that a run can be resumed from another folder. `words` are no paths.
CLI::Validator whole_path(std::vector<std::string> words = {}) {
  auto const change = [words = std::move(words)](std::string& path) {
    if (path.empty()) return std::string("the name is empty");
    bool const word = std::find(words.begin(), words.end(), path) != words.end();
    if (!word) path = std::filesystem::absolute(path).string();
    return std::string();
  };
  return CLI::Validator(change, "");
}

void add_data_options(CLI::App& app, TrainFlags& flags) {
  std::string const group = "Data and files";
  app.add_option("--data", flags.data, "text files, token shards, or a folder of shards")
      ->required()
      ->transform(whole_path())
      ->group(group);
  app.add_option("--out", flags.out, "folder of the run and its model")->required()->configurable(false)->group(group);
  app.add_option("--tokenizer", flags.tokenizer, "byte | bpe (trained on the text) | a tokenizer.json")
      ->transform(whole_path({"byte", "bpe"}))
      ->group(group);
  app.add_option("--vocab-size", flags.vocab_size, "tokens of a BPE to be trained")->group(group);
  app.add_option("--init", flags.init, "start from the weights of this model folder")
      ->transform(whole_path())
      ->group(group);
  app.add_option("--validation-fraction", flags.validation_fraction,
                 "share of the data at its end that is held out; shards named val_* are held out instead")
      ->capture_default_str()
      ->group(group);
  app.add_flag("--resume", flags.resume, "go on from the newest checkpoint in --out; settings not given are as before")
      ->configurable(false)
      ->group(group);
  app.add_flag("--overwrite", flags.overwrite, "delete the run in --out first")->configurable(false)->group(group);
  app.add_flag("--dry-run", flags.dry_run, "say what the run would be and take, and end")
      ->configurable(false)
      ->group(group);
  app.add_flag("--official-names", flags.official_names, "write every copy of a shared tensor")->group(group);
}

void add_optimizer_options(CLI::App& app, TrainFlags& flags) {
  std::string const group = "Training";
  auto const add = [&](char const* name, auto& value, char const* help) {
    return app.add_option(name, value, help)->group(group);
  };
  add("--steps", flags.steps, "optimizer steps; the same steps give the same bits");
  add("--tokens", flags.tokens, "the same, in tokens");
  add("--minutes", flags.minutes, "train this long; the learning rate follows the clock");
  add("--batch-size", flags.batch_size, "rows of a micro-batch");
  add("--batch-tokens", flags.batch_tokens, "the same, in tokens");
  add("--total-batch", flags.total_batch, "rows of a step, in as many micro-batches as it takes");
  add("--lr", flags.learning_rate, "peak learning rate");
  add("--schedule", flags.schedule, "trapezoid | cosine | linear | constant");
  add("--warmup", flags.warmup, "steps of the warm-up");
  add("--decay-fraction", flags.decay_fraction, "share of the run in which a trapezoid decays");
  add("--weight-decay", flags.weight_decay, "of matrices");
  add("--clip", flags.clip, "largest norm of the gradient, 0 for any")->capture_default_str();
  add("--seed", flags.seed, "of weights, order of the data, and samples")->capture_default_str();
  add("--aux-accumulation", flags.aux_accumulation,
      "mean: router losses are averaged over a step's micro-batches; official: summed, as the published code does")
      ->capture_default_str();
  add("--capacity-warmup", flags.capacity_warmup, "micro-batches in which capacities fall from 1")
      ->capture_default_str();
  add("--balance-warmup", flags.balance_warmup, "token choice: micro-batches at full depth")->capture_default_str();
  add("--non-finite", flags.non_finite, "a step with NaN or infinity: halt | skip")->capture_default_str();
  add("--device", flags.device, "auto (a GPU where there is one) | cpu | cuda")->capture_default_str();
  add("--dtype", flags.dtype, "of weights and activations: float32 | bfloat16 (default: bfloat16 on a GPU)");
  add("--recompute", flags.recompute, "activations computed again in the backward pass, for memory: none | pointwise | mlp")
      ->capture_default_str();
  add("--threads", flags.threads, "of the processor; 0: all")->capture_default_str();
}

void add_event_options(CLI::App& app, TrainFlags& flags) {
  std::string const group = "Progress";
  auto const add = [&](char const* name, auto& value, char const* help) {
    return app.add_option(name, value, help)->group(group);
  };
  add("--log-every", flags.log_every, "steps (default: 50 lines a run)");
  add("--eval-every", flags.eval_every, "steps (default: ten times a run)");
  add("--eval-rows", flags.eval_rows, "rows of a validation")->capture_default_str();
  add("--sample-every", flags.sample_every, "steps, 0 for never (default: with each validation)");
  add("--sample-prompt", flags.sample_prompt, "beginning of the samples (default: of the held-out text)");
  add("--sample-tokens", flags.sample_tokens, "length of the samples")->capture_default_str();
  add("--save-every", flags.save_every, "steps (default: ten times a run, and every ten minutes)");
  add("--keep", flags.keep, "checkpoints to keep")->capture_default_str();
}

TrainLength resolve_length(TrainFlags const& flags, TrainingDefaults const& defaults, Index tokens_per_step) {
  int const given = int{flags.steps.has_value()} + int{flags.minutes.has_value()} + int{flags.tokens.has_value()};
  if (given > 1) refuse("--steps, --tokens, --minutes", "more than one length", "one of them", mor::text_of(given));
  if (flags.steps) {
    at_least("--steps", *flags.steps, 1);
    at_most("--steps", *flags.steps, most_tokens_a_run / tokens_per_step);
    return {flags.steps, {}};
  }
  if (flags.tokens) {
    at_least("--tokens", *flags.tokens, 1);
    at_most("--tokens", *flags.tokens, most_tokens_a_run);
    return {(*flags.tokens + tokens_per_step - 1) / tokens_per_step, {}};
  }
  if (!flags.minutes && defaults.steps) return {defaults.steps, {}};
  auto const minutes = flags.minutes ? flags.minutes : defaults.minutes;
  if (!minutes) refuse("--steps", "this preset has no length of its own", "--steps, --tokens or --minutes", "none");
  if (!(*minutes > 0.0 && *minutes <= most_minutes)) {
    refuse("--minutes", "out of range", "a positive number, at most " + mor::text_of(most_minutes),
           mor::text_of(*minutes));
  }
  return {{}, *minutes * 60.0};
}

void resolve_batch(TrainFlags const& flags, TrainingDefaults const& defaults, TrainPlan& plan) {
  if (flags.batch_size && flags.batch_tokens) {
    refuse("--batch-size, --batch-tokens", "both are given", "one of them", "both");
  }
  plan.batch_size = flags.batch_size.value_or(defaults.batch_size);
  if (flags.batch_tokens) plan.batch_size = std::max<Index>(1, *flags.batch_tokens / plan.context);
  at_least("--batch-size", plan.batch_size, 1);
  at_most("--batch-size", plan.batch_size, most_rows / plan.context);
  // A micro-batch that the command line made larger than the preset's step is the step.
  bool const given = flags.total_batch.has_value();
  Index const total = flags.total_batch.value_or(std::max(defaults.total_batch, plan.batch_size));
  at_least("--total-batch", total, 1);
  at_most("--total-batch", total, most_tokens_a_step / plan.context);
  if (total % plan.batch_size != 0 && given) {
    refuse("--total-batch", "not a whole number of micro-batches", "a multiple of " + mor::text_of(plan.batch_size),
           mor::text_of(total));
  }
  plan.accumulation = std::max<Index>(1, total / plan.batch_size);
}

double router_weight(std::string const& name, Index accumulation) {
  if (name == "official") return 1.0;
  if (name == "mean") return 1.0 / static_cast<double>(accumulation);
  refuse("--aux-accumulation", "unknown value", "mean or official", name);
}

}  // namespace

void add_train_options(CLI::App& app, TrainFlags& flags) {
  add_data_options(app, flags);
  add_optimizer_options(app, flags);
  add_event_options(app, flags);
  add_model_options(app, flags.model, "quickstart");
}

TrainPlan make_plan(TrainFlags const& flags, TrainingDefaults const& defaults, Index context) {
  at_least("--context", context, 1);
  at_most("--context", context, most_rows);
  at_least("--threads", flags.threads, 0);
  at_least("--keep", flags.keep, 1);
  at_least("--eval-rows", flags.eval_rows, 1);
  at_least("--sample-tokens", flags.sample_tokens, 1);
  at_least("--capacity-warmup", flags.capacity_warmup, 0);
  at_least("--balance-warmup", flags.balance_warmup, 0);
  for (auto const& [option, value] :
       {std::pair("--log-every", flags.log_every), std::pair("--eval-every", flags.eval_every),
        std::pair("--sample-every", flags.sample_every), std::pair("--save-every", flags.save_every)}) {
    if (value) at_least(option, *value, 0);
  }
  TrainPlan plan;
  plan.context = context;
  plan.seed = flags.seed;
  plan.device = choose_device(flags.device, flags.dtype, mor::host::resolve_threads(flags.threads));
  plan.capacity_warmup = flags.capacity_warmup;
  plan.balance_warmup = flags.balance_warmup;
  resolve_batch(flags, defaults, plan);
  plan.length = resolve_length(flags, defaults, plan.tokens_per_step());
  plan.router_weight = router_weight(flags.aux_accumulation, plan.accumulation);
  plan.recompute = mor::parse_choice<mor::Recompute>(flags.recompute, "--recompute");
  plan.non_finite = mor::train::parse_non_finite_policy(flags.non_finite);
  auto& schedule = plan.schedule;
  schedule.kind = flags.schedule ? mor::train::parse_schedule_kind(*flags.schedule) : defaults.schedule;
  schedule.peak = flags.learning_rate.value_or(defaults.learning_rate);
  schedule.decay_fraction = flags.decay_fraction.value_or(defaults.decay_fraction);
  schedule.warmup_steps = flags.warmup.value_or(defaults.warmup_steps);
  schedule.total_steps = plan.length.steps.value_or(100000);
  if (plan.length.steps && !flags.warmup) {  // a preset's warm-up must not fill a run that is shorter than it expects
    schedule.warmup_steps = std::min(schedule.warmup_steps, schedule.total_steps / 10);
  }
  schedule.validate();
  plan.optimizer.weight_decay = flags.weight_decay.value_or(defaults.weight_decay);
  plan.optimizer.clip_norm = flags.clip;
  if (!(std::isfinite(plan.optimizer.weight_decay) && plan.optimizer.weight_decay >= 0.0)) {
    refuse("--weight-decay", "out of range", "0 or more", mor::text_of(plan.optimizer.weight_decay));
  }
  if (!(std::isfinite(flags.clip) && flags.clip >= 0.0))
    refuse("--clip", "out of range", "0 or more", mor::text_of(flags.clip));
  return plan;
}

}  // namespace examples
