// SPDX-License-Identifier: Apache-2.0
#include "mor/io/bpe_trainer.hpp"
#include "mor/io/tokenizer.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

using mor::ErrorCode;
using mor::Index;
using mor::Token;
using mor::io::AddedToken;
using mor::io::BpeTrainingOptions;
using mor::io::DigitSplit;
using mor::io::Merge;
using mor::io::SpecialInput;
using mor::io::SpecialOutput;
using mor::io::Tokenizer;
using mor::io::TokenizerModel;
using mor::io::train_bpe;
using mor::test::fails_with;
using Ids = std::vector<Token>;

namespace {

/// A small English text with numbers, contractions, and characters of several bytes.
std::string const& english() {
  static std::string const text = [] {
    std::string const paragraph =
        "It was the best of times, it was the worst of times; it was the age of wisdom, and we've had 1775 of them.\n"
        "The other others gathered there, \"rather\" than neither: caf\xC3\xA9, na\xC3\xAFve, \xE4\xB8\xAD\xE6\x96\x87 "
        "\xF0\x9F\xA6\x99.\n\n    indented 3.14159 I'll they're\n";
    std::string all;
    for (int i = 0; i < 4; ++i) all += paragraph;
    return all;
  }();
  return text;
}

Tokenizer const& trained() {
  static Tokenizer const tokenizer = train_bpe(english(), 350);
  return tokenizer;
}

/// Random bytes of several kinds: any, letters, pieces of UTF-8, special tokens whole and broken, long runs.
std::string random_bytes(std::mt19937& random) {
  static std::vector<std::string> const parts = {
      "<|endoftext|>", "<|endof", "|>", " the", "'ll", "\n", "  ", "42", "x", "\xE4\xB8\xAD", "\xC3\xA9",
      "\xF0\x9F", "\xA6\x99", "\xED\xA0\x80", "\xC2\xA0"};
  std::string text;
  for (std::size_t count = random() % 12; count > 0; --count) {
    switch (random() % 4) {
      case 0: text += static_cast<char>(random() & 0xFF); break;
      case 1: text += std::string(random() % 9, static_cast<char>(random() & 0xFF)); break;
      default: text += parts[random() % parts.size()];
    }
  }
  return text;
}

/// Bytes 'a', 'b', ... as tokens 0, 1, ..., and the merges given by their texts.
TokenizerModel letters_model(std::size_t letters, std::vector<std::pair<std::string, std::string>> const& merges) {
  TokenizerModel model;
  model.byte_tokens.fill(TokenizerModel::no_token);
  std::map<std::string, Token> ids;
  auto const add = [&](std::string const& text) {
    auto const [place, is_new] = ids.emplace(text, static_cast<Token>(model.tokens.size()));
    if (is_new) model.tokens.push_back(text);
    return place->second;
  };
  for (std::size_t i = 0; i < letters; ++i) {
    std::string const letter(1, static_cast<char>('a' + i));
    model.byte_tokens[static_cast<unsigned char>(letter[0])] = add(letter);
  }
  for (auto const& [left, right] : merges) model.merges.push_back({ids.at(left), ids.at(right), add(left + right)});
  return model;
}

std::vector<std::string> pieces_of(Tokenizer const& tokenizer, std::string_view text) {
  std::vector<std::string> pieces;
  for (Token const id : tokenizer.encode(text)) pieces.emplace_back(tokenizer.token_bytes(id, SpecialOutput::Keep));
  return pieces;
}

/// Byte-pair encoding by its definition: look for the best pair, merge its leftmost occurrence, start again.
Ids encode_by_definition(TokenizerModel const& model, std::string_view word) {
  std::map<std::pair<Token, Token>, std::pair<std::size_t, Token>> ranks;
  for (std::size_t rank = 0; rank < model.merges.size(); ++rank) {
    ranks[{model.merges[rank].left, model.merges[rank].right}] = {rank, model.merges[rank].result};
  }
  Ids symbols;
  for (char const c : word) symbols.push_back(model.byte_tokens[static_cast<unsigned char>(c)]);
  for (;;) {
    std::size_t best = symbols.size(), best_rank = model.merges.size();
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      auto const found = ranks.find({symbols[i], symbols[i + 1]});
      if (found == ranks.end() || found->second.first >= best_rank) continue;
      best = i;
      best_rank = found->second.first;
    }
    if (best == symbols.size()) return symbols;
    symbols[best] = model.merges[best_rank].result;
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

/// Training by its definition: count all pairs anew for each merge. One word; new ids follow the 257 first ones.
std::vector<Merge> train_by_definition(std::vector<std::string> const& words, std::size_t merge_count,
                                       std::size_t longest) {
  std::vector<Ids> symbols;
  std::map<Token, std::string> texts;
  std::map<std::string, Token> ids;
  for (Token id = 1; id <= 256; ++id) ids[texts[id] = std::string(1, static_cast<char>(id - 1))] = id;
  for (std::string const& word : words) {
    symbols.emplace_back();
    for (char const c : word) symbols.back().push_back(ids.at(std::string(1, c)));
  }
  std::vector<Merge> merges;
  while (merges.size() < merge_count) {
    std::map<std::pair<Token, Token>, Index> counts;
    for (Ids const& word : symbols) {
      for (std::size_t i = 0; i + 1 < word.size(); ++i) ++counts[{word[i], word[i + 1]}];
    }
    std::pair<std::pair<Token, Token>, Index> best{{0, 0}, 1};
    for (auto const& entry : counts) {  // ascending by left id, then right id: the first of equals wins
      bool const fits = texts[entry.first.first].size() + texts[entry.first.second].size() <= longest;
      if (entry.second > best.second && fits) best = entry;
    }
    if (best.second < 2) break;
    auto const [left, right] = best.first;
    std::string const joined = texts[left] + texts[right];
    Token const result = ids.emplace(joined, static_cast<Token>(ids.size() + 1)).first->second;
    texts[result] = joined;
    merges.push_back({left, right, result});
    for (Ids& word : symbols) {
      for (std::size_t i = 0; i + 1 < word.size(); ++i) {
        if (word[i] != left || word[i + 1] != right) continue;
        word[i] = result;
        word.erase(word.begin() + static_cast<std::ptrdiff_t>(i) + 1);
      }
    }
  }
  return merges;
}

}  // namespace

TEST_CASE("the byte-level tokenizer needs no file and maps each byte to its value") {
  Tokenizer const tokenizer = Tokenizer::byte_level();
  REQUIRE(tokenizer.vocab_size() == 257);
  REQUIRE(tokenizer.end_of_text_id() == 256);
  REQUIRE(tokenizer.is_lossless());
  REQUIRE(tokenizer.encode("").empty());
  REQUIRE(tokenizer.encode("A\xFF") == Ids{0x41, 0xFF});
  REQUIRE(tokenizer.encode("a<|endoftext|>b") == Ids{'a', 256, 'b'});
  std::string every_byte;
  for (int byte = 0; byte < 256; ++byte) every_byte += static_cast<char>(byte);
  REQUIRE(tokenizer.decode(tokenizer.encode(every_byte)) == every_byte);
}

TEST_CASE("decode(encode(x)) is x for 20,000 fuzzed byte strings") {
  std::mt19937 random(1);
  Tokenizer const bytes = Tokenizer::byte_level();
  BpeTrainingOptions options;
  options.split.digits = DigitSplit::Individual;
  Tokenizer const digits = train_bpe(english(), 300, options);
  std::size_t lost = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string const text = random_bytes(random);
    lost += bytes.decode(bytes.encode(text)) != text;
    lost += trained().decode(trained().encode(text)) != text;
    lost += trained().decode(trained().encode(text, SpecialInput::PlainText)) != text;
    lost += digits.decode(digits.encode(text)) != text;
  }
  REQUIRE(lost == 0);
}

