// SPDX-License-Identifier: Apache-2.0
#include "mor/io/bpe_trainer.hpp"
#include "mor/io/file.hpp"
#include "mor/io/json.hpp"
#include "mor/io/tokenizer.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"
#include "support/temporary_folder.hpp"
#include "support/test_data.hpp"

#include <cstddef>
#include <filesystem>
#include <functional>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

using Json = nlohmann::json;
using mor::ErrorCode;
using mor::Token;
using mor::io::DigitSplit;
using mor::io::parse_tokenizer_json;
using mor::io::Tokenizer;
using mor::io::TokenizerModel;
using mor::test::fails_with;
using mor::test::TemporaryFolder;
using Ids = std::vector<Token>;

namespace {

/// A small valid file; every case below changes one thing.
Json valid_file() {
  return Json::parse(R"({
    "version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [
      {"id": 0, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
       "special": true},
      {"id": 7, "content": "two words", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
       "special": false}],
    "normalizer": null,
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
      {"type": "Digits", "individual_digits": true},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
    "post_processor": null,
    "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
    "model": {
      "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
      "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
      "vocab": {"<|endoftext|>": 0, "a": 1, "b": 2, "c": 3, "ab": 4, "abc": 5, "\u0120": 6},
      "merges": [["a", "b"], ["ab", "c"]]}})");
}

TokenizerModel parse(Json const& json) { return parse_tokenizer_json(json.dump(), "t.json"); }

struct Case {
  std::function<void(Json&)> change;
  ErrorCode code;
  std::vector<std::string> parts;  ///< what the message must hold, besides the file
};

constexpr ErrorCode malformed = ErrorCode::MalformedFile;
constexpr ErrorCode unsupported = ErrorCode::Unsupported;

/// A change that gives the value at a JSON pointer a new value.
std::function<void(Json&)> put(char const* pointer, Json value) {
  return [=](Json& j) { j[Json::json_pointer(pointer)] = value; };
}

/// A change that removes a key of the object at a JSON pointer.
std::function<void(Json&)> drop(char const* pointer, char const* key) {
  return [=](Json& j) { j[Json::json_pointer(pointer)].erase(key); };
}

Json const byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
Json const digits = {{"type", "Digits"}, {"individual_digits", true}};
std::string const steps = "pre_tokenizer.pretokenizers";

