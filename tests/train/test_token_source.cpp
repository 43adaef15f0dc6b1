// SPDX-License-Identifier: Apache-2.0
#include "mor/train/token_source.hpp"

#include "support/catch.hpp"
#include "support/failure.hpp"
#include "support/temporary_folder.hpp"
#include "train/file_bytes.hpp"

#include <cmath>
#include <filesystem>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

namespace {

using mor::ErrorCode;
using mor::Index;
using mor::Token;
using mor::test::fails_with;
using mor::train::TokenSource;

std::vector<Token> range(Token first, Token last) {
  std::vector<Token> tokens(static_cast<std::size_t>(last - first));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

std::vector<Token> part(TokenSource const& source, Index first, Index count) {
  std::vector<Token> tokens(static_cast<std::size_t>(count));
  source.copy(first, tokens);
  return tokens;
}

TEST_CASE("several shards of both widths, empty ones too, read like one array") {
  mor::test::TemporaryFolder const folder;
  std::vector<std::filesystem::path> paths;
  Token next = 0;
  for (Token const size : {5, 0, 1, 0, 0, 7, 3, 0}) {
    paths.push_back(folder / (std::to_string(paths.size()) + ".bin"));
    Index const vocab = paths.size() % 2 == 0 ? 100 : 100000;
    mor::train::write_token_shard(paths.back(), range(next, next + size), vocab);
    next += size;
  }
  TokenSource const source = TokenSource::from_shards(paths, 100);
  REQUIRE(source.size() == 16);
  for (Token first = 0; first <= 16; ++first) {
    for (Token last = first; last <= 16; ++last) REQUIRE(part(source, first, last - first) == range(first, last));
  }
  TokenSource const inner = source.slice(3, 14).slice(1, 10);
  REQUIRE(inner.size() == 9);
  for (Token first = 0; first <= 9; ++first) REQUIRE(part(inner, first, 9 - first) == range(4 + first, 13));
}

TEST_CASE("a slice outlives the source it was cut from") {
  TokenSource kept = TokenSource::from_tokens({0}, 1);
  {
    TokenSource const whole = TokenSource::from_tokens(range(0, 50), 50);
    kept = whole.slice(10, 20);
  }
  REQUIRE(part(kept, 0, 10) == range(10, 20));
}

TEST_CASE("a text file passes through the caller's tokenizer") {
  mor::test::TemporaryFolder const folder;
  mor::test::write_bytes(folder / "text.txt", std::string("ab\0c", 4));
  auto const encode = [](std::string_view text) { return std::vector<Token>(text.begin(), text.end()); };
  TokenSource const source = TokenSource::from_text(folder / "text.txt", encode, 256);
  REQUIRE(part(source, 0, 4) == std::vector<Token>{'a', 'b', 0, 'c'});
  REQUIRE(fails_with(
      ErrorCode::InvalidArgument, [&] { static_cast<void>(TokenSource::from_text(folder / "text.txt", encode, 99)); },
      "text.txt: token 3", "0 to 98", "got 99"));
}

TEST_CASE("the split keeps the end for validation and loses nothing") {
  for (Index const size : {Index{0}, Index{1}, Index{10}, Index{999}, Index{1003854}}) {
    std::vector<Token> const tokens(static_cast<std::size_t>(size), 1);
    TokenSource const source = TokenSource::from_tokens(tokens, 2);
    for (double const fraction : {0.0, 0.05, 0.1, 0.5, 0.999}) {
      auto const [training, validation] = mor::train::split_tokens(source, fraction);
      REQUIRE(training.size() + validation.size() == size);
      REQUIRE(std::abs(static_cast<double>(validation.size()) - fraction * static_cast<double>(size)) <= 1.0);
    }
  }
  auto const [training, validation] = mor::train::split_tokens(TokenSource::from_tokens(range(0, 20), 20), 0.1);
  REQUIRE(part(training, 0, 18) == range(0, 18));
  REQUIRE(part(validation, 0, 2) == range(18, 20));
}

TEST_CASE("impossible sources, slices, reads and splits are refused with the numbers") {
  TokenSource const source = TokenSource::from_tokens(range(0, 10), 10);
  std::vector<Token> out(4);
  CHECK(fails_with(ErrorCode::InvalidArgument, [] { static_cast<void>(TokenSource::from_tokens({0}, 0)); }, "got 0"));
  auto const negative = [] { static_cast<void>(TokenSource::from_tokens({0, -1}, 5)); };
  CHECK(fails_with(ErrorCode::InvalidArgument, negative, "token 1", "got -1"));
  CHECK(fails_with(ErrorCode::InvalidArgument, [&] { source.copy(7, out); }, "at most 10", "7 + 4"));
  CHECK(fails_with(ErrorCode::InvalidArgument, [&] { source.copy(-1, out); }));
  CHECK(fails_with(ErrorCode::InvalidArgument, [&] { static_cast<void>(source.slice(5, 11)); }, "last 11"));
  CHECK(fails_with(ErrorCode::InvalidArgument, [&] { static_cast<void>(source.slice(5, 4)); }));
  for (double const fraction : {-0.1, 1.0, 2.0, std::nan("")}) {
    CHECK(fails_with(ErrorCode::InvalidArgument,
                     [&] { static_cast<void>(mor::train::split_tokens(source, fraction)); }, "validation_fraction"));
  }
}

}  // namespace