TEST_CASE("a BPE example computed by hand: lowest rank first, then leftmost") {
  Tokenizer const tokenizer(
      letters_model(16, {{"h", "e"}, {"l", "l"}, {"he", "ll"}, {"hell", "o"}, {"l", "o"}, {"o", "o"}}));
  REQUIRE(pieces_of(tokenizer, "hello") == std::vector<std::string>{"hello"});
  REQUIRE(pieces_of(tokenizer, "hell") == std::vector<std::string>{"hell"});
  REQUIRE(pieces_of(tokenizer, "helo") == std::vector<std::string>{"he", "lo"});
  REQUIRE(pieces_of(tokenizer, "lllo") == std::vector<std::string>{"ll", "lo"});
  REQUIRE(pieces_of(tokenizer, "ooo") == std::vector<std::string>{"oo", "o"});
  REQUIRE(pieces_of(tokenizer, "lloo") == std::vector<std::string>{"ll", "oo"});
  REQUIRE(pieces_of(tokenizer, "loo") == std::vector<std::string>{"lo", "o"});
}

TEST_CASE("a training example computed by hand, ties included") {
  // Words: "ab" once, " ab" and " cd" twice. Pairs: a b 3; then _ ab, _ c and c d with 2 each. The lowest left id is
  // that of the space, and c (100) lies below ab (257). Then _ ab (left 33) comes before _c d (left 258).
  Tokenizer const tokenizer = train_bpe("ab ab ab cd cd", 300);
  Token const space = ' ' + 1, a = 'a' + 1, b = 'b' + 1, c = 'c' + 1, d = 'd' + 1;
  REQUIRE(tokenizer.model().merges ==
          std::vector<Merge>{{a, b, 257}, {space, c, 258}, {space, 257, 259}, {258, d, 260}});
  REQUIRE(tokenizer.vocab_size() == 261);
  REQUIRE(tokenizer.end_of_text_id() == 0);
  REQUIRE(tokenizer.encode("ab cd<|endoftext|> abc") == Ids{257, 260, 0, 259, c});
}

