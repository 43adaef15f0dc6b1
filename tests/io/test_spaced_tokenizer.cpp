// SPDX-License-Identifier: Apache-2.0
// SentencePiece-style tokenizers: characters with byte fallback, vocabularies with scores.
#include "io/reference_lines.hpp"
#include "io/scored_files.hpp"
#include "mor/io/stream_decoder.hpp"
#include "mor/io/tokenizer.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"
#include "support/temporary_folder.hpp"
#include "support/test_data.hpp"

#include <chrono>
#include <cstddef>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using mor::ErrorCode;
using mor::Token;
using mor::io::SpacePrefix;
using mor::io::SpecialInput;
using mor::io::SpecialOutput;
using mor::io::StreamDecoder;
using mor::io::StreamStart;
using mor::io::Tokenizer;
using mor::io::TokenizerKind;
using mor::io::TokenizerModel;
using mor::test::fails_with;
using scored_files::Pieces;
using Ids = std::vector<Token>;

namespace {

constexpr std::size_t first_piece = 259;

Pieces const small = {{"he", -1}, {" t", -2}, {"the", -3}, {" the", -4}, {"  ", -5},       {" ", -6},
                      {"t", -7},  {"h", -8},  {"e", -9},   {"o", -10},   {"\xC3\xA9", -11}};

Tokenizer tokenizer_of(Pieces const& pieces) {
  return Tokenizer(mor::io::parse_llama2c_tokenizer(scored_files::tok_bin(pieces), "tok.bin"));
}

/// Encoding by its definition: characters or their bytes, then again and again the pair whose joined text has the best
/// score, the leftmost of equals.
Ids encode_by_definition(Pieces const& pieces, std::string const& text) {
  std::map<std::string, std::pair<float, Token>> known;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    known[pieces[i].first] = {pieces[i].second, static_cast<Token>(first_piece + i)};
  }
  struct Symbol {
    std::string text;
    Token id;
  };
  std::vector<Symbol> symbols;
  std::string const all = text.empty() ? "" : " " + text;
  for (std::size_t at = 0; at < all.size();) {
    mor::Utf8Step const step = mor::decode_utf8(all, at);
    std::size_t const length = step.status == mor::Utf8Status::Valid ? step.length : 1;
    std::string const character = all.substr(at, length);
    at += length;
    if (auto const found = known.find(character); found != known.end()) {
      symbols.push_back({character, found->second.second});
    } else {
      for (char const byte : character) symbols.push_back({"\xFF", 3 + static_cast<unsigned char>(byte)});
    }
  }
  for (;;) {
    std::size_t best = symbols.size();
    float best_score = -1e10F;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      auto const found = known.find(symbols[i].text + symbols[i + 1].text);
      if (found == known.end() || found->second.first <= best_score) continue;
      best_score = found->second.first;
      best = i;
    }
    if (best == symbols.size()) break;
    symbols[best].text += symbols[best + 1].text;
    symbols[best].id = known[symbols[best].text].second;
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  Ids ids;
  for (Symbol const& symbol : symbols) ids.push_back(symbol.id);
  return ids;
}

/// Random text of few letters, spaces, characters beyond ASCII, and bytes that are no UTF-8.
std::string random_text(std::mt19937& random, std::size_t longest) {
  static std::vector<std::string> const parts = {
      " ",        "  ",   "a", "b",  "c",   "ab",    "\xC3\xA9", "\xE4\xB8\xAD", "\xF0\x9F\xA6\x99",
      "\xF0\x9F", "\xFF", "x", "\n", "<s>", "<0x41>"};
  std::string text;
  for (std::size_t count = random() % (longest + 1); count > 0; --count) text += parts[random() % parts.size()];
  return text;
}

/// A vocabulary in which scores tie, pieces lack parts, and spaces stand anywhere.
Pieces random_pieces(std::mt19937& random) {
  static std::vector<std::string> const letters = {"a", "b", "c", " ", "\xC3\xA9"};
  std::map<std::string, float> chosen;
  for (std::string const& letter : letters) chosen[letter] = -50;
  bool const inner_spaces = random() % 2 == 0;
  for (std::size_t count = 5 + random() % 40; count > 0; --count) {
    std::string piece;
    for (std::size_t i = 2 + random() % 4; i > 0; --i) {
      std::string const& letter = letters[random() % letters.size()];
      if (inner_spaces || letter != " " || piece.find_first_not_of(' ') == piece.npos) piece += letter;
    }
    chosen[piece] = -static_cast<float>(random() % 20);
  }
  return {chosen.begin(), chosen.end()};
}

}  // namespace