std::vector<Case> bad_structure() {
  return {
      {[](Json& j) { j = Json::array(); }, malformed, {"an object"}},
      {put("/version", 1.0), malformed, {"version", "a string"}},
      {put("/version", "2.0"), unsupported, {"version", "1.0", "2.0"}},
      {put("/truncation", Json{{"max_length", 8}}), unsupported, {"truncation", "null"}},
      {put("/padding", true), unsupported, {"padding", "null"}},
      {put("/normalizer", Json{{"type", "NFC"}}), unsupported, {"normalizer", "null"}},
      {put("/post_processor", Json{{"type", "TemplateProcessing"}}), unsupported, {"post_processor", "ByteLevel"}},
      {put("/post_processor", Json::array()), malformed, {"post_processor", "an object"}},
      {drop("", "decoder"), malformed, {"decoder", "missing"}},
      {put("/decoder", nullptr), unsupported, {"decoder", "ByteLevel"}},
      {put("/decoder/type", "Metaspace"), unsupported, {"decoder.type", "ByteLevel", "Metaspace"}},
      {drop("/decoder", "type"), malformed, {"decoder.type", "missing"}},
      {drop("", "pre_tokenizer"), malformed, {"pre_tokenizer", "missing"}},
      {put("/pre_tokenizer", nullptr), unsupported, {"pre_tokenizer", "ByteLevel, Digits, Sequence"}},
      {put("/pre_tokenizer", "ByteLevel"), malformed, {"pre_tokenizer", "an object"}},
      {put("/pre_tokenizer/type", "Split"), unsupported, {"pre_tokenizer.type", "ByteLevel, Digits, Seq", "\"Split\""}},
      {put("/pre_tokenizer/type", 3), malformed, {"pre_tokenizer.type", "a string"}},
      {put("/pre_tokenizer/pretokenizers", Json::object()), malformed, {steps, "an array"}},
      {put("/pre_tokenizer/pretokenizers", Json::array()), unsupported, {"pre_tokenizer", "ByteLevel"}},
      {put("/pre_tokenizer/pretokenizers", Json{byte_level, digits}), unsupported, {steps + "[1].type", "Level last"}},
      {put("/pre_tokenizer/pretokenizers", Json{byte_level, byte_level}), unsupported, {steps + "[1].type"}},
      {put("/pre_tokenizer/pretokenizers/0/individual_digits", 1), malformed, {steps + "[0].individual_digits"}},
      {drop("/pre_tokenizer/pretokenizers/0", "individual_digits"), malformed, {steps + "[0].individual_digits"}},
      {put("/pre_tokenizer/pretokenizers/1/add_prefix_space", true), unsupported, {steps + "[1].add_prefix_space"}},
      {drop("/pre_tokenizer/pretokenizers/1", "add_prefix_space"), malformed, {steps + "[1].add_prefix_space"}},
      {put("/pre_tokenizer/pretokenizers/1/use_regex", "yes"), malformed, {steps + "[1].use_regex"}},
      {drop("", "model"), malformed, {"field model", "missing"}},
      {put("/model", Json::array()), malformed, {"field model", "an object"}},
      {put("/model/type", "Unigram"), unsupported, {"model.type", "BPE", "Unigram"}},
      {put("/model/type", nullptr), malformed, {"model.type", "a string"}},
      {[](Json& j) { j["model"].erase("type"), j["model"].erase("merges"); }, malformed, {"model.type", "missing"}},
      {put("/model/dropout", 0.1), unsupported, {"model.dropout", "null or 0"}},
      {put("/model/dropout", "0"), malformed, {"model.dropout", "a finite number"}},
      {put("/model/continuing_subword_prefix", "##"), unsupported, {"model.continuing_subword_prefix", "empty"}},
      {put("/model/end_of_word_suffix", "</w>"), unsupported, {"model.end_of_word_suffix", "empty"}},
      {put("/model/byte_fallback", true), unsupported, {"model.byte_fallback", "false"}},
      {put("/model/fuse_unk", 0), malformed, {"model.fuse_unk", "true or false"}},
      {put("/model/ignore_merges", "no"), malformed, {"model.ignore_merges", "true or false"}},
      {put("/model/unk_token", "<unk>"), malformed, {"model.unk_token", "<unk>"}},
      {put("/model/unk_token", 0), malformed, {"model.unk_token", "a string"}},
  };
}

