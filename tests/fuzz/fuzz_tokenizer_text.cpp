// SPDX-License-Identifier: Apache-2.0
/// @file
/// Fuzzing of encoding and decoding: the first byte chooses a tokenizer, the others are a text, and then token ids.
/// Text must come back, ids must lie in the vocabulary, and a stream must show the text of the whole.
#include "io/scored_files.hpp"
#include "mor/io/bpe_trainer.hpp"
#include "mor/io/stream_decoder.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace mor::io;
using mor::Token;

void demand(bool holds) {
  if (!holds) std::abort();
}

std::vector<Tokenizer> make_tokenizers() {
  std::string text = "the other gathered there, we've 1775 caf\xC3\xA9 \xE4\xB8\xAD\xE6\x96\x87 \xF0\x9F\xA6\x99\n\n  ";
  text += text + text;
  BpeTrainingOptions digits;
  digits.split.digits = DigitSplit::Individual;
  std::vector<Tokenizer> all = {Tokenizer::byte_level(), train_bpe(text, 330), train_bpe(text, 330, digits)};
  scored_files::Pieces const pieces = {{"he", -1}, {" t", -1}, {"the", -3}, {" the", -4}, {"  ", -5},       {" ", -6},
                                       {"t", -7},  {"h", -8},  {"e", -9},   {"o", -9},    {"\xC3\xA9", -11}};
  TokenizerModel model = parse_llama2c_tokenizer(scored_files::tok_bin(pieces), "tok.bin");
  for (SpacePrefix const prefix : {SpacePrefix::Always, SpacePrefix::None, SpacePrefix::Start, SpacePrefix::Pieces}) {
    for (bool const split : {false, true}) {
      model.spaces = {prefix, split, prefix == SpacePrefix::None ? SpaceStrip::None : SpaceStrip::One};
      model.ignore_merges = split;
      all.emplace_back(model);
    }
    // With a space in front of every piece this token is looked for with that space too, and takes it away.
    if (prefix == SpacePrefix::Always) model.added.push_back({262, " the", false, true});
  }
  model.byte_tokens.fill(TokenizerModel::no_token);
  all.emplace_back(model);
  model.fuse_unknown = true;
  model.spaces.strip = SpaceStrip::FirstToken;
  all.emplace_back(model);
  return all;
}

void check_stream(Tokenizer const& tokenizer, std::span<Token const> ids, SpecialOutput special) {
  StreamDecoder stream(tokenizer, StreamStart::Text, special);
  std::string joined;
  for (Token const id : ids) {
    std::string const piece = stream.push(id);
    demand(mor::valid_utf8(piece));
    joined += piece;
  }
  joined += stream.flush();
  demand(joined == mor::to_valid_utf8(tokenizer.decode(ids, special)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  static std::vector<Tokenizer> const tokenizers = make_tokenizers();
  if (size == 0) return 0;
  Tokenizer const& tokenizer = tokenizers[data[0] % tokenizers.size()];
  std::string_view const text(reinterpret_cast<char const*>(data) + 1, size - 1);
  SpaceRules const spaces = tokenizer.model().spaces;
  bool const has_bytes = tokenizer.model().byte_tokens[0] != TokenizerModel::no_token;
  for (SpecialInput const special : {SpecialInput::Parse, SpecialInput::PlainText}) {
    auto const ids = tokenizer.encode(text, special);
    for (Token const id : ids) demand(id >= 0 && id < tokenizer.vocab_size());
    bool const unchanged = has_bytes && text.find(space_mark) == text.npos &&
                           (spaces.prefix == SpacePrefix::None ||
                            (spaces.prefix == SpacePrefix::Always && special == SpecialInput::PlainText));
    if (tokenizer.is_lossless() || unchanged) demand(tokenizer.decode(ids) == text);
    check_stream(tokenizer, ids, SpecialOutput::Keep);
    check_stream(tokenizer, ids, SpecialOutput::Omit);
  }
  std::vector<Token> ids;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
    auto const number = static_cast<unsigned char>(text[i]) * 256U + static_cast<unsigned char>(text[i + 1]);
    ids.push_back(static_cast<Token>(number % static_cast<unsigned>(tokenizer.vocab_size())));
  }
  check_stream(tokenizer, ids, SpecialOutput::Keep);
  return 0;
}
