// SPDX-License-Identifier: Apache-2.0
/// @file
/// Generation of one sequence: chunked prefill, then one token at a time.
#pragma once

#include "mor/core/batch.hpp"
#include "mor/core/config.hpp"
#include "mor/core/sampling.hpp"
#include "mor/core/view.hpp"
#include "mor/infer/request.hpp"
#include "mor/infer/sampler.hpp"

#include <algorithm>
#include <concepts>
#include <type_traits>
#include <optional>
#include <span>
#include <vector>

namespace mor::infer {

/// One generation.
struct GenerationRequest {
  std::vector<Token> prompt = {};            ///< at least one token
  Index max_new_tokens = 64;
  SamplingParams sampling = {};
  RoutingMode mode = RoutingMode::Threshold;
  Index prefill_chunk = 512;            ///< prompt tokens processed in one call
  std::optional<Token> end_token = {};       ///< stops after this token
  bool last_depth = true;               ///< run the last token through the model too, to learn its depth
};

/// A token of the text, with the recursions that the model took on it when it was read.
struct GeneratedToken {
  Token token = 0;
  Row depth = 0;                 ///< 0 where it was never read: the last token, without `last_depth`
  double log_probability = 0.0;  ///< 0 for prompt tokens
  bool prompt = false;
};

/// Sequence data for calls with one sequence; reused between calls.
class SingleSequence {
 public:
  /// A batch of `tokens` at positions `first`, `first` + 1, ...
  Batch operator()(std::span<Token const> tokens, Index first) {
    positions_.clear();
    for (std::size_t i = 0; i < tokens.size(); ++i) positions_.push_back(static_cast<Row>(first + static_cast<Index>(i)));
    offsets_ = {0, static_cast<Row>(tokens.size())};
    return {tokens, positions_, offsets_};
  }

 private:
  std::vector<Row> positions_;
  std::vector<Row> offsets_;
};

/// One token where the logits [1, V] are, in the backend's arena: nothing but the token and its probability comes back.
template <class B>
[[nodiscard]] Sample sample_one(B& backend, View<typename B::real_type const> logits, SamplingRule const& rule,
                                std::span<Token const> history) {
  using Real = typename B::real_type;
  auto const tokens = backend.arena().template allocate<Token>(1);
  auto const log_probabilities = backend.arena().template allocate<Real>(1);
  backend.sample(logits, backend.upload(std::span<SamplingRule const>(&rule, 1)), backend.upload(history), tokens,
                 log_probabilities);
  Token token = 0;
  Real log_probability = 0;
  backend.download(std::span<Token const>(tokens), std::span<Token>(&token, 1));
  backend.download(std::span<Real const>(log_probabilities), std::span<Real>(&log_probability, 1));
  check_sampled(token, 0);
  return {token, static_cast<double>(log_probability)};
}

/// Generates and calls `on_token(GeneratedToken)` for each prompt token and each new token, in order. The callback returns
/// false to stop. A token is reported after the model has read it, so that its depth is known.
///
/// Throws InvalidArgument for an empty prompt or one that does not fit `max_position_embeddings`.
template <class Model, class OnToken>
  requires std::convertible_to<std::invoke_result_t<OnToken, GeneratedToken const&>, bool>
FinishReason generate(Model& model, GenerationRequest const& request, OnToken&& on_token) {
  using Real = typename Model::Real;
  auto const& transformer = model.config().transformer;
  Index const context = transformer.max_position_embeddings;
  Index const prompt_size = static_cast<Index>(request.prompt.size());
  if (prompt_size == 0) fail(ErrorCode::InvalidArgument, "the prompt is empty", "generate", "at least one token", "0");
  if (prompt_size > context) {
    fail(ErrorCode::InvalidArgument, "the prompt is longer than the model's context", "generate",
         "at most " + text_of(context) + " tokens", text_of(prompt_size));
  }
  require(request.prefill_chunk > 0, "prefill_chunk must be positive", "generate");
  request.sampling.check();
  bool const penalty = request.sampling.repetition_penalty != 1.0;
  auto cache = model.make_cache(1, prompt_size + std::clamp<Index>(request.max_new_tokens, 0, context - prompt_size));
  SingleSequence sequence;
  std::vector<Token> text = request.prompt;
  View<Real const> logits;
  auto const read = [&](Index first, Index count) {
    auto const part = std::span<Token const>(text).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
    logits = model.advance(sequence(part, first), cache, request.mode);
    return model.depths();
  };
  for (Index first = 0; first < prompt_size; first += request.prefill_chunk) {
    Index const count = std::min(request.prefill_chunk, prompt_size - first);
    auto const depths = read(first, count);
    for (Index i = 0; i < count; ++i) {
      auto const token = text[static_cast<std::size_t>(first + i)];
      if (!on_token(GeneratedToken{token, depths[static_cast<std::size_t>(i)], 0.0, true})) return FinishReason::Stopped;
    }
  }
  for (Index made = 0; made < request.max_new_tokens; ++made) {
    Index const position = static_cast<Index>(text.size());
    if (position >= context) return FinishReason::ContextFull;
    auto const seen = std::span<Token const>(text).first(penalty ? text.size() : 0);
    auto const rule = request.sampling.rule(static_cast<std::uint64_t>(position), 0, static_cast<Row>(seen.size()));
    auto const sample = sample_one(model.backend(), logits, rule, seen);
    text.push_back(sample.token);
    bool const end = request.end_token && sample.token == *request.end_token;
    bool const last = end || made + 1 == request.max_new_tokens;
    GeneratedToken generated{sample.token, 0, sample.log_probability, false};
    if (!last || request.last_depth) generated.depth = read(position, 1).front();
    if (!on_token(generated)) return FinishReason::Stopped;
    if (end) return FinishReason::EndToken;
  }
  return FinishReason::Length;
}

}  // namespace mor::infer
