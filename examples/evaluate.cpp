// SPDX-License-Identifier: Apache-2.0
/// @file
/// Measures a model: logits and depths of given tokens (`--tokens`), or the loss on a text (`--text`).
#include "common/command_line.hpp"
#include "common/device_choice.hpp"
#include "common/model_folder.hpp"
#include "common/text_loss.hpp"
#include "common/token_lines.hpp"
#include "common/training_data.hpp"
#include "mor/core/config_text.hpp"
#include "mor/io/file.hpp"
#include "mor/io/json.hpp"
#include "mor/io/safetensors.hpp"
#include "mor/train/number_text.hpp"

#include <algorithm>
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
  std::string device = "auto", dtype = "float32";
  bool json = false;
  Index batch_size = 8;
  int threads = 0;
};

void add_options(CLI::App& app, EvaluateFlags& flags) {
  app.add_option("--model", flags.model, "model folder; without one, --preset gives a model with random weights");
  app.add_option("--tokens", flags.tokens, "token ids, one sequence a line");
  app.add_option("--logits", flags.logits, "with --tokens: safetensors file for logits.0, depths.0, logits.1, ...");
  app.add_option("--text", flags.text, "text whose loss is wanted");
  app.add_option("--routing", flags.routing,
                 "topk | threshold | aux_router | full_depth (default: topk; with --text the causal rule too)");
  app.add_flag("--json", flags.json, "with --text: one JSON object");
  app.add_option("--batch-size", flags.batch_size, "with --text: windows computed together")->capture_default_str();
  app.add_option("--device", flags.device, "auto (a GPU where there is one) | cpu | cuda")->capture_default_str();
  app.add_option("--dtype", flags.dtype, "of weights and activations: float32 | bfloat16")->capture_default_str();
  app.add_option("--threads", flags.threads, "of the processor; 0: all")->capture_default_str();
  add_model_options(app, flags.shape, "none: the model folder's own");
}

void check_flags(EvaluateFlags const& flags) {
  auto const refuse = [](char const* what, char const* where, std::string expected, std::string got) {
    mor::fail(mor::ErrorCode::InvalidArgument, what, where, std::move(expected), std::move(got));
  };
  if (flags.tokens.has_value() == flags.text.has_value()) {
    refuse("give one thing to evaluate", "--tokens, --text", "one of them", flags.tokens ? "both" : "none");
  }
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
  std::cout << "routing " << mode << ": " << fixed_text(loss.nats_per_token(), 4) << " nats a token, perplexity "
            << fixed_text(std::exp(loss.nats_per_token()), 2) << ", ";
  if (loss.bytes > 0) std::cout << fixed_text(loss.bits_per_byte(), 4) << " bits a byte, ";
  std::cout << "mean depth " << fixed_text(loss.mean_depth(), 3) << " (" << loss.targets << " tokens, " << loss.bytes
            << " bytes, windows of " << context << ")\n";
}

nlohmann::ordered_json json_of(TextLoss const& loss, std::string const& mode, Index context) {
  nlohmann::ordered_json row;
  row["routing"] = mode;
  row["nats_per_token"] = loss.nats_per_token();
  row["perplexity"] = std::exp(loss.nats_per_token());
  row["bits_per_byte"] =
      loss.bytes > 0 ? nlohmann::ordered_json(loss.bits_per_byte()) : nlohmann::ordered_json(nullptr);
  row["mean_depth"] = loss.mean_depth();
  row["tokens"] = loss.targets;
  row["bytes"] = loss.bytes;
  row["context"] = context;
  return row;
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
  auto const modes = flags.routing ? std::vector{mor::parse_routing_mode(*flags.routing, "--routing")}
                                   : reported_modes(model.config().recursion);
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

void evaluate(EvaluateFlags const& flags) {
  check_flags(flags);
  auto const mode = mor::parse_routing_mode(flags.routing.value_or("topk"), "--routing");
  auto const device = choose_device(flags.device, flags.dtype, flags.threads);
  auto const [model, tokenizer] = open_model(flags.model, flags.shape, device, flags.text.has_value());
  if (flags.tokens) {
    write_logits(*model, flags, mode);
  } else {
    evaluate_text(*model, tokenizer, flags);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Measures a model: logits of tokens, or the loss on a text.", "evaluate");
  EvaluateFlags flags;
  add_options(app, flags);
  return run_program(app, argc, argv, [&] { evaluate(flags); });
}
