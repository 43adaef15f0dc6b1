// SPDX-License-Identifier: Apache-2.0
/// @file
/// Fuzzing of the server's requests: any body is a request within its bounds, or an ApiError of the client's (4xx). Of
/// one that is accepted, the prompt is then taken for generated text: what is shown of it, token by token, is that text
/// up to the first stop string, never more on the way.
#include "mor/core/utf8.hpp"
#include "serve/api_request.cpp"
#include "serve/token_text.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace examples::serve;

void expect(bool good) {
  if (!good) std::abort();
}

ServedModel const model{"fuzz", 4096, 300, 3, 256, 0};

void check_bounds(ApiRequest const& request) {
  auto const& generation = request.generation;
  generation.sampling.check();
  expect(!generation.prompt.empty() && generation.max_new_tokens >= 1);
  expect(static_cast<mor::Index>(generation.prompt.size()) + generation.max_new_tokens <= model.context);
  for (auto const token : generation.prompt) expect(token >= 0 && token < model.vocabulary);
  expect(generation.depth.min_depth >= 1 && generation.depth.min_depth <= model.recursions);
  expect(generation.depth.max_depth >= 0 && generation.depth.max_depth <= model.recursions);
  expect(request.stop.size() <= max_stop_strings + 1 && mor::valid_utf8(request.prompt_text));
}

/// The text before the stop string that is complete first; of several that are complete at once, the longest.
std::string cut(std::string const& text, std::vector<std::string> const& stop) {
  std::size_t end = std::string::npos, begin = text.size();
  for (auto const& word : stop) {
    auto const at = text.find(word);
    if (at == std::string::npos || at + word.size() > end) continue;
    begin = at + word.size() < end ? at : std::min(at, begin);
    end = at + word.size();
  }
  return text.substr(0, begin);
}

void check_text(ApiRequest const& request, mor::io::Tokenizer const& tokenizer) {
  std::string bytes;
  for (auto const token : request.generation.prompt) bytes += token_bytes(tokenizer, token);
  std::string const wanted = cut(mor::to_valid_utf8(bytes), request.stop);
  TokenText text(request.stop);
  std::string shown;
  auto const show = [&](std::vector<ShownToken> const& tokens) {
    for (auto const& token : tokens) shown += token.text;
    expect(wanted.starts_with(shown) && mor::valid_utf8(shown));
  };
  for (auto const token : request.generation.prompt) {
    if (text.stopped()) break;
    show(text.push({token, std::string(token_bytes(tokenizer, token)), 1, 0.0}));
  }
  show(text.finish());
  expect(shown == wanted);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  static auto const tokenizer = mor::io::Tokenizer::byte_level();
  std::string_view const body(reinterpret_cast<char const*>(data), size);
  for (bool const chat : {false, true}) {
    try {
      auto const request = parse_request(body, chat, model, tokenizer);
      check_bounds(request);
      check_text(request, tokenizer);
    } catch (ApiError const& error) {
      expect(error.status >= 400 && error.status < 500);
    }
  }
  return 0;
}
