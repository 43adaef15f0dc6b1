// SPDX-License-Identifier: Apache-2.0
/// @file
/// Turns texts into token shards for `train`: `prepare --input FILE... --tokenizer FILE --out DIR`.
#include "common/command_line.hpp"
#include "common/interrupt.hpp"
#include "common/shell_word.hpp"
#include "common/terminal.hpp"
#include "mor/io/tokenizer.hpp"
#include "mor/train/data_preparation.hpp"
#include "mor/train/number_text.hpp"
#include "mor/train/progress_line.hpp"

#include <algorithm>
#include <chrono>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace examples;
using mor::Index;
using mor::Token;
using mor::train::detail::fixed_text;
using mor::train::PreparationOptions;
using mor::train::PreparationProgress;

struct PrepareFlags {
  std::vector<std::string> inputs, validation;
  std::string tokenizer, out, format = "auto", begin = "auto", end = "auto";
  mor::train::DocumentRules rules;
  double validation_fraction = 0.0;
  std::uint64_t seed = 1;
  Index shard_tokens = 50'000'000;
  int threads = 0;
  bool parse_special = false, overwrite = false;
};

void add_options(CLI::App& app, PrepareFlags& flags) {
  app.add_option("--input", flags.inputs, "text or JSON-lines files")->required();
  app.add_option("--tokenizer", flags.tokenizer, "tokenizer.json, tokenizer.model or llama2.c tokenizer; or byte")
      ->required();
  app.add_option("--out", flags.out, "folder for the shards; an interrupted run there is gone on with")->required();
  app.add_option("--format", flags.format,
                 "auto (jsonl for *.jsonl and *.ndjson, else separated) | whole | lines | separated | jsonl")
      ->capture_default_str();
  app.add_option("--separator", flags.rules.separator, "line between two documents, for separated")
      ->capture_default_str();
  app.add_option("--field", flags.rules.field, "field of a JSON line that holds the text")->capture_default_str();
  app.add_option("--begin", flags.begin, "token before each document: auto (the tokenizer's own) | none | TOKEN")
      ->capture_default_str();
  app.add_option("--end", flags.end, "token after each document: auto (end of text, where there is one) | none | TOKEN")
      ->capture_default_str();
  app.add_flag("--parse-special", flags.parse_special, "text that spells a special token becomes that token");
  app.add_option("--validation", flags.validation, "files whose documents are for validation");
  app.add_option("--validation-fraction", flags.validation_fraction, "share of the other documents drawn for it")
      ->capture_default_str();
  app.add_option("--seed", flags.seed, "of that draw")->capture_default_str();
  app.add_option("--shard-tokens", flags.shard_tokens, "tokens of a shard")->capture_default_str();
  app.add_option("--threads", flags.threads, "encoding at once; 0: one a processor. The result is the same")
      ->capture_default_str();
  app.add_flag("--overwrite", flags.overwrite, "delete what an earlier run made in --out first");
}

/// What a name of `--begin` or `--end` stands for.
std::vector<Token> document_tokens(std::string const& name, char const* option, mor::io::Tokenizer const& tokenizer,
                                   std::vector<Token> automatic) {
  if (name == "auto") return automatic;
  if (name == "none") return {};
  auto const id = tokenizer.added_token_id(name);
  if (!id) {
    mor::fail(mor::ErrorCode::InvalidArgument, "the tokenizer has no such special token", option,
              "auto, none or an added token", mor::printable(name));
  }
  return {*id};
}

