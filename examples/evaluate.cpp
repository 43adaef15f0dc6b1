// SPDX-License-Identifier: Apache-2.0
/// @file
/// Measures a model: logits and depths of given tokens (`--tokens`), the loss on a text (`--text`), or accuracies on
/// few-shot tasks (`--tasks`).
#include "common/command_line.hpp"
#include "common/device_choice.hpp"
#include "common/model_folder.hpp"
#include "common/short_waits.hpp"
#include "common/task_evaluation.hpp"
#include "common/text_loss.hpp"
#include "common/token_lines.hpp"
#include "common/training_data.hpp"
#include "mor/core/config_text.hpp"
#include "mor/io/file.hpp"
#include "mor/io/json.hpp"
#include "mor/io/safetensors.hpp"
#include "mor/train/number_text.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

namespace {

using namespace examples;
using mor::train::detail::fixed_text;

struct EvaluateFlags {
  ModelFlags shape;
  std::optional<std::string> model, tokens, logits, text, routing;
  std::vector<std::string> tasks;
  std::optional<std::string> task_kind, shots_file, delimiter, examples;
  std::optional<Index> shots, limit;
  std::optional<std::uint64_t> seed;
  std::string device = "auto", dtype = "float32";
  bool json = false;
  Index batch_size = 8;
  int threads = 0;
};

void add_task_options(CLI::App& app, EvaluateFlags& flags) {
  std::string const group = "Tasks";
  auto const add = [&](char const* name, auto& value, char const* help) {
    app.add_option(name, value, help)->group(group);
  };
  add("--task-kind", flags.task_kind, "last_word | multiple_choice | partial_scoring (default: by the fields)");
  add("--shots", flags.shots, "solved examples before each question (default 0)");
  add("--shots-file", flags.shots_file, "task to take them from (default: the other examples of the task)");
  add("--seed", flags.seed, "of their choice (default 1)");
  add("--delimiter", flags.delimiter,
      "between context and continuation, \\n for a line break (default: a space; after Question: a line Answer: )");
  add("--limit", flags.limit, "score the first examples of each task only");
  add("--examples", flags.examples, "file for the scores of each example, as JSON lines");
}

void add_options(CLI::App& app, EvaluateFlags& flags) {
  app.add_option("--model", flags.model, "model folder; without one, --preset gives a model with random weights");
  app.add_option("--tokens", flags.tokens, "token ids, one sequence a line");
  app.add_option("--logits", flags.logits, "with --tokens: safetensors file for logits.0, depths.0, logits.1, ...");
  app.add_option("--text", flags.text, "text whose loss is wanted");
  app.add_option("--tasks", flags.tasks, "JSON lines of tasks: LAMBADA, HellaSwag, PIQA, WinoGrande, ARC, MMLU, ...");
  app.add_option("--routing", flags.routing,
                 "topk | threshold | aux_router | full_depth (default: topk; of texts and tasks also the causal rule)");
  app.add_flag("--json", flags.json, "with --text or --tasks: one JSON object");
  app.add_option("--batch-size", flags.batch_size, "windows of a text, or examples of a task, computed together")
      ->capture_default_str();
  app.add_option("--device", flags.device, "auto (a GPU where there is one) | cpu | cuda")->capture_default_str();
  app.add_option("--dtype", flags.dtype, "of weights and activations: float32 | bfloat16")->capture_default_str();
  app.add_option("--threads", flags.threads, "of the processor; 0: all")->capture_default_str();
  add_task_options(app, flags);
  add_model_options(app, flags.shape, "none: the model folder's own");
}

void check_flags(EvaluateFlags const& flags) {
  auto const refuse = [](char const* what, char const* where, std::string expected, std::string got) {
    mor::fail(mor::ErrorCode::InvalidArgument, what, where, std::move(expected), std::move(got));
  };
  int const given = int{flags.tokens.has_value()} + int{flags.text.has_value()} + int{!flags.tasks.empty()};
  if (given != 1) {
    refuse("give one thing to evaluate", "--tokens, --text, --tasks", "one of them", mor::text_of(given));
  }
  bool const task_option = flags.task_kind || flags.shots || flags.shots_file || flags.seed || flags.delimiter ||
                           flags.limit || flags.examples;
  if (flags.tasks.empty() && task_option) {
    refuse("an option of tasks without a task", "--tasks", "a file", "none");
  }
  if (flags.shots.value_or(0) < 0) refuse("out of range", "--shots", "0 or more", mor::text_of(*flags.shots));
  if (flags.limit.value_or(1) < 1) refuse("out of range", "--limit", "at least 1", mor::text_of(*flags.limit));
  if (flags.tokens.has_value() != flags.logits.has_value()) {
    refuse("--tokens and --logits belong together", "--logits", "both", flags.tokens ? "--tokens" : "--logits");
  }
  if (flags.batch_size < 1) refuse("out of range", "--batch-size", "at least 1", mor::text_of(flags.batch_size));
  if (flags.threads < 0) refuse("out of range", "--threads", "0 or more", mor::text_of(flags.threads));
}

/// Logits and depths of every sequence. The file wants all logits first, sorted by name; so that is the order of
/// computation, and nothing is kept but the depths.
void write_logits(AnyModel& model, EvaluateFlags const& flags, mor::RoutingMode mode) {
  auto const sequences = read_token_lines(*flags.tokens, model.config().transformer.vocab_size);
  std::vector<mor::io::TensorSpec> specs;
  Index const vocab_size = model.config().transformer.vocab_size;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    auto const length = static_cast<Index>(sequences[i].size());
    specs.push_back({"logits." + std::to_string(i), mor::DType::F32, {length, vocab_size}});
    specs.push_back({"depths." + std::to_string(i), mor::DType::I32, {length}});
  }
  mor::io::SafetensorsWriter writer(*flags.logits, std::move(specs));
  std::vector<std::vector<Row>> depths(sequences.size());
  mor::infer::SingleSequence batch;
  for (auto const& tensor : writer.tensors()) {
    auto const i = static_cast<std::size_t>(std::stoull(tensor.name.substr(7)));
    if (tensor.name.starts_with("logits.")) {
      auto const logits = model.forward(batch(sequences[i], 0), mode);
      writer.write(std::as_bytes(std::span<float const>(logits.data, static_cast<std::size_t>(logits.size()))));
      depths[i] = model.depths();
    } else {
      writer.write(std::as_bytes(std::span<Row const>(depths[i])));
    }
  }
  writer.commit();
}