TEST_CASE("training agrees with its definition on random words, runs of one letter included") {
  std::mt19937 random(3);
  for (int round = 0; round < 60; ++round) {
    std::vector<std::string> words;
    std::string text;
    std::size_t const letters = 1 + random() % 3;
    for (std::size_t count = 1 + random() % 8; count > 0; --count) {
      std::string word;
      for (std::size_t i = 1 + random() % 30; i > 0; --i) word += static_cast<char>('a' + random() % letters);
      text += word + "\n";  // the rule of GPT-2 makes "\n" a word of its own
      words.push_back(word);
      words.push_back("\n");
    }
    BpeTrainingOptions options;
    options.longest_token = 12;
    Tokenizer const tokenizer = train_bpe(text, 300, options);
    std::size_t const count = tokenizer.model().merges.size();
    REQUIRE(tokenizer.model().merges == train_by_definition(words, std::max<std::size_t>(count, 1), 12));
  }
}

TEST_CASE("encoding agrees with its definition for short and for long words") {
  std::mt19937 random(5);
  BpeTrainingOptions options;
  options.longest_token = 40;
  std::string text;
  for (int i = 0; i < 3000; ++i) text += static_cast<char>(random() % 9 == 0 ? '\n' : 'a' + random() % 3);
  Tokenizer const tokenizer = train_bpe(text, 500, options);
  REQUIRE(tokenizer.vocab_size() > 380);
  for (int round = 0; round < 400; ++round) {
    std::string word(1 + random() % 200, 'a');
    std::size_t const letters = 1 + random() % 3;
    for (char& c : word) c = static_cast<char>('a' + random() % letters);
    REQUIRE(tokenizer.encode(word) == encode_by_definition(tokenizer.model(), word));
  }
}

TEST_CASE("a word of one megabyte is encoded and trained on without quadratic time") {
  auto const start = std::chrono::steady_clock::now();
  std::mt19937 random(2);
  std::string word(1 << 20, 'a');
  for (char& c : word) c = static_cast<char>('a' + random() % 20);
  for (std::string const& text : {word, std::string(1 << 20, 'e'), std::string(1 << 20, ' ')}) {
    REQUIRE(trained().decode(trained().encode(text)) == text);
  }
  REQUIRE(train_bpe(word, 300).vocab_size() == 300);
  // Quadratic time would be hours; the bound only has to allow for sanitizers and busy machines.
  REQUIRE(std::chrono::steady_clock::now() - start < std::chrono::seconds(60));
}

