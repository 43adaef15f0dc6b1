// SPDX-License-Identifier: Apache-2.0
/// @file
/// From an example to token ids: how contexts, continuations and few-shot examples are joined, and where the tokens of
/// the continuation begin.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/philox.hpp"
#include "mor/core/types.hpp"
#include "mor/eval/task.hpp"
#include "mor/io/tokenizer.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mor::eval {

struct PromptOptions {
  Index shots = 0;          ///< solved examples before the question
  std::uint64_t seed = 1;   ///< chooses them
  /// Between a context and its continuation. Nothing: a line `Answer: ` where the context begins with `Question:`, else
  /// a space.
  std::optional<std::string> delimiter;
};

namespace detail {

inline constexpr std::string_view kBlanks = " \t\r\n";

[[nodiscard]] inline std::string_view without_blank_end(std::string_view text) {
  return text.substr(0, text.find_last_not_of(kBlanks) + 1);
}
[[nodiscard]] inline std::string_view without_blank_begin(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of(kBlanks), text.size()));
}

/// Context and delimiter; what stands before a continuation. Nothing to delimit: nothing.
[[nodiscard]] inline std::string lead(std::string_view context, PromptOptions const& options) {
  std::string text(without_blank_end(context));
  if (text.empty()) return text;
  bool const question = without_blank_begin(text).starts_with("Question:");
  return text + options.delimiter.value_or(question ? "\nAnswer: " : " ");
}

}  // namespace detail

/// The continuation of an option as it is scored: without white space in front, which the delimiter provides. Its
/// length in bytes is what `acc_norm` divides by.
[[nodiscard]] inline std::string_view scored_text(TaskOption const& option) {
  return detail::without_blank_begin(option.continuation);
}

/// The examples that are shown before example `example`: distinct, in the order drawn, and never the example itself.
/// Depends on its arguments alone, so neither a limit nor the order of evaluation changes the choice.
/// @param pool     number of examples to choose from
/// @param exclude  index in the pool of the example itself, where it is one of them
/// @throws mor::error InvalidArgument when there are too few
[[nodiscard]] inline std::vector<Index> choose_shots(PromptOptions const& options, Index pool, Index example,
                                                     std::optional<Index> exclude) {
  Index const available = pool - (exclude ? 1 : 0);
  if (options.shots < 0 || options.shots > available) {
    fail(ErrorCode::InvalidArgument, "not as many examples to show", "shots", "0 to " + text_of(available),
         text_of(options.shots));
  }
  Philox const random{stream_key(options.seed, 0x73686f7473)};
  std::vector<Index> chosen;
  for (std::uint64_t draw = 0; static_cast<Index>(chosen.size()) < options.shots; ++draw) {
    auto const bits = random.block(draw, static_cast<std::uint64_t>(example));
    std::uint64_t const number = (static_cast<std::uint64_t>(bits[1]) << 32U) | bits[0];
    auto const index = static_cast<Index>(number % static_cast<std::uint64_t>(pool));
    bool const taken = std::find(chosen.begin(), chosen.end(), index) != chosen.end();
    if (!taken && index != exclude) chosen.push_back(index);
  }
  return chosen;
}

/// The solved examples as text, each followed by an empty line.
[[nodiscard]] inline std::string shots_text(std::vector<TaskExample> const& pool, std::vector<Index> const& chosen,
                                            PromptOptions const& options) {
  std::string text;
  for (Index const index : chosen) {
    TaskExample const& example = pool[static_cast<std::size_t>(index)];
    TaskOption const& right = example.options[static_cast<std::size_t>(example.gold)];
    text += detail::lead(right.context, options);
    text += scored_text(right);
    text += "\n\n";
  }
  return text;
}

/// Tokens to score: the log-likelihood of those from `context_tokens` on, given all before.
struct ScoreRequest {
  std::vector<Token> tokens;
  Index context_tokens = 0;  ///< at least 1, less than the number of tokens
};

/// Tokenises an option. Context and continuation are encoded together and split where the encoded context ends, as
/// lm-evaluation-harness does: the delimiter's white space belongs to the continuation, and a token that reaches across
/// belongs to the context, unless it is the last. The tokens that the tokenizer puts before a whole text come first;
/// where nothing else stands before the continuation, the end-of-text token does.
/// @param shots  text of the solved examples
/// @throws mor::error InvalidArgument when nothing can stand before the continuation of an empty context
[[nodiscard]] inline ScoreRequest make_request(io::Tokenizer const& tokenizer, std::string_view shots,
                                               TaskOption const& option, PromptOptions const& options) {
  std::string const before = std::string(shots) + detail::lead(option.context, options);
  std::string const context(detail::without_blank_end(before));
  std::string const whole = before + std::string(scored_text(option));
  auto const begin = tokenizer.begin_tokens();
  ScoreRequest request;
  request.tokens.assign(begin.begin(), begin.end());
  if (request.tokens.empty() && context.empty()) {
    auto const first = tokenizer.end_of_text_id();
    if (!first) {
      fail(ErrorCode::InvalidArgument, "the context is empty, and the tokenizer has no token that begins a text",
           "make_request");
    }
    request.tokens.push_back(*first);
  }
  auto const front = static_cast<Index>(request.tokens.size());
  auto const ids = tokenizer.encode(whole);
  if (ids.empty()) fail(ErrorCode::InvalidArgument, "the tokenizer has no token for this text", "make_request");
  request.tokens.insert(request.tokens.end(), ids.begin(), ids.end());
  Index const split = context.empty() ? 0 : static_cast<Index>(tokenizer.encode(context).size());
  Index const last = static_cast<Index>(request.tokens.size()) - 1;
  request.context_tokens = std::min(front + split, last);
  if (request.context_tokens < 1) {
    fail(ErrorCode::InvalidArgument, "no token stands before the continuation", "make_request");
  }
  return request;
}

}  // namespace mor::eval
