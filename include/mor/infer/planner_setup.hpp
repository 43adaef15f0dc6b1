// SPDX-License-Identifier: Apache-2.0
/// @file
/// What the planner of a serving engine is told and what it asks for, as plain data; and which sizes and requests are refused.
#pragma once

#include "mor/core/serving_tables.hpp"
#include "mor/infer/engine_options.hpp"
#include "mor/infer/launch_sizes.hpp"
#include "mor/infer/request.hpp"
#include "mor/infer/sequence.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace mor::infer {

/// What a planner must know of a model and its storage.
struct PlannerSetup {
  ServingShape shape;
  Index block_lists = 1;       ///< recursions that keep key lists of their own
  Index block_pages = 0, end_pages = 0;
  bool has_ends = false;       ///< the model has layers outside the recursions
  Index vocab_size = 0;
  std::vector<double> survival;  ///< [Nr] expected share of tokens that enter each recursion, until it is measured
  bool full_depth = false;
  EngineOptions options;
};

/// A page whose first keys another list needs too: copied before the tick.
struct PageCopy {
  bool ends = false;
  Row from = 0, to = 0;
  Index keys = 0;
};

/// What the next tick has to do, as far as the host knows. Counts are upper bounds.
struct TickDemand {
  Index decoding = 0;        ///< rows of slots that decode
  Index prompt_rows = 0;     ///< rows of prompts in flight, those that enter included
  Index entering_prompt = 0;  ///< of these, the ones that have not entered
  Index due_prompt = 0;      ///< and those that take their last recursion now, or could have before
  Index loose_rows = 0;      ///< of all rows, those that may have left already: all but one of each prompt's
  Index ending_prompts = 0;  ///< chunks in flight whose last row makes a token
  Index rows_of_text = 0;    ///< of one text at the same time
  Index longest = 0;         ///< keys of a list at most
  [[nodiscard]] Index rows() const { return decoding + prompt_rows; }
};

/// Tables and rows of key storage are counted in 32 bits, and sizes of launches packed into one key.
inline void check_sizes(PlannerSetup const& setup) {
  auto const at_most = [](Index most, Index value, char const* what) {
    if (value <= most) return;
    fail(ErrorCode::InvalidArgument, "the engine would be too large", std::string("EngineOptions, ") + what,
         "at most " + text_of(most), text_of(value));
  };
  at_most(kMostLaunchRows, launch_size(setup.shape.cells()), "slots + prefill_rows, rounded up");
  at_most(kMostListKeys / 2, setup.shape.context, "context");
  constexpr Index words = std::numeric_limits<Row>::max();
  at_most(words, ServingTables{setup.shape, nullptr}.size(), "words for slots, context and page_size");
  at_most(words, std::max(setup.block_pages, setup.end_pages) * setup.shape.page_size, "tokens of key storage");
}

/// Tokens of a request's text at most.
[[nodiscard]] inline Index longest_text(PlannerSetup const& setup, Request const& request) {
  Index const prompt = static_cast<Index>(request.prompt.size());
  return prompt + std::min(request.max_new_tokens, setup.shape.context - prompt);
}

/// Throws InvalidArgument that names the field, or OutOfMemory where the text would not fit the key storage alone.
inline void check_request(PlannerSetup const& setup, PagePools const& pools, Request const& request) {
  auto const refuse = [](char const* what, char const* field, std::string const& expected, std::string const& got) {
    fail(ErrorCode::InvalidArgument, what, std::string("Engine::submit, ") + field, expected, got);
  };
  Index const size = static_cast<Index>(request.prompt.size()), depths = setup.shape.recursions;
  if (size == 0) refuse("the prompt is empty", "prompt", "at least one token", "0");
  if (size >= setup.shape.context) {
    refuse("the prompt leaves no room for a new token", "prompt", "at most " + text_of(setup.shape.context - 1) + " tokens", text_of(size));
  }
  for (Token const token : request.prompt) {
    if (token < 0 || token >= setup.vocab_size) {
      refuse("a token id is outside the vocabulary", "prompt", "0 .. " + text_of(setup.vocab_size - 1), text_of(token));
    }
  }
  if (request.max_new_tokens < 1) refuse("no token is asked for", "max_new_tokens", "1 or more", text_of(request.max_new_tokens));
  if (Token const end = request.end_token.value_or(0); end < 0 || end >= setup.vocab_size) {
    refuse("the end token is outside the vocabulary", "end_token", "0 .. " + text_of(setup.vocab_size - 1), text_of(end));
  }
  request.sampling.check();
  auto const& knobs = request.depth;
  if (std::isnan(knobs.threshold)) refuse("a depth knob is not a number", "threshold", "a number", "nan");
  if (knobs.min_depth < 1 || knobs.min_depth > depths) refuse("a depth knob is out of range", "min_depth", "1 .. " + text_of(depths), text_of(knobs.min_depth));
  if (knobs.max_depth != 0 && (knobs.max_depth < knobs.min_depth || knobs.max_depth > depths)) {
    refuse("a depth knob is out of range", "max_depth", "0, or min_depth .. " + text_of(depths), text_of(knobs.max_depth));
  }
  Index const pages = pools.pages_of(longest_text(setup, request));
  if (pages * setup.block_lists > pools.block.size() || (pools.has_ends && pages > pools.ends.size())) {
    fail(ErrorCode::OutOfMemory, "the text does not fit the key storage even alone", "Engine::submit",
         text_of(pages * setup.block_lists) + " pages", text_of(pools.block.size()));
  }
}

}  // namespace mor::infer
