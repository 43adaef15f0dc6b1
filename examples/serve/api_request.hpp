// SPDX-License-Identifier: Apache-2.0
/// @file
/// Reads the bodies of `/v1/completions` and `/v1/chat/completions`: strict JSON, every field typed and ranged.
#pragma once

#include "mor/core/types.hpp"
#include "mor/infer/request.hpp"
#include "mor/io/tokenizer.hpp"
#include "serve/api_error.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace examples::serve {

/// What the server needs to know of its model.
struct ServedModel {
  std::string name;
  mor::Index context = 0;  ///< tokens of prompt and answer together
  mor::Index vocabulary = 0;
  mor::Index recursions = 1;
  std::optional<mor::Token> end_token;
  std::int64_t created = 0;  ///< seconds since 1970
};

/// A request that has been understood.
struct ApiRequest {
  bool chat = false, stream = false, include_usage = false, echo = false, log_probabilities = false;
  mor::infer::Request generation;
  std::string prompt_text;        ///< of the prompt's tokens, for `echo`
  std::vector<std::string> stop;  ///< in a chat also the turn of the user
};

/// @param chat  `messages` instead of `prompt`, and the other names that the chat endpoint has
/// @throws ApiError with status 400, or 404 for another model, naming the field
[[nodiscard]] ApiRequest parse_request(std::string_view body, bool chat, ServedModel const& model,
                                       mor::io::Tokenizer const& tokenizer);

/// The bytes of a generated token: none for a special token, U+FFFD for an id that only the model knows.
[[nodiscard]] std::string_view token_bytes(mor::io::Tokenizer const& tokenizer, mor::Token token);

}  // namespace examples::serve
