// SPDX-License-Identifier: Apache-2.0
// Damaged vocabularies with scores: llama2.c's tok.bin, SentencePiece's tokenizer.model; and a real tok.bin.
#include "io/scored_files.hpp"
#include "mor/io/json.hpp"
#include "mor/io/stream_decoder.hpp"
#include "mor/io/tokenizer.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"
#include "support/test_data.hpp"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

using namespace scored_files;
using mor::ErrorCode;
using mor::Token;
using mor::io::parse_llama2c_tokenizer;
using mor::io::parse_sentencepiece_model;
using mor::io::Tokenizer;
using mor::io::TokenizerModel;
using Ids = std::vector<Token>;

namespace {

struct BadFile {
  std::string bytes;
  std::vector<std::string> parts;  ///< of the message
  ErrorCode code = ErrorCode::MalformedFile;
};

/// A line for each file that is not refused as it should be.
template <class Parse>
std::string not_refused(std::vector<BadFile> const& files, Parse const& parse) {
  std::string wrong;
  for (std::size_t i = 0; i < files.size(); ++i) {
    auto const failure = mor::test::failure_of([&] { (void)parse(files[i].bytes, "the file"); });
    bool right = failure && failure->code == files[i].code && failure->message.starts_with("the file");
    for (std::string const& part : files[i].parts) right = right && failure->message.find(part) != std::string::npos;
    if (!right) wrong += "file " + std::to_string(i) + ": " + (failure ? failure->message : "accepted") + "\n";
  }
  return wrong;
}

/// `valid` with a 32-bit word or a text put at a place.
std::string with_word(std::string file, std::size_t at, std::uint32_t word) {
  std::string bytes;
  add_word(bytes, word);
  return file.replace(at, 4, bytes);
}
std::string with_text(std::string file, std::string_view from, std::string_view to) {
  return file.replace(file.find(from), from.size(), to);
}

Pieces const pieces = {{"a", -1}, {"b", -2}, {"ab", -3}, {" ", -4}};

std::vector<BadFile> bad_tok_bins() {
  std::string const valid = tok_bin(pieces);
  std::size_t const unknown = 4, begin = unknown + 8 + 5, bytes = begin + 8 + 5 + 8 + 6, first = bytes + 256 * 14;
  float const nan = std::numeric_limits<float>::quiet_NaN(), infinite = std::numeric_limits<float>::infinity();
  auto const at = [](std::size_t byte) { return "byte " + std::to_string(byte) + ":"; };
  std::uint32_t const negative = 0xFFFFFFFF;
  return {
      {"", {at(0), "longest token", "4 bytes", "got 0"}},
      {valid.substr(0, 3), {at(0), "longest token", "got 3"}},
      {with_word(valid, 0, 0), {at(0), "1 to 256", "got 0"}},
      {with_word(valid, 0, negative), {at(0), "1 to 256", "got -1"}},
      {with_word(valid, 0, 257), {at(0), "1 to 256", "got 257"}},
      {valid.substr(0, 4), {at(4), "last byte token", "259", "got 0"}},
      {valid.substr(0, first - 14), {at(first - 14), "259", "got 258"}},
      {valid.substr(0, unknown + 2), {at(unknown), "score of token 0", "got 2"}},
      {valid.substr(0, unknown + 7), {at(unknown + 4), "length of token 0", "got 3"}},
      {valid.substr(0, unknown + 10), {at(unknown + 8), "text of token 0", "5 bytes", "got 2"}},
      {valid.substr(0, valid.size() - 1), {"text of token 262", "1 bytes", "got 0"}},
      {valid + "x", {at(valid.size()), "score of token 263", "got 1"}},
      {with_word(valid, unknown + 4, 0), {at(unknown + 4), "length of token 0", "1 to 27", "got 0"}},
      {with_word(valid, unknown + 4, 28), {at(unknown + 4), "length of token 0", "1 to 27", "got 28"}},
      {with_word(valid, unknown + 4, negative), {at(unknown + 4), "length of token 0", "got -1"}},
      {with_word(valid, unknown + 4, 0x7FFFFFFF), {at(unknown + 4), "length of token 0", "got 2147483647"}},
      {with_word(valid, bytes + 4, 5), {at(bytes + 8), "text of token 3", "<0x00>"}},
      {valid + record("c", nan), {at(valid.size()), "score of token 263", "finite", "nan"}},
      {valid + record("c", infinite), {"score of token 263", "finite", "inf"}},
      {valid + record("c", -infinite), {"score of token 263", "finite", "-inf"}},
      {valid + record("a", -5), {"text of token 263", "token 259", "distinct", "\"a\""}},
      {valid + record("\xE2\x96\x81", -5), {"text of token 263", "token 262", "distinct"}},
      {valid + record("<s>", -5), {"text of token 263", "token 1"}},
      {valid + record("\xFF", -5), {"text of token 263", "UTF-8", "\\xff"}},
      {valid + record("\xE4\xB8", -5), {"text of token 263", "UTF-8"}},
      {valid + record("\xC0\x80", -5), {"text of token 263", "UTF-8"}},
      {with_text(valid, "<0x00>", "<0x01>"), {at(bytes + 8), "text of token 3", "<0x00>", "<0x01>"}},
      {with_text(valid, "<0xAB>", "<0xab>"), {"text of token 174", "<0xAB>", "<0xab>"}},
      {with_text(valid, "<0xFF>", "<0xFG>"), {"text of token 258", "<0xFF>", "<0xFG>"}},
      {with_text(valid, "\n<s>\n", "\n\n\n\n\n"), {at(begin + 8), "text of token 1", "empty"}},
      {with_text(valid, "\n</s>\n", "\n\n<s>\n"), {"text of token 2", "token 1", "distinct"}},
  };
}

std::vector<BadFile> bad_sentencepiece_models() {
  std::string const special = special_pieces(), bytes = byte_pieces(), normal = piece_field("a", -1, 1);
  std::string const vocabulary = special + bytes + normal, rules = trainer() + normalizer();
  std::string const valid = vocabulary + rules;
  float const nan = std::numeric_limits<float>::quiet_NaN(), infinite = std::numeric_limits<float>::infinity();
  ErrorCode const unsupported = ErrorCode::Unsupported;
  auto const piece = [&](std::string const& field) { return valid + bytes_field(1, field); };
  auto const normal_form = [&](std::string const& field) { return vocabulary + trainer() + bytes_field(3, field); };
  auto const training = [&](std::string const& field) { return vocabulary + bytes_field(2, field) + normalizer(); };
  std::string const keep = integer_field(4, 0), bpe = integer_field(3, 2);
  std::string const end = "byte " + std::to_string(valid.size()) + ":";
  return {
      {"", {"trainer_spec", "missing"}},
      {vocabulary, {"trainer_spec", "missing"}},
      {rules, {"field pieces", "empty"}},
      {std::string(1, '\0'), {"byte 0:", "field number", "got 0"}},
      {valid + '\x03', {end, "field number"}},
      {valid + '\x0B', {end, "wire type", "0, 1, 2 or 5", "got 3"}},
      {valid + '\x0C', {end, "wire type", "got 4"}},
      {valid + '\x0F', {end, "wire type", "got 7"}},
      {valid + '\x0A', {end, "ends inside a field", "1 bytes", "got 0"}},
      {valid + "\x0A\x05"
               "abc",
       {end, "ends inside a field", "5 bytes", "got 3"}},
      {valid + "\x0A" + std::string(9, '\xFF') + '\x01', {end, "18446744073709551615 bytes"}},
      {valid + "\x50" + std::string(9, '\xFF') + '\x02', {end, "too long", "64 bits"}},
      {valid + "\x50" + std::string(10, '\x80') + '\0', {end, "too long", "64 bits"}},
      {valid + '\x51' + "1234567", {end, "ends inside a field", "8 bytes", "got 7"}},
      {valid + '\x55' + "123", {end, "ends inside a field", "4 bytes", "got 3"}},
      {valid + integer_field(1, 7), {end, "pieces", "wire type", "2", "got 0"}},
      {piece(integer_field(1, 7)), {"piece", "wire type", "2", "got 0"}},
      {piece(bytes_field(1, "b") + integer_field(2, 7)), {"score", "wire type", "5", "got 0"}},
      {piece(bytes_field(1, "b") + float_field(3, 1)), {"type", "wire type", "0", "got 5"}},
      {piece(""), {end, "length of piece 260", "1 to 256", "got 0"}},
      {piece(bytes_field(1, std::string(257, 'a'))), {end, "length of piece 260", "1 to 256", "got 257"}},
      {piece(bytes_field(1, "\xFF")), {end, "piece 260", "UTF-8", "\\xff"}},
      {piece(bytes_field(1, "b") + float_field(2, nan)), {end, "score of piece 260", "finite", "nan"}},
      {piece(bytes_field(1, "b") + float_field(2, infinite)), {end, "score of piece 260", "finite", "inf"}},
      {piece(bytes_field(1, "a")), {end, "piece 260 repeats another", "distinct", "\"a\""}},
      {valid + piece_field("<x>", 0, 6), {end, "piece 260 is no byte", "<0x00> to <0xFF>"}},
      {valid + piece_field("<0xab>", 0, 6), {end, "piece 260 is no byte", "<0xab>"}},
      {valid + piece_field("<0xAB>", 0, 6), {end, "piece 260 repeats a byte"}},
      {valid + piece_field("<unk2>", 0, 2), {end, "second unknown piece"}},
      {valid + piece_field("b", 0, 5), {end, "type of piece 260", "got 5"}, unsupported},
      {valid + piece_field("b", 0, 7), {end, "type of piece 260", "got 7"}, unsupported},
      {special + normal + piece_field("<0x41>", 0, 6) + rules, {"field pieces", "0 or 256", "got 1"}, unsupported},
      {training(""), {"trainer_spec.model_type", "2 (BPE)", "got 1"}, unsupported},
      {training(integer_field(3, 1)), {"trainer_spec.model_type", "got 1"}, unsupported},
      {training(bpe + integer_field(24, 1)), {"treat_whitespace_as_suffix", "false", "true"}, unsupported},
      {training(bpe + integer_field(41, 259)), {"trainer_spec.bos_id", "control", "got 259"}},
      {training(bpe + integer_field(41, 260)), {"trainer_spec.bos_id", "control", "got 260"}},
      {vocabulary + trainer(), {"remove_extra_whitespaces", "false", "true"}, unsupported},
      {normal_form(integer_field(4, 1)), {"remove_extra_whitespaces", "false", "true"}, unsupported},
      {normal_form(keep + integer_field(5, 0)), {"escape_whitespaces", "true", "false"}, unsupported},
      {normal_form(keep + bytes_field(2, "map")), {"precompiled_charsmap", "3 bytes"}, unsupported},
      {valid + bytes_field(5, bytes_field(2, "map")), {"precompiled_charsmap", "3 bytes"}, unsupported},
      {normal_form(keep + bytes_field(3, "")), {"add_dummy_prefix", "wire type", "0", "got 2"}},
  };
}

/// Changes a few bytes again and again: the file must be read or refused, nothing else.
template <class Parse>
std::size_t refused_after_changes(std::string const& valid, Parse const& parse) {
  std::mt19937 random(15);
  std::size_t refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string changed = valid;
    for (std::size_t count = 1 + random() % 3; count > 0; --count) {
      changed[random() % changed.size()] = static_cast<char>(random() & 0xFF);
    }
    if (random() % 4 == 0) changed.resize(random() % changed.size());
    try {
      Tokenizer const tokenizer(parse(changed, "the file"));
      REQUIRE(tokenizer.decode(tokenizer.encode("ab a")).size() < 2000);
    } catch (mor::error const& problem) {
      ++refused;
      REQUIRE(std::string_view(problem.what()).starts_with("the file"));
    }
  }
  return refused;
}

}  // namespace

