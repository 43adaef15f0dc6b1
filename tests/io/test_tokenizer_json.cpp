// SPDX-License-Identifier: Apache-2.0
#include "mor/io/bpe_trainer.hpp"
#include "mor/io/file.hpp"
#include "mor/io/json.hpp"
#include "mor/io/tokenizer.hpp"
#include "io/gpt2_files.hpp"
#include "io/reference_lines.hpp"
#include "io/spaced_json_cases.hpp"
#include "io/tokenizer_json_cases.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"
#include "support/temporary_folder.hpp"
#include "support/test_data.hpp"

#include <cstddef>
#include <filesystem>
#include <functional>
#include <optional>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

using namespace tokenizer_json_cases;
using mor::Token;
using mor::io::DigitSplit;
using mor::io::parse_tokenizer_json;
using mor::io::SpacePrefix;
using mor::io::SpaceRules;
using mor::io::SpaceStrip;
using mor::io::Tokenizer;
using mor::io::TokenizerModel;
using mor::test::fails_with;
using mor::test::TemporaryFolder;
using Ids = std::vector<Token>;

namespace {

TokenizerModel parse(Json const& json) { return parse_tokenizer_json(json.dump(), "t.json"); }

/// Runs every case and returns a line for each that was not refused as it should be.
std::string not_refused(std::vector<Case> const& cases, Json const& valid = valid_file()) {
  std::string wrong;
  std::set<std::string> messages;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    Json json = valid;
    cases[i].change(json);
    auto const failure = mor::test::failure_of([&] { (void)parse(json); });
    bool right = failure && failure->code == cases[i].code && failure->message.starts_with("t.json");
    for (std::string const& part : cases[i].parts) {
      right = right && failure->message.find(part) != std::string::npos;
    }
    if (!right) wrong += "case " + std::to_string(i) + ": " + (failure ? failure->message : "accepted") + "\n";
    if (failure) messages.insert(failure->message);
  }
  // Each has an error of its own, but for a field that is null in one case and absent in another.
  if (messages.size() + 1 < cases.size()) wrong += "only " + std::to_string(messages.size()) + " different messages\n";
  return wrong;
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

TEST_CASE("unusual but valid SentencePiece-style tokenizer.json files are read") {
  TokenizerModel const expected = parse(valid_spaced_file());
  REQUIRE(Tokenizer(parse(valid_spaced_file())).encode("ab a<s>") == Ids{262, 261, 262, 1});
  for (auto const& change : same_spaced_file()) {
    Json json = valid_spaced_file();
    change(json);
    REQUIRE(parse(json) == expected);
  }
  auto const spaces_after = [](std::function<void(Json&)> const& change) {
    Json json = valid_spaced_file();
    change(json);
    return parse(json).spaces;
  };
  auto const with_metaspace = [](std::vector<std::function<void(Json&)>> const& changes) {
    return [=](Json& json) {
      json["normalizer"] = nullptr;
      json["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", Json::array({metaspace})}};
      for (auto const& change : changes) change(json["pre_tokenizer"]["pretokenizers"][0]);
    };
  };
  auto const one = SpaceStrip::One;
  REQUIRE(spaces_after(put("/normalizer", replace)) == SpaceRules{SpacePrefix::None, false, one});
  REQUIRE(spaces_after(with_metaspace({})) == SpaceRules{SpacePrefix::Start, false, one});
  REQUIRE(spaces_after(with_metaspace({drop("", "split")})) == SpaceRules{SpacePrefix::Start, true, one});
  REQUIRE(spaces_after(with_metaspace({drop("", "prepend_scheme")})) == SpaceRules{SpacePrefix::Pieces, false, one});
  REQUIRE(spaces_after(with_metaspace({drop("", "prepend_scheme"), put("/add_prefix_space", false)})) ==
          SpaceRules{SpacePrefix::None, false, one});
  REQUIRE(spaces_after(with_metaspace({put("/prepend_scheme", "never"), put("/add_prefix_space", false)})) ==
          SpaceRules{SpacePrefix::None, false, one});
  REQUIRE(spaces_after(put("/decoder/decoders/3/start", 0)).strip == SpaceStrip::None);
  REQUIRE(spaces_after(put("/decoder/decoders", Json{metaspace, byte_fallback})).strip == SpaceStrip::FirstToken);
}

TEST_CASE("SentencePiece-style tokenizer.json files with a fault are refused with the field") {
  REQUIRE(bad_spaced().size() >= 45);
  REQUIRE(not_refused(bad_spaced(), valid_spaced_file()) == "");
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
  for (int i = 0; i < 999'999; ++i) vocabulary += "\"" + std::to_string(i) + "\":0,";
  REQUIRE(refused_with("added_tokens", list + "]"));
  REQUIRE(refused_with("merges", list + "]"));
  REQUIRE(refused_with("vocab", vocabulary + "\"two words\":0,\"<|endoftext|>\":0}"));
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
  Tokenizer const tokenizer(mor::test::gpt2_model(*data / "tokenizers" / "gpt2"));
  REQUIRE(tokenizer.vocab_size() == 50257);
  REQUIRE(tokenizer.end_of_text_id() == 50256);
  REQUIRE(tokenizer.is_lossless());
  auto const lines = mor::test::reference_lines(*data / "testvectors" / "ggml-vocab-gpt-2.gguf");
  REQUIRE(lines.size() == 46);
  for (auto const& [text, ids] : lines) {
    INFO(text);
    REQUIRE(tokenizer.encode(text) == ids);
    REQUIRE(tokenizer.decode(ids) == text);
  }
}