TEST_CASE("a repeated word gets the same tokens as a new one") {
  std::string text;
  std::mt19937 random(4);
  std::vector<std::string> const words = {" other", " times", "the", "\n", " worst", " it's", " \xC3\xA9\xC3\xA9", "7"};
  for (int i = 0; i < 2000; ++i) text += words[random() % words.size()];
  REQUIRE(text.size() > 5000);
  Ids piecewise;
  mor::io::split_text(text, trained().model().split, [&](std::string_view word) {
    Ids const ids = trained().encode(word);
    piecewise.insert(piecewise.end(), ids.begin(), ids.end());
  });
  REQUIRE(trained().encode(text) == piecewise);
}

TEST_CASE("training is reproducible and learns nothing across words or documents") {
  REQUIRE(train_bpe(english(), 350).model() == trained().model());
  REQUIRE(trained().vocab_size() == 350);
  Tokenizer const tokenizer = train_bpe("xy<|endoftext|>xy<|endoftext|>xy", 400);
  REQUIRE(tokenizer.vocab_size() == 258);  // only x y repeats within a document
  REQUIRE(tokenizer.token_bytes(257) == "xy");
  for (Token id = 0; id < 256; ++id) REQUIRE(trained().token_bytes(id + 1) == std::string(1, static_cast<char>(id)));
}

TEST_CASE("training refuses impossible sizes and says which are possible") {
  REQUIRE(train_bpe("", 257).vocab_size() == 257);
  REQUIRE(fails_with(
      ErrorCode::InvalidArgument, [] { (void)train_bpe("text", 256); }, "vocab_size", "257", "256"));
  REQUIRE(fails_with(
      ErrorCode::InvalidArgument, [] { (void)train_bpe("text", 1'000'001); }, "vocab_size", "1000000"));
  BpeTrainingOptions options;
  options.longest_token = 5000;
  REQUIRE(fails_with(
      ErrorCode::InvalidArgument, [&] { (void)train_bpe("text", 300, options); }, "longest_token", "4096"));
}

TEST_CASE("special tokens are found first, the leftmost and longest, and can be treated as text") {
  TokenizerModel model = Tokenizer::byte_level().model();
  auto const add = [&](std::string const& text, bool special, bool normalized) {
    model.added.push_back({static_cast<Token>(model.tokens.size()), text, special, normalized});
    model.tokens.push_back(text);
  };
  add("<|end", true, false);      // 257
  add("word", false, false);      // 258
  add("<|endo|>", true, false);   // 259
  add("o|>x", false, true);       // 260: in the second pass
  Tokenizer const tokenizer{TokenizerModel(model)};
  REQUIRE(tokenizer.encode("<|endoftext|>") == Ids{256});
  REQUIRE(tokenizer.encode("<|endo|>x") == Ids{259, 'x'});
  REQUIRE(tokenizer.encode("<|endoftex") == Ids{257, 'o', 'f', 't', 'e', 'x'});
  REQUIRE(tokenizer.encode("swords") == Ids{'s', 258, 's'});
  REQUIRE(tokenizer.encode("wo|>x") == Ids{'w', 260});
  REQUIRE(tokenizer.encode("<|end", SpecialInput::PlainText) == Ids{'<', '|', 'e', 'n', 'd'});
  REQUIRE(tokenizer.encode("<|endo|>x word", SpecialInput::PlainText) == Ids{'<', '|', 'e', 'n', 'd', 260, ' ', 258});
  REQUIRE(tokenizer.added_token_id("<|endo|>") == 259);
  REQUIRE_FALSE(tokenizer.added_token_id("nothing").has_value());

  Ids const ids = {'a', 256, 258, 'b'};
  REQUIRE(tokenizer.decode(ids) == "a<|endoftext|>wordb");
  REQUIRE(tokenizer.decode(ids, SpecialOutput::Omit) == "awordb");
  REQUIRE(tokenizer.token_bytes(256).empty());
  REQUIRE(tokenizer.token_bytes(256, SpecialOutput::Keep) == "<|endoftext|>");
  REQUIRE(tokenizer.token_bytes(258) == "word");
}

