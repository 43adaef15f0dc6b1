// SPDX-License-Identifier: Apache-2.0
/// @file
/// Trains a model on a text or on token shards: `train --data FILE --out DIR`.
#include "common/forecast.hpp"
#include "common/model_folder.hpp"
#include "common/run_lock.hpp"
#include "common/settings_file.hpp"
#include "common/shell_word.hpp"
#include "common/short_waits.hpp"
#include "common/startup_table.hpp"
#include "common/train_options.hpp"
#include "common/training_run.hpp"
#include "mor/io/config_json.hpp"
#include "mor/io/file.hpp"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;
using namespace examples;

/// The last value of an option before the command line is parsed: "--name value" or "--name=value".
std::optional<std::string> early_option(std::vector<std::string> const& arguments, std::string const& name) {
  std::optional<std::string> value;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == name && i + 1 < arguments.size()) value = arguments[i + 1];
    if (arguments[i].starts_with(name + "=")) value = arguments[i].substr(name.size() + 1);
  }
  return value;
}

/// What the model is to be: preset or --init, then the command line, then the vocabulary of the data.
mor::ModelConfig make_config(TrainFlags const& flags, mor::ModelConfig const& base, TrainingData const& data) {
  auto config = apply_model_flags(base, flags.model);
  if (!flags.init) config.transformer.vocab_size = data.vocab_size;
  if (!flags.init && data.tokenizer) {
    auto const end = data.tokenizer->end_of_text_id().value_or(-1);
    config.transformer.bos_token_id = config.transformer.eos_token_id = end;
  }
  if (data.vocab_size > config.transformer.vocab_size) {
    mor::fail(mor::ErrorCode::InvalidConfig, "the data has more tokens than the model of --init", "--data",
              "at most " + mor::text_of(config.transformer.vocab_size), mor::text_of(data.vocab_size));
  }
  mor::check(config, "command line");
  return config;
}

TrainingData load_data(TrainFlags const& flags, RunFolder const& folder, Preset const& preset) {
  TokenizerChoice choice;
  choice.name = flags.tokenizer.value_or(preset.training.tokenizer);
  choice.given = flags.tokenizer && !flags.resume;
  choice.vocab_size = flags.vocab_size.value_or(preset.model.transformer.vocab_size);
  if (flags.resume && fs::exists(folder.file(tokenizer_file))) choice.existing = folder.file(tokenizer_file);
  if (!choice.existing && flags.init && fs::exists(fs::path(*flags.init) / tokenizer_file)) {
    choice.existing = fs::path(*flags.init) / tokenizer_file;
  }
  if (choice.name == "byte" && flags.vocab_size && *flags.vocab_size != 257) {
    mor::fail(mor::ErrorCode::InvalidConfig, "the byte tokenizer has its own size", "--vocab-size",
              "257, or --tokenizer bpe", mor::text_of(*flags.vocab_size));
  }
  return load_training_data(flags.data, choice);
}

/// The settings, by which the folder is known as a run's, and the files that a resume and `generate` need.
void write_beginnings(RunFolder const& folder, mor::ModelConfig const& config, TrainingData const& data,
                      std::string const& settings) {
  mor::io::write_file(folder.file(settings_file), settings);
  if (data.tokenizer) data.tokenizer->save(folder.file(tokenizer_file));
  mor::io::save_config(folder.file(config_file), config);
}