std::vector<Case> bad_tokens() {
  std::string const token = "model.vocab[\"abc\"]";
  std::string long_token(4097, 'a');
  return {
      {drop("/model", "vocab"), malformed, {"model.vocab", "missing"}},
      {put("/model/vocab", Json::array()), malformed, {"model.vocab", "an object"}},
      {[](Json& j) { j["model"]["vocab"] = Json::object(), j["added_tokens"] = Json::array(); }, malformed,
       {"model.vocab", "empty"}},
      {put("/model/vocab/abc", 5.0), malformed, {token, "an integer", "5.0"}},
      {put("/model/vocab/abc", 3.7), malformed, {token, "an integer", "3.7"}},
      {put("/model/vocab/abc", "5"), malformed, {token, "an integer"}},
      {put("/model/vocab/abc", true), malformed, {token, "an integer"}},
      {put("/model/vocab/abc", nullptr), malformed, {token, "an integer"}},
      {put("/model/vocab/abc", -1), malformed, {token, "[0, 7]", "-1"}},
      {put("/model/vocab/abc", 8), malformed, {token, "[0, 7]", "8"}},
      {put("/model/vocab/abc", 1ull << 32 | 5), malformed, {token, "[0, 7]"}},
      {put("/model/vocab/abc", ~0ull), malformed, {token, "[0, 7]"}},
      {put("/model/vocab/abc", 4), malformed, {"distinct ids", "4"}},
      {put("/model/vocab/x y", 8), malformed, {"model.vocab[\"x y\"]", "alphabet"}},
      {put("/model/vocab/\xE4\xB8\xAD", 8), malformed, {"model.vocab[\"\\xe4\\xb8\\xad\"]", "alphabet"}},
      {[](Json& j) { j["model"]["vocab"][""] = 8; }, malformed, {"model.vocab[\"\"]", "1 to 4096"}},
      {[=](Json& j) { j["model"]["vocab"][long_token] = 8; }, malformed, {"model.vocab", "1 to 4096", "4097"}},
      {drop("/model", "merges"), malformed, {"model.merges", "missing"}},
      {put("/model/merges", Json::object()), malformed, {"model.merges", "an array"}},
      {put("/model/merges/1", "ab"), malformed, {"model.merges[1]", "two tokens"}},
      {put("/model/merges/1", "a b c"), malformed, {"model.merges[1]", "two tokens"}},
      {put("/model/merges/1", Json{"ab"}), malformed, {"model.merges[1]", "two tokens"}},
      {put("/model/merges/1", Json{"a", "b", "c"}), malformed, {"model.merges[1]", "two tokens"}},
      {put("/model/merges/1", Json{"ab", 3}), malformed, {"model.merges[1]", "two tokens"}},
      {put("/model/merges/1", 7), malformed, {"model.merges[1]", "two tokens"}},
      {put("/model/merges/1", Json{"ab", "d"}), malformed, {"model.merges[1]", "unknown token", "\"d\""}},
      {put("/model/merges/1", Json{"b", "c"}), malformed, {"model.merges[1]", "unknown token", "\"bc\""}},
      {put("/model/merges/1", Json{"", "ab"}), malformed, {"model.merges[1]", "unknown token", "\"\""}},
      {put("/model/merges/1", Json{"a", "b"}), malformed, {"model.merges[1]", "same merge twice"}},
      {put("/model/merges/1", "a b"), malformed, {"model.merges[1]", "same merge twice"}},
      {put("/added_tokens", Json::object()), malformed, {"added_tokens", "an array"}},
      {put("/added_tokens/1", 7), malformed, {"added_tokens[1]", "an object"}},
      {drop("/added_tokens/1", "id"), malformed, {"added_tokens[1].id", "missing"}},
      {drop("/added_tokens/1", "content"), malformed, {"added_tokens[1].content", "missing"}},
      {put("/added_tokens/1/id", "7"), malformed, {"added_tokens[1].id", "an integer"}},
      {put("/added_tokens/1/id", 7.0), malformed, {"added_tokens[1].id", "an integer"}},
      {put("/added_tokens/1/id", -7), malformed, {"added_tokens[1].id", "-7"}},
      {put("/added_tokens/1/id", 1000000), malformed, {"added_tokens[1].id", "999999"}},
      {put("/added_tokens/1/id", 8), malformed, {"added_tokens[1].id", "number of tokens, 8"}},
      {put("/added_tokens/1/id", 3), malformed, {"added_tokens[1].id", "same id"}},
      {put("/added_tokens/0/id", 1), malformed, {"model.vocab[\"<|endoftext|>\"]", "added_tokens"}},
      {put("/added_tokens/1/content", ""), malformed, {"added_tokens[1].content", "1 to 4096"}},
      {put("/added_tokens/1/content", long_token), malformed, {"added_tokens[1].content", "4097"}},
      {put("/added_tokens/1/content", "<|endoftext|>"), malformed, {"added_tokens[1].content", "twice"}},
      {put("/added_tokens/1/content", 5), malformed, {"added_tokens[1].content", "a string"}},
      {[](Json& j) { j["added_tokens"][1] = {{"id", 6}, {"content", "\xC4\xA0"}}; }, malformed, {"another byte"}},
      {put("/added_tokens/1/single_word", true), unsupported, {"added_tokens[1].single_word", "false"}},
      {put("/added_tokens/1/lstrip", true), unsupported, {"added_tokens[1].lstrip", "false"}},
      {put("/added_tokens/1/rstrip", true), unsupported, {"added_tokens[1].rstrip", "false"}},
      {put("/added_tokens/1/rstrip", 0), malformed, {"added_tokens[1].rstrip", "true or false"}},
      {put("/added_tokens/1/special", "yes"), malformed, {"added_tokens[1].special", "true or false"}},
  };
}

/// Runs every case and returns a line for each that was not refused as it should be.
std::string not_refused(std::vector<Case> const& cases) {
  std::string wrong;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    Json json = valid_file();
    cases[i].change(json);
    auto const failure = mor::test::failure_of([&] { (void)parse(json); });
    bool right = failure && failure->code == cases[i].code && failure->message.starts_with("t.json");
    for (std::string const& part : cases[i].parts) {
      right = right && failure->message.find(part) != std::string::npos;
    }
    if (!right) wrong += "case " + std::to_string(i) + ": " + (failure ? failure->message : "accepted") + "\n";
  }
  return wrong;
}

