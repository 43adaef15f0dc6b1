// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a client asks of a serving engine and what it gets back, as plain data.
#pragma once

#include "mor/core/types.hpp"
#include "mor/infer/sampler.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace mor::infer {

enum class FinishReason {
  Length,       ///< max_new_tokens were made
  EndToken,     ///< the end token was made
  Stopped,      ///< the caller asked to stop
  ContextFull,  ///< the text is as long as a sequence may be
  Cancelled,    ///< `Engine::cancel`
  NonFinite     ///< the model gave logits that are not numbers
};

using RequestId = std::uint64_t;

/// How long the model may think about each token of a request.
struct DepthKnobs {
  double threshold = 0.0;  ///< expert choice: a token goes on where its router logit is at least this; higher is cheaper
  Index min_depth = 1;     ///< recursions of every token at least
  Index max_depth = 0;     ///< at most; 0: all that the model has
  bool operator==(DepthKnobs const&) const = default;
};

/// One text to continue.
struct Request {
  std::vector<Token> prompt = {};            ///< at least one token
  SamplingParams sampling = {};
  Index max_new_tokens = 64;                 ///< at least 1
  std::optional<Token> end_token = {};       ///< the text ends with this token
  DepthKnobs depth = {};
};

enum class EventKind { Token, Finished };

/// News of a request. Of each request: its tokens in order of position, then `Finished`, once.
struct Event {
  RequestId request = 0;
  EventKind kind = EventKind::Token;
  Token token = 0;                 ///< Token: the new token
  Index position = 0;              ///< Token: its position; Finished: tokens of the text
  Row depth = 0;                   ///< Token: recursions that the model took on the token before, to predict this one
  double log_probability = 0.0;    ///< Token: under the unmodified model
  FinishReason reason = FinishReason::Length;  ///< Finished
  Index prompt_tokens = 0;         ///< Finished
  Index cost = 0;                  ///< Finished: recursions taken in all, prompt included
  std::span<Row const> depths = {};  ///< Finished: recursions of each token that was read; until the next `step`
};

}  // namespace mor::infer
