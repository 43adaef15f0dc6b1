// SPDX-License-Identifier: Apache-2.0
#include "mor/eval/prompt.hpp"

#include "support/catch.hpp"
#include "support/failure.hpp"

#include <algorithm>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace {

using mor::ErrorCode;
using mor::Index;
using mor::Token;
using mor::eval::choose_shots;
using mor::eval::make_request;
using mor::eval::PromptOptions;
using mor::eval::TaskExample;
using mor::eval::TaskOption;
using mor::io::Tokenizer;
using mor::test::fails_with;

PromptOptions with_shots(Index shots, std::uint64_t seed = 1) { return {shots, seed, std::nullopt}; }

/// Context and continuation of a request made with one token a byte.
std::pair<std::string, std::string> texts(TaskOption const& option, PromptOptions const& options = {},
                                          std::string const& shots = "") {
  Tokenizer const bytes = Tokenizer::byte_level();
  auto const request = make_request(bytes, shots, option, options);
  std::span<Token const> const tokens(request.tokens);
  auto const split = static_cast<std::size_t>(request.context_tokens);
  return {bytes.decode(tokens.first(split)), bytes.decode(tokens.subspan(split))};
}

using Texts = std::pair<std::string, std::string>;

TEST_CASE("a space joins context and continuation, and belongs to the continuation") {
  CHECK(texts({"She opened the", "door"}) == Texts("She opened the", " door"));
  CHECK(texts({"She opened the \n", " door."}) == Texts("She opened the", " door."));
}

TEST_CASE("a question is answered on a line of its own unless a delimiter is given") {
  CHECK(texts({"Question: Why?", "So."}) == Texts("Question: Why?\nAnswer:", " So."));
  CHECK(texts({"Question: Why?\n", "So."}) == Texts("Question: Why?\nAnswer:", " So."));
  PromptOptions options;
  options.delimiter = "";
  CHECK(texts({"Question: Why?", "So."}, options) == Texts("Question: Why?", "So."));
  options.delimiter = "\nA:";
  CHECK(texts({"Question: Why?", "So."}, options) == Texts("Question: Why?\nA:", "So."));
  options.delimiter = " ->\n ";
  CHECK(texts({"x", "y"}, options) == Texts("x ->", "\n y"));
}

TEST_CASE("an empty context stands behind the token that begins a text") {
  CHECK(texts({"", "door"}) == Texts("<|endoftext|>", "door"));
  CHECK(texts({" \n", "door"}) == Texts("<|endoftext|>", "door"));
  mor::io::TokenizerModel model = Tokenizer::byte_level().model();
  model.tokens.pop_back();
  model.added.clear();
  Tokenizer const bare(model);
  CHECK(fails_with(ErrorCode::InvalidArgument, [&] { (void)make_request(bare, "", {"", "x"}, {}); },
                   "the context is empty"));
}

TEST_CASE("the tokens that a tokenizer puts before a text come before the context") {
  mor::io::TokenizerModel model = Tokenizer::byte_level().model();
  model.begin = {256};
  auto const request = make_request(Tokenizer(model), "", {"ab", "c"}, {});
  CHECK(request.tokens == std::vector<Token>{256, 'a', 'b', ' ', 'c'});
  CHECK(request.context_tokens == 3);
}

TEST_CASE("a token across the joint belongs to the context, but one token is always scored") {
  mor::io::TokenizerModel model = Tokenizer::byte_level().model();
  auto const add = [&](Token left, Token right) {
    auto const id = static_cast<Token>(model.tokens.size());
    auto const text = [&](Token token) { return model.tokens[static_cast<std::size_t>(token)]; };
    model.tokens.push_back(text(left) + text(right));
    model.merges.push_back({left, right, id});
    return id;
  };
  Token const joined = add('a', 'b');
  PromptOptions options;
  options.delimiter = "";
  auto const request = make_request(Tokenizer(model), "", {"xa", "bc"}, options);
  CHECK(request.tokens == std::vector<Token>{'x', joined, 'c'});
  CHECK(request.context_tokens == 2);
  auto const swallowed = make_request(Tokenizer(model), "", {"xa", "b"}, options);
  CHECK(swallowed.tokens == std::vector<Token>{'x', joined});
  CHECK(swallowed.context_tokens == 1);
}

TEST_CASE("solved examples come first, each with its right answer and an empty line") {
  std::vector<TaskExample> const pool = {{{{"Question: A?", "no"}, {"Question: A?", "yes"}}, 1},
                                         {{{"the cat", "sat"}}, 0}};
  std::string const shots = mor::eval::shots_text(pool, {1, 0}, {});
  CHECK(shots == "the cat sat\n\nQuestion: A?\nAnswer: yes\n\n");
  CHECK(texts({"the dog", "ran"}, {}, shots) == Texts(shots + "the dog", " ran"));
}

TEST_CASE("shots are distinct, never the example itself, and decided by seed and example alone") {
  std::set<std::vector<Index>> seen;
  for (Index example = 0; example < 40; ++example) {
    auto const shots = choose_shots(with_shots(5), 8, example, example < 8 ? std::optional(example) : std::nullopt);
    std::set<Index> const distinct(shots.begin(), shots.end());
    REQUIRE(distinct.size() == 5);
    REQUIRE(*distinct.begin() >= 0);
    REQUIRE(*distinct.rbegin() < 8);
    if (example < 8) REQUIRE(!distinct.contains(example));
    REQUIRE(shots == choose_shots(with_shots(5), 8, example, example < 8 ? std::optional(example) : std::nullopt));
    seen.insert(shots);
  }
  CHECK(seen.size() > 35);
  CHECK(choose_shots(with_shots(5, 1), 100, 3, 3) != choose_shots(with_shots(5, 2), 100, 3, 3));
  // More shots begin with the fewer ones.
  auto const five = choose_shots(with_shots(5), 100, 3, 3), two = choose_shots(with_shots(2), 100, 3, 3);
  CHECK(std::equal(two.begin(), two.end(), five.begin()));
}

TEST_CASE("as many shots as there are other examples is the most") {
  CHECK(choose_shots(with_shots(7), 8, 0, 0).size() == 7);
  CHECK(choose_shots(with_shots(8), 8, 0, std::nullopt).size() == 8);
  CHECK(fails_with(ErrorCode::InvalidArgument, [] { (void)choose_shots(with_shots(8), 8, 0, 0); }, "0 to 7"));
  CHECK(fails_with(ErrorCode::InvalidArgument, [] { (void)choose_shots(with_shots(-1), 8, 0, 0); }, "0 to 7"));
}

}  // namespace