/// Every token but the first is predicted once, from those before it in its window of `context` tokens.
TextLoss text_loss(AnyModel& model, std::vector<Token> const& tokens, Index context, Index batch_size,
                   mor::RoutingMode mode) {
  TextLoss sum;
  std::vector<Row> positions, offsets;
  auto const last = static_cast<Index>(tokens.size()) - 1;
  for (Index first = 0; first < last; first += batch_size * context) {
    Index const end = std::min(last, first + batch_size * context);
    positions.clear();
    offsets.assign(1, 0);
    for (Index i = first; i < end; ++i) {
      positions.push_back(static_cast<Row>((i - first) % context));
      if ((i + 1 - first) % context == 0 || i + 1 == end) offsets.push_back(static_cast<Row>(i + 1 - first));
    }
    auto const part = std::span<Token const>(tokens).subspan(static_cast<std::size_t>(first),
                                                             static_cast<std::size_t>(end - first + 1));
    add_loss(sum, model, {part.first(part.size() - 1), positions, offsets}, part.subspan(1), mode);
  }
  return sum;
}

void print_text(TextLoss const& loss, std::string const& mode, Index context) {
  bool const has_bytes = loss.bytes > 0;
  std::cout << "routing " << mode << ": " << fixed_text(loss.nats_per_token(), 4) << " nats a token, ";
  if (has_bytes) std::cout << fixed_text(loss.bits_per_byte(), 4) << " bits a byte, ";
  std::cout << "perplexity " << fixed_text(std::exp(loss.nats_per_token()), 2) << " a token, ";
  if (has_bytes) std::cout << fixed_text(std::exp2(loss.bits_per_byte()), 3) << " a byte, ";
  std::cout << "mean depth " << fixed_text(loss.mean_depth(), 3) << " (" << loss.targets << " tokens, " << loss.bytes
            << " bytes, windows of " << context << ")\n";
}