/// The tokenizer.json that GPT-2's original two files amount to.
TokenizerModel gpt2(std::filesystem::path const& folder) {
  Json file = valid_file();
  file["pre_tokenizer"] = byte_level;
  file["added_tokens"] = {{{"id", 50256}, {"content", "<|endoftext|>"}, {"special", true}, {"normalized", true}}};
  file["model"] = {{"vocab", mor::io::parse_json(mor::io::read_file(folder / "encoder.json"), "encoder.json")}};
  std::istringstream lines(mor::io::read_file(folder / "vocab.bpe"));
  std::string line;
  std::getline(lines, line);  // the version
  Json& merges = file["model"]["merges"] = Json::array();
  while (std::getline(lines, line)) merges.push_back(line);
  return parse_tokenizer_json(file.dump(), "gpt2");
}

}  // namespace

TEST_CASE("a valid tokenizer.json gives the tokenizer it describes") {
  Tokenizer const tokenizer(parse(valid_file()));
  REQUIRE(tokenizer.vocab_size() == 8);
  REQUIRE(tokenizer.end_of_text_id() == 0);
  REQUIRE(tokenizer.model().split.digits == DigitSplit::Individual);
  REQUIRE(tokenizer.encode("abc ab<|endoftext|>cab two words") == Ids{5, 6, 4, 0, 3, 4, 6, 7});
  REQUIRE(tokenizer.decode(Ids{5, 6, 4, 0, 7}) == "abc ab<|endoftext|>two words");
}

TEST_CASE("unusual but valid tokenizer.json files are read") {
  std::vector<std::function<void(Json&)>> const same_meaning = {
      put("/model/merges", {"a b", "ab c"}),
      drop("/model", "type"),
      drop("", "version"),
      drop("", "truncation"),
      drop("", "post_processor"),
      put("/post_processor", {{"type", "ByteLevel"}, {"trim_offsets", false}}),
      put("/model/dropout", 0.0),
      put("/model/continuing_subword_prefix", ""),
      put("/model/end_of_word_suffix", ""),
      drop("/model", "fuse_unk"),
      put("/something_new", 1),
      put("/pre_tokenizer/pretokenizers",
          {digits, {{"type", "Sequence"}, {"pretokenizers", Json::array({digits, byte_level})}}}),
  };
  for (auto const& change : same_meaning) {
    Json json = valid_file();
    change(json);
    REQUIRE(parse(json) == parse(valid_file()));
  }
  Json json = valid_file();
  put("/model/unk_token", "<|endoftext|>")(json);
  REQUIRE(parse(json).unknown == 0);
  json = valid_file();
  put("/pre_tokenizer", byte_level)(json);
  REQUIRE(parse(json).split == mor::io::SplitRules{});
  put("/pre_tokenizer/use_regex", false)(json);
  REQUIRE_FALSE(parse(json).split.split_words);
  json = valid_file();
  drop("", "added_tokens")(json);  // then <|endoftext|> is a token like any other
  REQUIRE_FALSE(Tokenizer(parse(json)).end_of_text_id().has_value());
  json = valid_file();  // a special token in the vocabulary with characters that the byte-level alphabet lacks
  json["added_tokens"][1]["content"] = "<\xE2\x96\x81>";
  json["model"]["vocab"]["<\xE2\x96\x81>"] = 7;
  REQUIRE(Tokenizer(parse(json)).encode("a<\xE2\x96\x81>") == Ids{1, 7});
  json = valid_file();  // a token of exactly the longest length
  json["model"]["vocab"][std::string(4096, 'a')] = 7;
  json["added_tokens"].erase(1);
  REQUIRE_NOTHROW(parse(json));
}

TEST_CASE("tokenizer.json files with a wrong structure are refused with the field") {
  REQUIRE(bad_structure().size() >= 40);
  REQUIRE(not_refused(bad_structure()) == "");
}

TEST_CASE("tokenizer.json files with wrong tokens or merges are refused with the entry") {
  REQUIRE(bad_tokens().size() >= 50);
  REQUIRE(not_refused(bad_tokens()) == "");
}

