// SPDX-License-Identifier: Apache-2.0
/// @file
/// Continues a text: `generate --model DIR --prompt TEXT`. The continuation goes to standard output, figures about it
/// to standard error.
#include "common/command_line.hpp"
#include "common/depth_views.hpp"
#include "common/device_choice.hpp"
#include "common/model_folder.hpp"
#include "common/short_waits.hpp"
#include "common/text_loss.hpp"
#include "mor/core/config_text.hpp"
#include "mor/core/stop_strings.hpp"
#include "mor/core/utf8.hpp"
#include "mor/io/file.hpp"
#include "mor/train/number_text.hpp"

#include <chrono>
#include <iostream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

namespace {

using namespace examples;
using mor::train::detail::fixed_text;

struct GenerateFlags {
  ModelFlags shape;
  std::optional<std::string> model, prompt, prompt_file, routing, depths_html, depths_csv, dtype;
  Index max_tokens = 128;
  mor::infer::SamplingParams sampling;
  std::vector<std::string> stop;
  bool depths = false, echo = false, no_prompt = false, ignore_eos = false;
  std::string color = "auto", device = "auto";
  int threads = 0;

  [[nodiscard]] bool wants_depths() const { return depths || depths_html || depths_csv; }
};

void add_options(CLI::App& app, GenerateFlags& flags) {
  app.add_option("--model", flags.model, "model folder; without one, --preset gives a model with random weights");
  app.add_option("--prompt", flags.prompt, "text to continue; - reads standard input");
  app.add_option("--prompt-file", flags.prompt_file, "the same from a file, without its last line break");
  app.add_option("--max-tokens", flags.max_tokens, "tokens to generate")->capture_default_str();
  app.add_option("--temperature", flags.sampling.temperature, "0: always the most likely token")->capture_default_str();
  app.add_option("--top-k", flags.sampling.top_k, "keep the k most likely tokens; 0: all")->capture_default_str();
  app.add_option("--top-p", flags.sampling.top_p, "keep the most likely tokens of this total")->capture_default_str();
  app.add_option("--min-p", flags.sampling.min_p, "keep tokens this likely, relative to the best")
      ->capture_default_str();
  app.add_option("--repetition-penalty", flags.sampling.repetition_penalty, "above 1: fewer repetitions")
      ->capture_default_str();
  app.add_option("--seed", flags.sampling.seed, "of the sampling")->capture_default_str();
  app.add_option("--stop", flags.stop, "end before this text; may be repeated")->take_all();
  app.add_option("--routing", flags.routing,
                 "threshold | topk | aux_router | full_depth (default: the model's causal rule)");
  app.add_flag("--ignore-eos", flags.ignore_eos, "go on after the end-of-text token");
  app.add_flag("--echo", flags.echo, "print the prompt too");
  app.add_flag("--depths", flags.depths, "print prompt and text coloured by the recursions that each token took");
  app.add_flag("--no-prompt", flags.no_prompt, "with --depths: without the prompt");
  app.add_option("--color", flags.color, "of --depths: auto (in a terminal, without NO_COLOR) | always | never")
      ->capture_default_str();
  app.add_option("--depths-html", flags.depths_html, "write a page with the coloured text");
  app.add_option("--depths-csv", flags.depths_csv, "write tokens and depths as a table");
  app.add_option("--device", flags.device, "auto (a GPU where there is one) | cpu | cuda")->capture_default_str();
  app.add_option("--dtype", flags.dtype, "of weights and activations: float32 | bfloat16 (default: bfloat16 on a GPU)");
  app.add_option("--threads", flags.threads, "of the processor; 0: all")->capture_default_str();
  add_model_options(app, flags.shape, "none: the model folder's own");
}

std::string read_standard_input() {
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

/// The prompt's text, checked to be UTF-8.
std::string read_prompt(GenerateFlags const& flags) {
  if (flags.prompt.has_value() == flags.prompt_file.has_value()) {
    mor::fail(mor::ErrorCode::InvalidArgument, "give one prompt", "--prompt, --prompt-file", "one of them",
              flags.prompt ? "both" : "none");
  }
  std::string text, where = "--prompt";
  if (flags.prompt && *flags.prompt != "-") {
    text = *flags.prompt;
  } else {
    bool const from_input = flags.prompt || *flags.prompt_file == "-";
    where = from_input ? "standard input" : *flags.prompt_file;
    text = from_input ? read_standard_input() : mor::io::read_file(*flags.prompt_file);
    if (text.ends_with('\n')) text.pop_back();
    if (text.ends_with('\r')) text.pop_back();
  }
  if (auto const offset = mor::first_invalid_utf8(text)) {
    mor::fail(mor::ErrorCode::InvalidArgument, "the prompt is not valid UTF-8",
              where + ": byte " + mor::text_of(*offset));
  }
  return text;
}

/// The prompt's tokens, after those that the model expects before a text; of an empty prompt at least one such token.
std::vector<Token> encode_prompt(std::string const& text, mor::io::Tokenizer const& tokenizer) {
  std::vector<Token> tokens(tokenizer.begin_tokens().begin(), tokenizer.begin_tokens().end());
  auto const words = tokenizer.encode(text);
  tokens.insert(tokens.end(), words.begin(), words.end());
  if (!tokens.empty()) return tokens;
  auto const begin = tokenizer.end_of_text_id();
  if (!begin) {
    mor::fail(mor::ErrorCode::InvalidArgument, "the prompt is empty, and the tokenizer has no token that begins a text",
              "--prompt", "at least one character");
  }
  return {*begin};
}

/// Shows text as it comes: whole characters, and nothing of a stop string.
class TextPrinter {
 public:
  TextPrinter(std::vector<std::string> stop, bool visible) : stop_(std::move(stop)), visible_(visible) {}

  /// @return false when a stop string is complete
  bool push(std::string_view bytes) {
    auto const result = stop_.push(utf8_.push(bytes));
    show(result.text);
    return !result.stopped;
  }
  void finish() {
    if (!stop_.stopped()) {
      show(stop_.push(utf8_.flush()).text);
      show(stop_.flush());
    }
    if (visible_) std::cout << '\n';
  }

 private:
  void show(std::string const& text) const {
    if (visible_ && !text.empty()) std::cout << text << std::flush;
  }

  mor::Utf8Stream utf8_;
  mor::StopMatcher stop_;
  bool visible_;
};

std::string reason_text(mor::infer::FinishReason reason, Index context) {
  switch (reason) {
    case mor::infer::FinishReason::Length: return "--max-tokens reached";
    case mor::infer::FinishReason::EndToken: return "end of text";
    case mor::infer::FinishReason::Stopped: return "stop string";
    case mor::infer::FinishReason::ContextFull: return "the context of " + mor::text_of(context) + " tokens is full";
    case mor::infer::FinishReason::Cancelled: return "cancelled";
    case mor::infer::FinishReason::NonFinite: return "the logits are not numbers";
  }
  return {};
}

/// What was generated, and when.
struct Generation {
  std::vector<mor::infer::GeneratedToken> tokens;
  mor::infer::FinishReason reason = mor::infer::FinishReason::Length;
  double seconds = 0.0;  ///< after the prompt was read
};

/// @param begins_text  nothing is before the first token: it loses the space that its tokenizer put in front
Generation run(AnyModel& model, mor::io::Tokenizer const& tokenizer, GenerateFlags const& flags,
               mor::infer::GenerationRequest const& request, bool begins_text) {
  using Clock = std::chrono::steady_clock;
  Generation result;
  TextPrinter printer(flags.stop, !flags.depths);
  auto begin = Clock::now();
  result.reason = model.generate(request, [&](mor::infer::GeneratedToken const& token) {
    result.tokens.push_back(token);
    if (token.prompt) {
      begin = Clock::now();
      return true;
    }
    if (request.end_token && token.token == *request.end_token) return true;
    bool const first = begins_text && token.token < tokenizer.vocab_size();
    begins_text = false;
    return printer.push(first ? std::string(tokenizer.first_token_bytes(token.token))
                              : token_text(tokenizer, token.token));
  });
  result.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  printer.finish();
  return result;
}

void show_figures(Generation const& result, AnyModel const& model, mor::RoutingMode mode) {
  double depths = 0.0;
  Index made = 0, read = 0;
  for (auto const& token : result.tokens) {
    made += token.prompt ? 0 : 1;
    if (token.prompt || token.depth == 0) continue;
    ++read;
    depths += static_cast<double>(token.depth);
  }
  std::cerr << made << " tokens after a prompt of " << static_cast<Index>(result.tokens.size()) - made << ", "
            << fixed_text(static_cast<double>(made) / std::max(result.seconds, 1e-9), 1) << " tokens/s, mean depth "
            << fixed_text(read > 0 ? depths / static_cast<double>(read) : 0.0, 2) << " of "
            << model.config().recursion.num_recursions << ", routing " << mor::to_text(mode) << ", "
            << model.backend_name() << "; "
            << reason_text(result.reason, model.config().transformer.max_position_embeddings) << '\n';
}

void generate(GenerateFlags const& flags) {
  flags.sampling.check();
  if (flags.max_tokens < 0 || flags.threads < 0) {
    mor::fail(mor::ErrorCode::InvalidArgument, "out of range", flags.threads < 0 ? "--threads" : "--max-tokens",
              "0 or more", mor::text_of(flags.threads < 0 ? flags.threads : flags.max_tokens));
  }
  auto const device = choose_device(flags.device, flags.dtype, flags.threads);
  ColorChoice const color = parse_color(flags.color);
  std::string const prompt = read_prompt(flags);
  auto const [model, tokenizer] = open_model(flags.model, flags.shape, device, true);
  mor::infer::GenerationRequest request;
  request.prompt = encode_prompt(prompt, tokenizer);
  request.max_new_tokens = flags.max_tokens;
  request.sampling = flags.sampling;
  request.mode =
      flags.routing ? mor::parse_routing_mode(*flags.routing, "--routing") : generation_mode(model->config().recursion);
  Token const end = model->config().transformer.eos_token_id;
  if (end >= 0 && !flags.ignore_eos) request.end_token = end;
  request.last_depth = flags.wants_depths();
  if (flags.echo && !flags.depths) std::cout << prompt << std::flush;

  auto const result = run(*model, tokenizer, flags, request, prompt.empty());
  DepthText const text(result.tokens, tokenizer, flags.stop,
                       static_cast<int>(model->config().recursion.num_recursions));
  if (flags.depths) text.print(std::cout, color, !flags.no_prompt);
  if (flags.depths_html) text.write_html(*flags.depths_html);
  if (flags.depths_csv) text.write_csv(*flags.depths_csv);
  show_figures(result, *model, request.mode);
}

}  // namespace

int main(int argc, char** argv) {
  shorten_waits(argv);
  CLI::App app("Continues a text with a trained model.", "generate");
  GenerateFlags flags;
  add_options(app, flags);
  return run_program(app, argc, argv, [&] { generate(flags); });
}