void train(TrainFlags const& flags, std::string const& settings, std::string const& program) {
  RunFolder const folder(flags.out);
  folder.check(flags.resume, flags.overwrite);
  std::optional<RunLock> lock;
  if (!flags.dry_run && fs::exists(folder.file(settings_file))) lock.emplace(folder.root());
  bool const going_on = flags.resume && fs::exists(folder.file(config_file));
  auto const& preset = find_preset(flags.model.preset.value_or("quickstart"));
  // A run keeps what it began with, so that going on needs the folder of --init no more.
  std::optional<ModelFiles> init;
  if (flags.init && !going_on) init = open_model_files(*flags.init);
  auto const base = init         ? init->config
                    : flags.init ? mor::io::load_config(folder.file(config_file))
                                 : preset.model;
  Index const context = apply_model_flags(base, flags.model).transformer.max_position_embeddings;
  auto const plan = make_plan(flags, preset.training, context);
  auto const data = load_data(flags, folder, preset);
  auto const config = make_config(flags, base, data);
  if (going_on) {
    auto const difference = config_difference(mor::io::load_config(folder.file(config_file)), config);
    if (!difference.empty()) {
      mor::fail(mor::ErrorCode::ShapeMismatch, "the run in this folder has another model: " + difference,
                folder.root().string());
    }
  }
  auto const split = split_data(data, flags.validation_fraction);
  mor::train::DataLoader const fits(split.training, {plan.context, plan.batch_size, plan.seed, true});

  auto const prediction = forecast(config, {plan.batch_size, plan.context, plan.capacity_warmup, plan.recompute, plan.device});
  std::cout << model_table(config, prediction) << run_table(plan, prediction, data, split) << std::flush;
  if (split.validation.size() <= plan.context) std::cout << "no validation: the held-out part is shorter than a row\n";
  if (flags.dry_run) return;
  auto const model = make_model(config, plan.device, Purpose::Training);
  model->enable_training(plan.optimizer);
  model->set_recompute(plan.recompute);
  model->reserve_activations(prediction.activation_bytes);

  auto const checkpoint = going_on ? newest_checkpoint(folder) : std::nullopt;
  if (!checkpoint) {
    if (flags.resume) std::cout << "no checkpoint in " << folder.root().string() << ": starting from the beginning\n";
    if (flags.init) {
      if (!init) init = open_model_files(*flags.init);
      load_weights(*init->tensors, *model);
      init.reset();
    } else {
      model->initialize(plan.seed);
    }
  } else {
    std::cout << "resuming after step " << checkpoint->step() << " from " << checkpoint->directory().string() << '\n';
  }
  TrainingRun run(folder, flags, plan, prediction, *model, data, split, checkpoint);
  // Only now: a command that was refused must leave the folder as it was.
  if (!checkpoint) {
    if (!lock) {  // a new folder; someone else may have begun a run in it meanwhile
      fs::create_directories(folder.root());
      lock.emplace(folder.root());
      folder.check(flags.resume, flags.overwrite);
    }
    folder.create(flags.overwrite);
    write_beginnings(folder, config, data, settings);
  }
  run.open_files();
  if (checkpoint) mor::io::write_file(folder.file(settings_file), settings);
  bool const finished = run.run();
  std::string const where = folder.root().string();
  if (finished) {
    std::cout << "done: the model is in " << where << "; try: generate --model " << shell_word(where)
              << " --prompt TEXT\n";
  } else {
    std::cout << "stopped after step " << run.step() << ", saved; go on with: " << shell_word(program) << " --out "
              << shell_word(where) << " --resume\n";
  }
}

}  // namespace

int main(int argc, char** argv) {
  shorten_waits(argv);
  std::vector<std::string> const arguments(argv + 1, argv + argc);
  CLI::App app("Trains a Mixture-of-Recursions language model, or one of its baselines.", "train");
  TrainFlags flags;
  add_train_options(app, flags);
  // A resume takes what is not on the command line from the run's settings.
  auto const out = early_option(arguments, "--out");
  bool const resume = std::find(arguments.begin(), arguments.end(), "--resume") != arguments.end();
  std::string const settings = resume && out ? (fs::path(*out) / settings_file).string() : std::string();
  app.set_config("--settings", settings, "read options from this file")->configurable(false);
  app.config_formatter(std::make_shared<SettingsFormat>(app));
  return run_program(app, arguments, [&] { train(flags, app.config_to_str(false, false), argv[0]); });
}