TEST_CASE("ids outside the vocabulary are refused with the range") {
  Tokenizer const tokenizer = Tokenizer::byte_level();
  for (Token const id : {-1, 257, 1 << 30}) {
    Ids const ids = {65, id};
    REQUIRE(fails_with(
        ErrorCode::InvalidArgument, [&] { (void)tokenizer.decode(ids); }, "[0, 257)", std::to_string(id)));
  }
}

TEST_CASE("bytes without a token are dropped, or become the unknown token") {
  TokenizerModel model = letters_model(3, {{"a", "b"}});
  Tokenizer const dropping{TokenizerModel(model)};
  REQUIRE_FALSE(dropping.is_lossless());
  REQUIRE(dropping.encode("axb") == Ids{3});  // as in the reference, the neighbours meet
  model.tokens.push_back("<unk>");
  model.added.push_back({4, "<unk>", true, false});
  model.unknown = 4;
  REQUIRE(Tokenizer(model).encode("axxb") == Ids{0, 4, 4, 1});
  model.fuse_unknown = true;
  REQUIRE(Tokenizer(model).encode("axxbx") == Ids{0, 4, 1, 4});
}

TEST_CASE("with ignore_merges a word that is a token is that token") {
  TokenizerModel model = letters_model(3, {{"a", "b"}, {"b", "c"}, {"a", "bc"}});
  REQUIRE(pieces_of(Tokenizer(model), "abc") == std::vector<std::string>{"ab", "c"});
  model.ignore_merges = true;
  REQUIRE(pieces_of(Tokenizer(model), "abc") == std::vector<std::string>{"abc"});
  REQUIRE(pieces_of(Tokenizer(model), "abca") == std::vector<std::string>{"ab", "c", "a"});
}

TEST_CASE("a model that contradicts itself is refused") {
  auto const refused = [](auto const& change, char const* part) {
    TokenizerModel model = Tokenizer::byte_level().model();
    change(model);
    return fails_with(ErrorCode::InvalidArgument, [&] { (void)Tokenizer(std::move(model)); }, part);
  };
  REQUIRE(refused([](TokenizerModel& m) { m.tokens.clear(); }, "vocabulary"));
  REQUIRE(refused([](TokenizerModel& m) { m.byte_tokens[7] = 8; }, "byte 7"));
  REQUIRE(refused([](TokenizerModel& m) { m.byte_tokens[7] = 257; }, "byte 7"));
  REQUIRE(refused([](TokenizerModel& m) { m.byte_tokens[7] = -2; }, "byte 7"));
  REQUIRE(refused([](TokenizerModel& m) { m.merges = {{1, 2, 3}}; }, "merge 0"));
  REQUIRE(refused([](TokenizerModel& m) { m.merges = {{1, 2, 300}}; }, "merge 0"));
  REQUIRE(refused([](TokenizerModel& m) { m.added[0].content = "other"; }, "added token 256"));
  REQUIRE(refused([](TokenizerModel& m) { m.added.push_back(m.added[0]); }, "repeated"));
  REQUIRE(refused([](TokenizerModel& m) { m.added[0].id = -1; }, "<|endoftext|>"));
  REQUIRE(refused([](TokenizerModel& m) { m.unknown = 257; }, "unknown token"));
  REQUIRE(refused(
      [](TokenizerModel& m) {
        m.tokens.push_back("ab");
        m.merges = {{'a', 'b', 257}, {'a', 'b', 257}};
      },
      "merge 1"));
}

TEST_CASE("one tokenizer serves several threads") {
  Ids const expected = trained().encode(english());
  std::vector<int> right(4, 0);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < right.size(); ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 50; ++round) right[i] += trained().encode(english()) == expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  REQUIRE(right == std::vector<int>(4, 50));
}

TEST_CASE("a copy is independent of the original") {
  auto original = std::make_unique<Tokenizer>(trained());
  Tokenizer const copy = *original;
  Ids const ids = original->encode("the other times");
  original.reset();
  REQUIRE(copy.encode("the other times") == ids);
  REQUIRE(copy.decode(ids) == "the other times");
}