TEST_CASE("more than a million tokens or merges are refused") {
  auto const refused_with = [](std::string const& field, std::string const& entries) {
    Json json = valid_file();
    (field == "added_tokens" ? json : json["model"])[field] = nullptr;
    std::string text = json.dump();
    std::string const empty = "\"" + field + "\":null";
    text.replace(text.find(empty), empty.size(), "\"" + field + "\":" + entries);
    return fails_with(malformed, [&] { (void)parse_tokenizer_json(text, "t.json"); }, field, "1000000", "1000001");
  };
  std::string list = "[0", vocabulary = "{";
  for (int i = 0; i < 1'000'000; ++i) list += ",0";
  for (int i = 0; i < 1'000'000; ++i) vocabulary += "\"" + std::to_string(i) + "\":0,";
  REQUIRE(refused_with("added_tokens", list + "]"));
  REQUIRE(refused_with("merges", list + "]"));
  REQUIRE(refused_with("vocab", vocabulary + "\"two words\":0}"));
}

TEST_CASE("text that is not strict JSON is refused with the byte") {
  std::string const text = valid_file().dump();
  std::string repeated = text;
  repeated.replace(repeated.find("\"a\":1"), 5, "\"a\":1,\"a\":1");
  REQUIRE(fails_with(
      malformed, [&] { (void)parse_tokenizer_json(repeated, "t.json"); }, "t.json", "byte", "repeats the key \"a\""));
  for (std::size_t length = 0; length < text.size(); ++length) {
    REQUIRE(fails_with(
        malformed, [&] { (void)parse_tokenizer_json(text.substr(0, length), "t.json"); }, "t.json: byte "));
  }
}

TEST_CASE("a tokenizer.json with a few bytes changed is read or refused, nothing else") {
  std::string const text = valid_file().dump();
  std::mt19937 random(6);
  std::string const bytes = "\"{}[],:0a-.e\\ \xC4\xA0\xFF";
  std::size_t refused = 0;
  for (int round = 0; round < 5000; ++round) {
    std::string changed = text;
    for (std::size_t count = 1 + random() % 3; count > 0; --count) {
      changed[random() % changed.size()] = bytes[random() % bytes.size()];
    }
    try {
      Tokenizer const tokenizer(parse_tokenizer_json(changed, "t.json"));
      REQUIRE(tokenizer.decode(tokenizer.encode("abc")).size() <= 3 * 4096);
    } catch (mor::error const& problem) {
      ++refused;
      REQUIRE(std::string_view(problem.what()).starts_with("t.json"));
    }
  }
  REQUIRE(refused > 2500);
}

TEST_CASE("a saved tokenizer loads as the same tokenizer") {
  TemporaryFolder const folder;
  mor::io::BpeTrainingOptions options;
  options.split.digits = DigitSplit::Runs;
  std::string text = "the other gathered there; 1775 \"quotes\" \\ back\\slash \t caf\xC3\xA9 \xF0\x9F\xA6\x99\n";
  text += text + text;
  TokenizerModel strange = Tokenizer::byte_level().model();
  strange.tokens.push_back("<say \"hi\"\n\\ \x01 \xE4\xB8\xAD>");
  strange.added.push_back({257, strange.tokens.back(), false, true});
  strange.unknown = 257;
  strange.fuse_unknown = strange.ignore_merges = true;
  strange.split = {DigitSplit::Individual, false};
  std::vector<Tokenizer> const tokenizers = {Tokenizer::byte_level(), mor::io::train_bpe(text, 330),
                                             mor::io::train_bpe(text, 330, options), Tokenizer(strange),
                                             Tokenizer(parse(valid_file()))};
  for (Tokenizer const& tokenizer : tokenizers) {
    tokenizer.save(folder / "tokenizer.json");
    Tokenizer const loaded = Tokenizer::load(folder / "tokenizer.json");
    REQUIRE(loaded.model() == tokenizer.model());
    REQUIRE(loaded.encode(text) == tokenizer.encode(text));
    std::string const written = mor::io::read_file(folder / "tokenizer.json");
    loaded.save(folder / "tokenizer.json");
    REQUIRE(mor::io::read_file(folder / "tokenizer.json") == written);
  }
  REQUIRE(folder.count() == 1);
}