TEST_CASE("a vocabulary with scores merges the best pair first, after a space in front") {
  Tokenizer const tokenizer = tokenizer_of(small);
  REQUIRE(tokenizer.vocab_size() == 270);
  REQUIRE(tokenizer.encode("") == Ids{});
  REQUIRE(tokenizer.encode("the") == Ids{262});
  REQUIRE(tokenizer.encode(" the") == Ids{264, 262});  // " t" before "the", then "  " is no longer possible
  REQUIRE(tokenizer.encode("othe") == Ids{264, 268, 261});
  REQUIRE(tokenizer.encode("\xC3\xA9z") == Ids{264, 269, 3 + 'z'});
  REQUIRE(tokenizer.encode("\xE4\xB8\xAD") == Ids{264, 3 + 0xE4, 3 + 0xB8, 3 + 0xAD});
  REQUIRE(tokenizer.encode("\xC3") == Ids{264, 3 + 0xC3});
  REQUIRE(tokenizer.encode("<s>t") == Ids{1, 260});
  REQUIRE(tokenizer.encode("<s>", SpecialInput::PlainText) == Ids{264, 3 + '<', 3 + 's', 3 + '>'});
  REQUIRE(Ids(tokenizer.begin_tokens().begin(), tokenizer.begin_tokens().end()) == Ids{1});
  REQUIRE(tokenizer.end_tokens().empty());
  REQUIRE(tokenizer.end_of_text_id() == 2);
  REQUIRE(tokenizer.decode(Ids{1, 262, 261, 2}) == "<s> thethe</s>");
  REQUIRE(tokenizer.decode(Ids{1, 262, 261, 2}, SpecialOutput::Omit) == "thethe");
  REQUIRE_FALSE(tokenizer.is_lossless());  // U+2581 comes back as a space
  REQUIRE(tokenizer.decode(tokenizer.encode("t\xE2\x96\x81o")) == "t o");
}

TEST_CASE("encoding agrees with the definition of llama2.c for random vocabularies, ties included") {
  std::mt19937 random(11);
  for (int round = 0; round < 300; ++round) {
    Pieces const pieces = random_pieces(random);
    Tokenizer const tokenizer = tokenizer_of(pieces);
    for (int i = 0; i < 20; ++i) {
      std::string const text = random_text(random, i == 0 ? 120 : 12);
      INFO(round << ' ' << text);
      REQUIRE(tokenizer.encode(text, SpecialInput::PlainText) == encode_by_definition(pieces, text));
    }
  }
}

TEST_CASE("both files of a vocabulary with scores, and the tokenizer.json saved from them, give one tokenizer") {
  mor::test::TemporaryFolder const folder;
  Tokenizer const tokenizer = tokenizer_of(small);
  mor::io::write_file(folder / "t.model", scored_files::sentencepiece_model(small));
  mor::io::write_file(folder / "t.bin", scored_files::tok_bin(small));
  REQUIRE(Tokenizer::load(folder / "t.model").model() == tokenizer.model());
  REQUIRE(Tokenizer::load(folder / "t.bin").model() == tokenizer.model());
  Pieces tied = small;
  for (auto& [text, score] : tied) score = -1;
  for (Tokenizer const& original : {tokenizer, tokenizer_of(tied)}) {
    original.save(folder / "t.json");
    TokenizerModel listed = original.model();
    std::size_t ties = 0;
    for (mor::io::Merge& merge : listed.merges) ties += std::exchange(merge.same_rank, false);
    REQUIRE(ties > 0);  // tokenizer.json has none
    REQUIRE(Tokenizer::load(folder / "t.json").model() == listed);
  }
}

TEST_CASE("text comes back from a vocabulary with byte fallback, whatever its bytes") {
  std::mt19937 random(12);
  for (int round = 0; round < 40; ++round) {
    Tokenizer const tokenizer = tokenizer_of(random_pieces(random));
    std::size_t lost = 0;
    for (int i = 0; i < 500; ++i) {
      std::string const text = random_text(random, 30);
      lost += tokenizer.decode(tokenizer.encode(text, SpecialInput::PlainText)) != text;
    }
    REQUIRE(lost == 0);
  }
}

TEST_CASE("a stream of tokens shows whole characters only, and the text of the whole") {
  Tokenizer const tokenizer = tokenizer_of(small);
  StreamDecoder decoder(tokenizer);
  REQUIRE(decoder.push(1) == "");
  REQUIRE(decoder.push(262) == "the");  // the space in front is gone
  REQUIRE(decoder.push(262) == " the");
  for (int const byte : {0xF0, 0x9F, 0xA6}) REQUIRE(decoder.push(3 + byte) == "");
  REQUIRE(decoder.push(3 + 0x99) == "\xF0\x9F\xA6\x99");
  REQUIRE(decoder.push(3 + 0xE4) == "");
  REQUIRE(decoder.push(268) == "\xEF\xBF\xBDo");
  REQUIRE(decoder.push(3 + 0xE4) == "");
  REQUIRE(decoder.flush() == "\xEF\xBF\xBD");
  StreamDecoder continuation(tokenizer, StreamStart::Continuation, SpecialOutput::Keep);
  REQUIRE(continuation.push(262) == " the");
  REQUIRE(continuation.push(2) == "</s>");
  REQUIRE(fails_with(
      ErrorCode::InvalidArgument, [&] { (void)continuation.push(270); }, "[0, 270)", "270"));

  std::mt19937 random(13);
  for (int round = 0; round < 2000; ++round) {
    Ids ids;
    for (std::size_t count = random() % 20; count > 0; --count) ids.push_back(static_cast<Token>(random() % 270));
    StreamDecoder stream(tokenizer);
    std::string text;
    for (Token const id : ids) {
      std::string const piece = stream.push(id);
      REQUIRE(mor::valid_utf8(piece));
      text += piece;
    }
    text += stream.flush();
    REQUIRE(text == mor::to_valid_utf8(tokenizer.decode(ids, SpecialOutput::Omit)));
  }
}

