// SPDX-License-Identifier: Apache-2.0
/// @file
/// Fuzzing of `tokenizer.json`: any text is a tokenizer that can encode, or a mor::error. What is accepted is read back
/// equal after writing.
#include "mor/io/tokenizer.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  std::optional<mor::io::Tokenizer> tokenizer;
  try {
    tokenizer.emplace(
        mor::io::parse_tokenizer_json(std::string_view(reinterpret_cast<char const*>(data), size), "fuzz"));
  } catch (mor::error const& problem) {
    if (!std::string_view(problem.what()).starts_with("fuzz")) std::abort();  // each refusal names the file
    return 0;
  }
  auto const ids = tokenizer->encode("ab a <s>\xC3\xA9\xFF the<|endoftext|> 12");
  if (tokenizer->decode(ids).size() > ids.size() * mor::io::max_token_bytes) std::abort();
  std::string const written = mor::io::format_tokenizer_json(tokenizer->model());
  if (!(mor::io::parse_tokenizer_json(written, "again") == tokenizer->model())) std::abort();
  return 0;
}