PreparationOptions make_options(PrepareFlags const& flags, mor::io::Tokenizer const& tokenizer) {
  PreparationOptions options;
  options.inputs.assign(flags.inputs.begin(), flags.inputs.end());
  options.validation_inputs.assign(flags.validation.begin(), flags.validation.end());
  options.out = flags.out;
  options.rules = flags.rules;
  if (flags.format != "auto") options.rules.format = mor::train::parse_document_format(flags.format, "--format");
  options.validation_fraction = flags.validation_fraction;
  options.seed = flags.seed;
  options.overwrite = flags.overwrite;
  options.shard_tokens = flags.shard_tokens;
  auto const begin = tokenizer.begin_tokens();
  auto const end = tokenizer.end_of_text_id();
  options.begin = document_tokens(flags.begin, "--begin", tokenizer, {begin.begin(), begin.end()});
  options.end = document_tokens(flags.end, "--end", tokenizer, end ? std::vector{*end} : std::vector<Token>());
  if (flags.parse_special) options.special = mor::io::SpecialInput::Parse;
  if (flags.threads < 0) {
    mor::fail(mor::ErrorCode::InvalidArgument, "out of range", "--threads", "0 or more", mor::text_of(flags.threads));
  }
  int const processors = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  options.threads = flags.threads > 0 ? flags.threads : processors;
  return options;
}

/// The line that shows how far the run is: on a terminal one line that changes, else one every tenth of the way.
class ProgressLine {
 public:
  void show(PreparationProgress const& progress) {
    double const now = seconds();
    auto const done = static_cast<double>(progress.bytes), total = static_cast<double>(progress.total_bytes);
    double const share = total > 0.0 ? done / total : 1.0;
    if (terminal_ ? now - shown_at_ < 0.1 : share < next_share_) return;
    shown_at_ = now;
    while (next_share_ <= share) next_share_ += 0.1;
    double const rate = std::max(done - static_cast<double>(progress.begun_bytes), 0.0) / std::max(now, 1e-9);
    using mor::train::rate_text;
    std::string const line = fixed_text(share * 100.0, 1) + "%  " + rate_text(done) + "B of " + rate_text(total) +
                             "B  " + rate_text(rate) + "B/s  train " +
                             rate_text(static_cast<double>(progress.training_tokens)) + " tok  val " +
                             rate_text(static_cast<double>(progress.validation_tokens)) + " tok  eta " +
                             (rate > 0.0 ? mor::train::duration_text((total - done) / rate) : "unknown");
    if (terminal_) {
      line_.show(line);
    } else {
      std::cout << line << std::endl;
    }
  }
  void clear() { line_.clear(); }

 private:
  [[nodiscard]] double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  double shown_at_ = -1.0, next_share_ = 0.1;
  bool terminal_ = is_terminal();
  TransientLine line_;
};

void print_split(char const* name, mor::train::PreparedSplit const& split) {
  std::cout << name << ": " << split.documents << " documents, " << split.tokens() << " tokens in "
            << split.shards.size() << (split.shards.size() == 1 ? " shard" : " shards");
  if (split.tokens() > 0) {
    std::cout << ", " << fixed_text(static_cast<double>(split.bytes) / static_cast<double>(split.tokens()), 2)
              << " bytes a token";
  }
  std::cout << '\n';
}

void prepare(PrepareFlags const& flags) {
  auto const tokenizer = flags.tokenizer == "byte" ? mor::io::Tokenizer::byte_level()
                                                   : mor::io::Tokenizer::load(flags.tokenizer);
  auto const options = make_options(flags, tokenizer);
  InterruptGuard const interrupts;
  ProgressLine line;
  auto const state = mor::train::prepare_data(tokenizer, options, [&](PreparationProgress const& progress) {
    line.show(progress);
    return !InterruptGuard::requested();
  });
  line.clear();
  if (!state.finished) {
    std::cout << "stopped; the same command goes on after the last whole shard\n";
    return;
  }
  print_split("training", state.training);
  print_split("validation", state.validation);
  std::cout << "the shards are in " << flags.out << "; try: train --data " << shell_word(flags.out) << " --out DIR\n";
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Turns texts into token shards for train.", "prepare");
  PrepareFlags flags;
  add_options(app, flags);
  return run_program(app, argc, argv, [&] { prepare(flags); });
}