TEST_CASE("a tok.bin with a fault is refused with the byte and the token") {
  REQUIRE(bad_tok_bins().size() >= 30);
  REQUIRE(not_refused(bad_tok_bins(), parse_llama2c_tokenizer) == "");
  REQUIRE(refused_after_changes(tok_bin(pieces), parse_llama2c_tokenizer) > 1500);
}

TEST_CASE("a tokenizer.model with a fault is refused with the byte or the field") {
  REQUIRE(bad_sentencepiece_models().size() >= 40);
  REQUIRE(not_refused(bad_sentencepiece_models(), parse_sentencepiece_model) == "");
  REQUIRE(refused_after_changes(sentencepiece_model(pieces), parse_sentencepiece_model) > 1000);
}

TEST_CASE("unusual but valid vocabularies with scores are read") {
  TokenizerModel const plain = parse_llama2c_tokenizer(tok_bin(pieces), "tok.bin");
  REQUIRE(parse_llama2c_tokenizer(tok_bin(pieces, 256), "tok.bin") == plain);  // a bound that no token reaches
  REQUIRE(parse_llama2c_tokenizer(tok_bin({}), "tok.bin").tokens.size() == 259);
  REQUIRE(parse_llama2c_tokenizer(with_text(tok_bin(pieces), "\n<s>\n", "<bos>"), "tok.bin").added[1].content ==
          "<bos>");

  std::string const valid = sentencepiece_model(pieces);
  REQUIRE(parse_sentencepiece_model(valid, "m") == plain);
  REQUIRE(parse_sentencepiece_model(trainer() + normalizer() + valid, "m") == plain);  // the last of a field counts
  REQUIRE(parse_sentencepiece_model(valid + bytes_field(4, "self-test") + integer_field(1000, 5), "m") == plain);
  REQUIRE(parse_sentencepiece_model(valid + varint(200 << 3 | 1) + "12345678", "m") == plain);
  REQUIRE(parse_sentencepiece_model(valid + bytes_field(5, bytes_field(1, "nothing")), "m") == plain);
  std::uint64_t const minus_one = ~std::uint64_t{0};
  std::string const no_begin = bytes_field(2, integer_field(3, 2) + integer_field(41, minus_one));
  REQUIRE(parse_sentencepiece_model(valid + no_begin, "m").begin.empty());
  TokenizerModel const bare = parse_sentencepiece_model(valid + bytes_field(3, integer_field(3, 0)), "m");
  REQUIRE(bare.spaces == mor::io::SpaceRules{});
  REQUIRE(Tokenizer(bare).encode("ab") == Ids{261});
  TokenizerModel const own = parse_sentencepiece_model(valid + piece_field("x\xE2\x96\x81y", 0, 4), "m");
  REQUIRE(Tokenizer(own).encode("abx ya", mor::io::SpecialInput::PlainText) == Ids{262, 261, 263, 262, 259});
  std::string const no_bytes = special_pieces() + piece_field("a", 0, 1) + trainer() + normalizer();
  REQUIRE(Tokenizer(parse_sentencepiece_model(no_bytes, "m")).encode("ax") == Ids{0, 3, 0});
}

