// SPDX-License-Identifier: Apache-2.0
/// @file
/// Text to token ids and back: `tokenize --tokenizer FILE` maps all of standard input to ids on one line, and with
/// `--decode` ids to bytes.
#include "common/command_line.hpp"
#include "common/token_lines.hpp"
#include "mor/core/error.hpp"
#include "mor/io/tokenizer.hpp"

#include <cstddef>
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

namespace {

using namespace examples;
using mor::Token;

struct TokenizeFlags {
  std::string tokenizer;
  bool decode = false, framed = false, plain = false, omit = false;
};

void add_options(CLI::App& app, TokenizeFlags& flags) {
  app.add_option("--tokenizer", flags.tokenizer,
                 "tokenizer.json, or a tokenizer of llama2.c (*.bin) or SentencePiece (*.model)")
      ->required();
  app.add_flag("--decode", flags.decode, "ids separated by white space to the bytes that they stand for");
  app.add_flag("--framed", flags.framed, "with the tokens that the model expects before and after a whole text");
  app.add_flag("--plain-text", flags.plain,
               "special tokens in the text, such as <|endoftext|>, are text like any other");
  app.add_flag("--omit-special", flags.omit, "with --decode: without special tokens");
}

std::string read_standard_input() {
  std::string text, piece(std::size_t{1} << 20, '\0');
  while (std::size_t const count = std::fread(piece.data(), 1, piece.size(), stdin)) text.append(piece, 0, count);
  if (std::ferror(stdin) != 0) mor::fail(mor::ErrorCode::IoFailure, "cannot read", "standard input");
  return text;
}

std::string decode(mor::io::Tokenizer const& tokenizer, TokenizeFlags const& flags) {
  auto const ids = parse_token_ids(read_standard_input(), "standard input", tokenizer.vocab_size());
  return tokenizer.decode(ids, flags.omit ? mor::io::SpecialOutput::Omit : mor::io::SpecialOutput::Keep);
}

std::string encode(mor::io::Tokenizer const& tokenizer, TokenizeFlags const& flags) {
  std::string line;
  auto const add = [&](auto const& ids) {
    for (Token const id : ids) {
      if (!line.empty()) line += ' ';
      line += std::to_string(id);
    }
  };
  if (flags.framed) add(tokenizer.begin_tokens());
  auto const special = flags.plain ? mor::io::SpecialInput::PlainText : mor::io::SpecialInput::Parse;
  add(tokenizer.encode(read_standard_input(), special));
  if (flags.framed) add(tokenizer.end_tokens());
  return line += '\n';
}

void check(TokenizeFlags const& flags) {
  auto const refuse = [](char const* flag, char const* expected) {
    mor::fail(mor::ErrorCode::InvalidArgument, "does not go with the rest", flag, expected);
  };
  if (flags.decode && flags.framed) refuse("--framed", "encoding");
  if (flags.decode && flags.plain) refuse("--plain-text", "encoding");
  if (!flags.decode && flags.omit) refuse("--omit-special", "--decode");
}

void tokenize(TokenizeFlags const& flags) {
  check(flags);
  auto const tokenizer = mor::io::Tokenizer::load(flags.tokenizer);
  std::string const result = flags.decode ? decode(tokenizer, flags) : encode(tokenizer, flags);
  std::cout.write(result.data(), static_cast<std::streamsize>(result.size()));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Maps text on standard input to token ids on standard output, or ids to text.", "tokenize");
  TokenizeFlags flags;
  add_options(app, flags);
  return run_program(app, argc, argv, [&] { tokenize(flags); });
}