nlohmann::ordered_json json_of(TextLoss const& loss, std::string const& mode, Index context) {
  nlohmann::ordered_json row;
  row["routing"] = mode;
  row["nats_per_token"] = loss.nats_per_token();
  row["perplexity"] = std::exp(loss.nats_per_token());
  auto const of_bytes = [&](double value) {
    return loss.bytes > 0 ? nlohmann::ordered_json(value) : nlohmann::ordered_json(nullptr);
  };
  row["bits_per_byte"] = of_bytes(loss.bits_per_byte());
  row["perplexity_per_byte"] = of_bytes(std::exp2(loss.bits_per_byte()));
  row["mean_depth"] = loss.mean_depth();
  row["tokens"] = loss.targets;
  row["bytes"] = loss.bytes;
  row["context"] = context;
  return row;
}

std::vector<mor::RoutingMode> chosen_modes(AnyModel const& model, EvaluateFlags const& flags) {
  if (flags.routing) return {mor::parse_routing_mode(*flags.routing, "--routing")};
  return reported_modes(model.config().recursion);
}

void evaluate_text(AnyModel& model, mor::io::Tokenizer const& tokenizer, EvaluateFlags const& flags) {
  auto const text = mor::io::read_file(*flags.text);
  auto const tokens = tokenizer.encode(text);
  if (tokens.size() < 2) {
    mor::fail(mor::ErrorCode::InvalidArgument, "the text is too short to predict anything", *flags.text,
              "at least 2 tokens", mor::text_of(tokens.size()));
  }
  Index const context = model.config().transformer.max_position_embeddings;  // the windows; --context sets it
  Index const bytes = target_bytes(tokenizer, std::span<Token const>(tokens).subspan(1));
  auto const modes = chosen_modes(model, flags);
  auto rows = nlohmann::ordered_json::array();
  for (auto const mode : modes) {
    auto loss = text_loss(model, tokens, context, flags.batch_size, mode);
    loss.bytes = bytes;
    std::string const name(mor::to_text(mode));
    if (!flags.json) print_text(loss, name, context);
    rows.push_back(json_of(loss, name, context));
  }
  if (flags.json) std::cout << nlohmann::ordered_json{{"text", *flags.text}, {"results", rows}}.dump(2) << '\n';
}

/// The text with `\n`, `\t` and `\\` replaced by what they mean.
std::string unescaped(std::string const& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    char const next = text[i] == '\\' && i + 1 < text.size() ? text[i + 1] : '\0';
    char const meaning = next == 'n' ? '\n' : next == 't' ? '\t' : next == '\\' ? '\\' : '\0';
    out += meaning != '\0' ? meaning : text[i];
    if (meaning != '\0') ++i;
  }
  return out;
}

TaskSettings task_settings(EvaluateFlags const& flags) {
  TaskSettings settings;
  settings.files = flags.tasks;
  if (flags.task_kind) settings.kind = mor::eval::parse_task_kind(*flags.task_kind, "--task-kind");
  settings.shots_file = flags.shots_file;
  settings.examples_file = flags.examples;
  settings.prompt.shots = flags.shots.value_or(0);
  settings.prompt.seed = flags.seed.value_or(settings.prompt.seed);
  if (flags.delimiter) settings.prompt.delimiter = unescaped(*flags.delimiter);
  settings.limit = flags.limit;
  settings.batch_size = flags.batch_size;
  return settings;
}

void score_tasks(AnyModel& model, mor::io::Tokenizer const& tokenizer, EvaluateFlags const& flags) {
  auto const settings = task_settings(flags);
  auto const results = evaluate_tasks(model, tokenizer, settings, chosen_modes(model, flags));
  if (flags.json) {
    std::cout << json_of(results, settings).dump(2) << '\n';
  } else {
    print_tasks(std::cout, results);
  }
}

void evaluate(EvaluateFlags const& flags) {
  check_flags(flags);
  auto const mode = mor::parse_routing_mode(flags.routing.value_or("topk"), "--routing");
  auto const device = choose_device(flags.device, flags.dtype, flags.threads);
  auto const [model, tokenizer] = open_model(flags.model, flags.shape, device, !flags.tokens);
  if (flags.tokens) {
    write_logits(*model, flags, mode);
  } else if (!flags.tasks.empty()) {
    score_tasks(*model, tokenizer, flags);
  } else {
    evaluate_text(*model, tokenizer, flags);
  }
}

}  // namespace

int main(int argc, char** argv) {
  shorten_waits(argv);
  CLI::App app("Measures a model: logits of tokens, the loss on a text, or few-shot tasks.", "evaluate");
  EvaluateFlags flags;
  add_options(app, flags);
  return run_program(app, argc, argv, [&] { evaluate(flags); });
}
