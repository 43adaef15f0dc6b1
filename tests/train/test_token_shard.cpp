// SPDX-License-Identifier: Apache-2.0
#include "mor/train/token_shard.hpp"

#include "mor/train/token_source.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"
#include "support/temporary_folder.hpp"
#include "train/file_bytes.hpp"

#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

namespace {

using mor::ErrorCode;
using mor::Index;
using mor::Token;
using mor::test::fails_with;
using mor::test::TemporaryFolder;
using mor::test::write_bytes;
using mor::train::TokenShard;
using mor::train::TokenSource;

std::vector<Token> counting_tokens(Index count, Index vocab) {
  std::vector<Token> tokens;
  for (Index i = 0; i < count; ++i) tokens.push_back(static_cast<Token>(i * 7919 % vocab));
  return tokens;
}

/// A header as llm.c writes it.
std::string header(std::int32_t magic, std::int32_t version, std::int32_t count) {
  std::array<std::int32_t, 256> fields{};
  fields[0] = magic;
  fields[1] = version;
  fields[2] = count;
  return {reinterpret_cast<char const*>(fields.data()), sizeof(fields)};
}

template <class Stored>
std::string bytes_of(std::vector<Stored> const& tokens) {
  return {reinterpret_cast<char const*>(tokens.data()), tokens.size() * sizeof(Stored)};
}

std::vector<Token> all_tokens(TokenSource const& source) {
  std::vector<Token> tokens(static_cast<std::size_t>(source.size()));
  source.copy(0, tokens);
  return tokens;
}

TEST_CASE("shards come back as they were written, two bytes a token where the vocabulary allows it") {
  TemporaryFolder const folder;
  for (Index const vocab : {Index{256}, Index{50257}, Index{65536}, Index{65537}, Index{128256}}) {
    for (Index const count : {Index{0}, Index{1}, Index{999}, Index{200000}}) {
      std::vector<Token> const tokens = counting_tokens(count, vocab);
      std::filesystem::path const path = folder / "shard.bin";
      mor::train::write_token_shard(path, tokens, vocab);
      TokenShard const shard(path);
      REQUIRE(shard.size() == count);
      REQUIRE(shard.format() == (vocab <= 65536 ? mor::train::kUint16Shard : mor::train::kUint32Shard));
      std::vector<std::filesystem::path> const paths = {path};
      REQUIRE(all_tokens(TokenSource::from_shards(paths, vocab)) == tokens);
    }
  }
  REQUIRE(folder.count() == 1);  // no temporary files stay behind
}

TEST_CASE("a shard's bytes are llm.c's") {
  TemporaryFolder const folder;
  std::vector<Token> const tokens = {0, 1, 50256, 50000};
  mor::train::write_token_shard(folder / "two.bin", tokens, 50257);
  REQUIRE(mor::test::read_bytes(folder / "two.bin") ==
          header(20240520, 1, 4) + bytes_of<std::uint16_t>({0, 1, 50256, 50000}));
  mor::train::write_token_shard(folder / "four.bin", tokens, 128256);
  REQUIRE(mor::test::read_bytes(folder / "four.bin") ==
          header(20240801, 7, 4) + bytes_of<std::uint32_t>({0, 1, 50256, 50000}));
}

TEST_CASE("unused header fields may hold anything") {
  TemporaryFolder const folder;
  std::string bytes = header(20240520, 1, 2) + bytes_of<std::uint16_t>({3, 4});
  for (std::size_t i = 12; i < 1024; ++i) bytes[i] = static_cast<char>(i);
  write_bytes(folder / "shard.bin", bytes);
  REQUIRE(TokenShard(folder / "shard.bin").size() == 2);
}

TEST_CASE("a malformed shard is refused with its file, the field, what was expected and what was found") {
  TemporaryFolder const folder;
  std::string const two = bytes_of<std::uint16_t>({1, 2, 3, 4}), four = bytes_of<std::uint32_t>({1, 2, 3, 4});
  struct Case {
    char const* reason;
    std::string bytes;
    std::vector<std::string> parts;
  };
  auto const swapped = [](std::int32_t value) {
    return static_cast<std::int32_t>(__builtin_bswap32(static_cast<std::uint32_t>(value)));
  };
  std::vector<Case> const cases = {
      {"empty file", "", {"file size", "1024 bytes", "got 0 bytes"}},
      {"one byte", "x", {"file size", "got 1 bytes"}},
      {"header cut by one byte", header(20240520, 1, 0).substr(0, 1023), {"file size", "got 1023 bytes"}},
      {"no magic", header(0, 1, 4) + two, {"header[0] (magic)", "20240520 or 20240801", "got 0"}},
      {"magic off by one", header(20240521, 1, 4) + two, {"header[0] (magic)", "got 20240521"}},
      {"magic in the other byte order", header(swapped(20240520), 1, 4) + two, {"header[0] (magic)"}},
      {"text instead of a shard", std::string(5000, 'a'), {"header[0] (magic)"}},
      {"next version of the 16-bit format", header(20240520, 2, 4) + two, {"header[1] (version)", "expected 1, got 2"}},
      {"16-bit magic with the 32-bit version", header(20240520, 7, 4) + two, {"header[1]", "expected 1, got 7"}},
      {"32-bit magic with the 16-bit version", header(20240801, 1, 4) + four, {"header[1]", "expected 7, got 1"}},
      {"version zero", header(20240801, 0, 4) + four, {"header[1] (version)", "got 0"}},
      {"negative count", header(20240520, 1, -1) + two, {"header[2] (token count)", "got -1"}},
      {"smallest count", header(20240520, 1, std::numeric_limits<std::int32_t>::min()) + two, {"header[2]"}},
      {"count one too high", header(20240520, 1, 5) + two, {"file size", "1034 bytes for 5 tokens", "1032 bytes"}},
      {"count one too low", header(20240520, 1, 3) + two, {"file size", "1030 bytes for 3 tokens", "1032 bytes"}},
      {"largest count", header(20240801, 7, std::numeric_limits<std::int32_t>::max()) + four,
       {"file size", "8589935612 bytes"}},
      {"half a token at the end", header(20240520, 1, 4) + two + "x", {"file size", "got 1033 bytes"}},
      {"last byte missing", (header(20240801, 7, 4) + four).substr(0, 1039), {"file size", "got 1039 bytes"}},
      {"16-bit tokens under a 32-bit header", header(20240801, 7, 4) + two, {"file size", "1040 bytes", "1032 bytes"}},
      {"32-bit tokens under a 16-bit header", header(20240520, 1, 4) + four, {"file size", "1032 bytes", "1040 bytes"}},
      {"header without tokens", header(20240520, 1, 4), {"file size", "got 1024 bytes"}},
  };
  for (Case const& test : cases) {
    INFO(test.reason);
    std::filesystem::path const path = folder / "bad.bin";
    write_bytes(path, test.bytes);
    auto const failure = mor::test::failure_of([&] { TokenShard shard(path); });
    REQUIRE(failure);
    INFO(failure->message);
    CHECK(failure->code == ErrorCode::MalformedFile);
    CHECK(failure->message.find("bad.bin") != std::string::npos);
    for (std::string const& part : test.parts) CHECK(failure->message.find(part) != std::string::npos);
  }
}

TEST_CASE("a missing shard and a folder are input errors") {
  TemporaryFolder const folder;
  CHECK(fails_with(ErrorCode::IoFailure, [&] { TokenShard shard(folder / "none.bin"); }, "none.bin"));
  CHECK(fails_with(ErrorCode::IoFailure, [&] { TokenShard shard(folder.path()); }, "regular file"));
}

TEST_CASE("an id outside the vocabulary is found when it is first touched, with its file and place") {
  TemporaryFolder const folder;
  auto const path = folder / "shard.bin";
  std::vector<std::filesystem::path> const paths = {path};
  std::vector<Token> out(3);
  for (std::size_t const bad : {std::size_t{0}, std::size_t{5}, std::size_t{9}}) {
    std::vector<std::uint16_t> tokens(10, 99);
    tokens[bad] = 100;
    write_bytes(path, header(20240520, 1, 10) + bytes_of(tokens));
    TokenSource const source = TokenSource::from_shards(paths, 100);
    for (Index first = 0; first + 3 <= 10; ++first) {
      bool const touched = first <= Index(bad) && Index(bad) < first + 3;
      bool const failed = fails_with(ErrorCode::MalformedFile, [&] { source.copy(first, out); }, path.string(),
                                     "token " + std::to_string(bad), "0 to 99", "got 100");
      REQUIRE(failed == touched);
    }
  }
  for (std::uint32_t const wide : {std::uint32_t{70000}, std::uint32_t{0x80000000}, std::uint32_t{0xffffffff}}) {
    write_bytes(path, header(20240801, 7, 3) + bytes_of<std::uint32_t>({1, wide, 2}));
    TokenSource const source = TokenSource::from_shards(paths, 70000);
    std::string const got = "got " + std::to_string(wide);
    REQUIRE(fails_with(ErrorCode::MalformedFile, [&] { source.copy(0, out); }, "token 1", got));
  }
}

TEST_CASE("writing refuses ids outside the vocabulary and leaves the old shard") {
  TemporaryFolder const folder;
  auto const path = folder / "shard.bin";
  std::vector<Token> const good = {1, 2, 3};
  mor::train::write_token_shard(path, good, 10);
  std::string const before = mor::test::read_bytes(path);
  for (Token const bad : {Token{10}, Token{-1}}) {
    std::vector<Token> const tokens = {1, bad};
    REQUIRE(fails_with(ErrorCode::InvalidArgument, [&] { mor::train::write_token_shard(path, tokens, 10); }, "token 1",
                       "0 to 9"));
  }
  REQUIRE(mor::test::read_bytes(path) == before);
}

}  // namespace