TEST_CASE("the tok512.bin of llama2.c gives the prompts and the text of llama2.c") {
  std::optional<std::filesystem::path> const data = mor::test::test_data();
  if (!data) SKIP("no test data: set MOR_TEST_DATA");
  Tokenizer const tokenizer = Tokenizer::load(*data / "models" / "tok512.bin");
  REQUIRE(tokenizer.vocab_size() == 512);
  std::filesystem::path const golden = *data / "models" / "stories260K.greedy_golden.json";
  nlohmann::json const runs = mor::io::parse_json(mor::io::read_file(golden), golden.string());
  REQUIRE(runs.size() == 6);
  for (nlohmann::json const& run : runs) {
    std::string const prompt = run["prompt"];
    Ids const tokens = run["tokens"];
    Ids begin(tokenizer.begin_tokens().begin(), tokenizer.begin_tokens().end());
    for (Token const id : tokenizer.encode(prompt)) begin.push_back(id);
    INFO(prompt);
    REQUIRE(begin.size() == run["n_prompt_tokens"]);
    REQUIRE(Ids(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(begin.size())) == begin);
    mor::io::StreamDecoder decoder(tokenizer);
    std::string text;
    for (Token const id : tokens) text += decoder.push(id);
    REQUIRE(text.starts_with(prompt));
    if (!prompt.empty()) continue;
    std::string const printed = mor::io::read_file(*data / "models" / "stories260K.run_t0_n200.stdout");
    REQUIRE(printed.size() > 400);
    REQUIRE(text.substr(0, 400) == printed.substr(0, 400));
  }
}