TEST_CASE("a megabyte without a space is encoded without quadratic time") {
  Tokenizer const tokenizer = tokenizer_of({{"aa", -1}, {"aaaa", -2}, {"a", -3}, {"b", -4}, {"ab", -5}, {" ", -6}});
  auto const start = std::chrono::steady_clock::now();
  std::mt19937 random(14);
  std::string text(1 << 20, 'a');
  REQUIRE(tokenizer.decode(tokenizer.encode(text)) == text);
  for (char& c : text) c = static_cast<char>('a' + random() % 3);
  REQUIRE(tokenizer.decode(tokenizer.encode(text)) == text);
  std::string const spaces(1 << 20, ' ');
  REQUIRE(tokenizer.decode(tokenizer.encode(spaces)) == spaces);
  REQUIRE(std::chrono::steady_clock::now() - start < std::chrono::seconds(60));
}

TEST_CASE("text that spells a byte token stays text") {
  TokenizerModel model = tokenizer_of(small).model();
  model.ignore_merges = true;
  model.spaces = {SpacePrefix::None, true, mor::io::SpaceStrip::None};
  for (bool const ignore : {false, true}) {
    model.ignore_merges = ignore;
    Tokenizer const tokenizer{TokenizerModel(model)};
    REQUIRE(tokenizer.decode(tokenizer.encode("<0x41> <0x41>")) == "<0x41> <0x41>");
  }
}

TEST_CASE("a SentencePiece-style model that contradicts itself is refused") {
  auto const refused = [](auto const& change, char const* part) {
    TokenizerModel model = tokenizer_of(small).model();
    change(model);
    return fails_with(
        ErrorCode::InvalidArgument, [&] { (void)Tokenizer(std::move(model)); }, part);
  };
  REQUIRE(refused([](TokenizerModel& m) { m.byte_tokens[7] = TokenizerModel::no_token; }, "some bytes"));
  REQUIRE(refused([](TokenizerModel& m) { m.split.digits = mor::io::DigitSplit::Runs; }, "splitting words"));
  REQUIRE(refused([](TokenizerModel& m) { m.kind = TokenizerKind::ByteLevel; }, "rules for spaces"));
  REQUIRE(refused([](TokenizerModel& m) { m.begin = {270}; }, "before a text"));
  REQUIRE(refused([](TokenizerModel& m) { m.end = {-1}; }, "after a text"));
  REQUIRE(refused([](TokenizerModel& m) { m.merges[0].same_rank = true; }, "first merge"));
  TokenizerModel model = tokenizer_of(small).model();
  model.spaces.split = true;
  mor::test::TemporaryFolder const folder;
  REQUIRE(fails_with(
      ErrorCode::InvalidArgument, [&] { Tokenizer(model).save(folder / "t.json"); }, "tokenizer.json"));
}

TEST_CASE("Llama 2's tokenizer.model gives the ids of the reference") {
  std::optional<std::filesystem::path> const data = mor::test::test_data();
  if (!data) SKIP("no test data: set MOR_TEST_DATA");
  Tokenizer const tokenizer = Tokenizer::load(*data / "tokenizers" / "llama2" / "tokenizer.model");
  REQUIRE(tokenizer.vocab_size() == 32000);
  REQUIRE(tokenizer.end_of_text_id() == 2);
  auto const lines = mor::test::reference_lines(*data / "testvectors" / "ggml-vocab-llama-spm.gguf");
  REQUIRE(lines.size() == 46);
  for (auto const& [text, ids] : lines) {
    INFO(text);
    REQUIRE(tokenizer.encode(text) == ids);
    REQUIRE(tokenizer.decode(ids) == text);
  }
  std::string const book = mor::io::read_file(*data / "text" / "tinyshakespeare.txt");
  REQUIRE(tokenizer.decode(tokenizer.encode(book)) == book);
  mor::test::TemporaryFolder const folder;
  tokenizer.save(folder / "tokenizer.json");
  REQUIRE(Tokenizer::load(folder / "tokenizer.json").encode(book) == tokenizer.encode(book));
}
