// SPDX-License-Identifier: Apache-2.0
// decode(encode(x)) is x for a million byte strings and each tokenizer that loses nothing.
#include "io/gpt2_files.hpp"
#include "io/scored_files.hpp"
#include "mor/io/bpe_trainer.hpp"
#include "mor/io/tokenizer.hpp"
#include "support/catch.hpp"
#include "support/test_data.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using mor::io::SpecialInput;
using mor::io::Tokenizer;

namespace {

/// Byte strings of 0 to 40 bytes or so: words, pieces of UTF-8, special tokens whole and broken, runs, any bytes at
/// all.
class Strings {
 public:
  /// @param banned  what no string may hold
  explicit Strings(std::uint64_t seed, std::string_view banned = {}) : state_(seed), banned_(banned) {}

  std::string const& next() {
    do {
      text_.clear();
      for (std::uint64_t count = random() % 8; count > 0; --count) add_part();
    } while (!banned_.empty() && text_.find(banned_) != text_.npos);
    return text_;
  }

 private:
  std::uint64_t random() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return state_ >> 33;
  }
  void add_part() {
    static constexpr std::string_view parts[] = {" the",
                                                 "ing",
                                                 "'ll",
                                                 "\n",
                                                 "  ",
                                                 "42",
                                                 "x",
                                                 "\xE4\xB8\xAD",
                                                 "\xC3\xA9",
                                                 "\xF0\x9F\xA6\x99",
                                                 "\xF0\x9F",
                                                 "\xA6\x99",
                                                 "\xED\xA0\x80",
                                                 "\xC2\xA0",
                                                 "\xE2\x96\x81",
                                                 "\xE2\x96",
                                                 "<|endoftext|>",
                                                 "<|endof",
                                                 "|>",
                                                 "<s>",
                                                 "<0x41>",
                                                 "\r\n\t"};
    switch (random() % 4) {
      case 0: text_ += static_cast<char>(random() & 0xFF); break;
      case 1: text_.append(random() % 6, static_cast<char>(random() & 0xFF)); break;
      default: text_ += parts[random() % std::size(parts)];
    }
  }

  std::uint64_t state_;
  std::string banned_, text_;
};

/// How many of `count` strings do not come back.
std::size_t lost(Tokenizer const& tokenizer, std::size_t count, SpecialInput special, std::string_view banned = {}) {
  Strings strings(count, banned);
  std::size_t bad = 0;
  for (std::size_t i = 0; i < count; ++i) {
    std::string const& text = strings.next();
    bad += tokenizer.decode(tokenizer.encode(text, special)) != text;
  }
  return bad;
}

}  // namespace

TEST_CASE("a million byte strings come back from a trained byte-level tokenizer") {
  std::string text =
      "the other gathered there, we've 1775 caf\xC3\xA9s \xE4\xB8\xAD\xE6\x96\x87 \xF0\x9F\xA6\x99 singing\n\n  ";
  text += text + text;
  Tokenizer const tokenizer = mor::io::train_bpe(text, 340);
  REQUIRE(tokenizer.is_lossless());
  REQUIRE(lost(tokenizer, 1'000'000, SpecialInput::Parse) == 0);
}

TEST_CASE("a million byte strings without U+2581 come back from a tokenizer with byte fallback") {
  scored_files::Pieces const pieces = {{" t", -1}, {"he", -1}, {" the", -3}, {"in", -4}, {"ing", -5},       {"  ", -6},
                                       {" ", -7},  {"t", -8},  {"h", -9},    {"e", -10}, {"\xC3\xA9", -11}, {"i", -12},
                                       {"n", -13}, {"g", -14}, {"x ", -15},  {"x", -16}};
  Tokenizer const tokenizer(mor::io::parse_llama2c_tokenizer(scored_files::tok_bin(pieces), "tok.bin"));
  REQUIRE(lost(tokenizer, 1'000'000, SpecialInput::PlainText, "\xE2\x96\x81") == 0);
}

TEST_CASE("a million byte strings come back from GPT-2's tokenizer") {
  std::optional<std::filesystem::path> const data = mor::test::test_data();
  if (!data) SKIP("no test data: set MOR_TEST_DATA");
  Tokenizer const tokenizer(mor::test::gpt2_model(*data / "tokenizers" / "gpt2"));
  REQUIRE(lost(tokenizer, 1'000'000, SpecialInput::Parse) == 0);
}
