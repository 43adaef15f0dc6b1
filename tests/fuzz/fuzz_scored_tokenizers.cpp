// SPDX-License-Identifier: Apache-2.0
/// @file
/// Fuzzing of vocabularies with scores, llama2.c's tok.bin and SentencePiece's tokenizer.model: any bytes are a
/// tokenizer that can encode, or a mor::error. The first byte says which format the others are read as; odd values put
/// the bytes after a valid beginning, so that short inputs reach the pieces.
#include "io/scored_files.hpp"
#include "mor/io/tokenizer.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  using namespace scored_files;
  static std::string const tok_bin_head = tok_bin({});
  static std::string const model_head = sentencepiece_model({{" ", -1}});
  if (size == 0) return 0;
  bool const as_model = (data[0] & 2U) != 0;
  std::string bytes;
  if ((data[0] & 1U) != 0) bytes = as_model ? model_head : tok_bin_head;
  bytes.append(reinterpret_cast<char const*>(data) + 1, size - 1);
  std::optional<mor::io::Tokenizer> tokenizer;
  try {
    tokenizer.emplace(as_model ? mor::io::parse_sentencepiece_model(bytes, "fuzz")
                               : mor::io::parse_llama2c_tokenizer(bytes, "fuzz"));
  } catch (mor::error const& problem) {
    if (!std::string_view(problem.what()).starts_with("fuzz")) std::abort();  // each refusal names the file
    return 0;
  }
  std::string const text = "ab a <s>\xC3\xA9\xFF the 12";
  auto const ids = tokenizer->encode(text, mor::io::SpecialInput::PlainText);
  // The text after a piece that the model's author defined gets a space of its own, as in Hugging Face's tokenizers.
  auto const& added = tokenizer->model().added;
  bool const whole = std::all_of(added.begin(), added.end(), [](mor::io::AddedToken const& token) { return token.special; });
  bool const restores = whole && tokenizer->model().spaces.prefix == mor::io::SpacePrefix::Always &&
                        tokenizer->model().byte_tokens[0] != mor::io::TokenizerModel::no_token;
  if (restores && tokenizer->decode(ids) != text) std::abort();
  return 0;
}