TEST_CASE("what tokenizer.json cannot spell is refused before the file is touched") {
  TemporaryFolder const folder;
  auto const with_added = [](std::string const& content) {
    TokenizerModel model = Tokenizer::byte_level().model();
    model.tokens.push_back(content);
    model.added.push_back({257, content, true, false});
    return Tokenizer(std::move(model));
  };
  mor::io::write_file(folder / "tokenizer.json", "old");
  for (char const* content : {"\xFF", "\xC4\xA0"}) {  // not UTF-8; the spelling of the space
    Tokenizer const tokenizer = with_added(content);
    REQUIRE(mor::test::failure_of([&] { tokenizer.save(folder / "tokenizer.json"); }).has_value());
  }
  REQUIRE(mor::io::read_file(folder / "tokenizer.json") == "old");
}

TEST_CASE("a missing tokenizer.json is reported with its path") {
  TemporaryFolder const folder;
  REQUIRE(fails_with(
      ErrorCode::IoFailure, [&] { (void)Tokenizer::load(folder / "none.json"); }, (folder / "none.json").string()));
}

TEST_CASE("SmolLM2's tokenizer.json gives the ids of the reference") {
  std::optional<std::filesystem::path> const data = mor::test::test_data();
  if (!data) SKIP("no test data: set MOR_TEST_DATA");
  Tokenizer const tokenizer = Tokenizer::load(*data / "tokenizers" / "smollm2" / "tokenizer.json");
  REQUIRE(tokenizer.vocab_size() == 49152);
  REQUIRE(tokenizer.end_of_text_id() == 0);
  REQUIRE_FALSE(tokenizer.is_lossless());  // 21 bytes never occurred in its training text
  std::istringstream lines(mor::io::read_file(*data / "testvectors" / "smollm2_encodings.jsonl"));
  std::string line;
  int count = 0;
  while (std::getline(lines, line)) {
    Json const vector = mor::io::parse_json(line, "smollm2_encodings.jsonl");
    std::string const text = vector["text"];
    Ids const ids = vector["ids"];
    INFO(text);
    REQUIRE(tokenizer.encode(text) == ids);
    REQUIRE(tokenizer.decode(ids) == text);
    ++count;
  }
  REQUIRE(count == 28);
  REQUIRE(tokenizer.encode("<|im_start|>user\nhi<|im_end|>").front() == 1);
  REQUIRE(tokenizer.token_bytes(1).empty());

  std::string const book = mor::io::read_file(*data / "text" / "tinyshakespeare.txt");
  REQUIRE(tokenizer.decode(tokenizer.encode(book)) == book);
  TemporaryFolder const folder;
  tokenizer.save(folder / "copy.json");
  REQUIRE(Tokenizer::load(folder / "copy.json").model() == tokenizer.model());
}

TEST_CASE("GPT-2's vocabulary gives the ids of the reference") {
  std::optional<std::filesystem::path> const data = mor::test::test_data();
  if (!data) SKIP("no test data: set MOR_TEST_DATA");
  Tokenizer const tokenizer(gpt2(*data / "tokenizers" / "gpt2"));
  REQUIRE(tokenizer.vocab_size() == 50257);
  REQUIRE(tokenizer.end_of_text_id() == 50256);
  REQUIRE(tokenizer.is_lossless());
  std::string const texts = mor::io::read_file(*data / "testvectors" / "ggml-vocab-gpt-2.gguf.inp");
  std::istringstream answers(mor::io::read_file(*data / "testvectors" / "ggml-vocab-gpt-2.gguf.out"));
  std::string const separator = "\n__ggml_vocab_test__\n";
  std::string answer;
  int count = 0;
  for (std::size_t at = 0; std::getline(answers, answer); ++count) {
    std::size_t const end = texts.find(separator, at);
    REQUIRE(end != std::string::npos);
    std::string const text = texts.substr(at, end - at);
    std::istringstream numbers(answer);
    Ids ids;
    for (Token id = 0; numbers >> id;) ids.push_back(id);
    INFO(text);
    REQUIRE(tokenizer.encode(text) == ids);
    REQUIRE(tokenizer.decode(ids) == text);
    at = end + separator.size();
  }
  REQUIRE(count > 40);
}
