// SPDX-License-Identifier: Apache-2.0
// Token ids of the reference: Hugging Face tokenizers, by tests/oracle/make_tokenizer_vectors.py.
#include "io/gpt2_files.hpp"
#include "io/mixed_text.hpp"
#include "io/tokenizer_json_cases.hpp"
#include "mor/io/stream_decoder.hpp"
#include "mor/io/tokenizer.hpp"
#include "support/catch.hpp"
#include "support/test_data.hpp"

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

using mor::Token;
using mor::io::SpecialOutput;
using mor::io::StreamDecoder;
using mor::io::Tokenizer;
using Ids = std::vector<Token>;
using Json = nlohmann::json;

namespace {

Json const& vectors() {
  static Json const all = mor::io::parse_json(
      mor::io::read_file(std::filesystem::path(MOR_SOURCE_DIR) / "tests" / "io" / "tokenizer_vectors.json"), "vectors");
  return all;
}

Ids framed(Tokenizer const& tokenizer, Ids const& ids) {
  Ids all(tokenizer.begin_tokens().begin(), tokenizer.begin_tokens().end());
  all.insert(all.end(), ids.begin(), ids.end());
  all.insert(all.end(), tokenizer.end_tokens().begin(), tokenizer.end_tokens().end());
  return all;
}

std::string streamed(Tokenizer const& tokenizer, Ids const& ids, SpecialOutput special) {
  StreamDecoder decoder(tokenizer, mor::io::StreamStart::Text, special);
  std::string text;
  for (Token const id : ids) {
    std::string const piece = decoder.push(id);
    REQUIRE(mor::valid_utf8(piece));
    text += piece;
  }
  return text += decoder.flush();
}

/// The ids of the mixed text are those of the reference, by number and hash.
void require_mixed_ids(Tokenizer const& tokenizer, std::string const& text, std::string const& name) {
  mor::test::Fnv hash;
  Ids const ids = tokenizer.encode(text);
  for (Token const id : ids) {
    for (int shift = 0; shift < 32; shift += 8) hash.add(std::string(1, static_cast<char>(id >> shift & 0xFF)));
  }
  INFO(name);
  REQUIRE(ids.size() == vectors()["mixed"][name]["count"]);
  REQUIRE(hash.text() == vectors()["mixed"][name]["hash"]);
}

}  // namespace

TEST_CASE("every variant of a SentencePiece-style tokenizer.json gives the ids and the text of the reference") {
  Json const& spaced = vectors()["spaced"];
  int count = 0;
  for (Json const& variant : spaced["cases"]) {
    Json file = spaced["file"];
    for (auto const& change : variant["change"].items()) file[Json::json_pointer(change.key())] = change.value();
    Tokenizer const tokenizer(mor::io::parse_tokenizer_json(file.dump(), "t.json"));
    std::string const saved = mor::io::format_tokenizer_json(tokenizer.model());
    REQUIRE(mor::io::parse_tokenizer_json(saved, "saved.json") == tokenizer.model());
    for (Json const& vector : variant["texts"]) {
      std::string const name = variant["name"], text = vector["text"], kept = vector["kept"];
      INFO(name << ": \"" << text << '"');
      Ids ids = vector["ids"];
      REQUIRE(tokenizer.encode(text) == ids);
      REQUIRE(framed(tokenizer, ids) == vector["framed"].get<Ids>());
      REQUIRE(tokenizer.decode(ids) == kept);
      REQUIRE(streamed(tokenizer, ids, SpecialOutput::Keep) == kept);
      if (vector["omitted"].is_string()) {
        std::string const omitted = vector["omitted"];
        REQUIRE(tokenizer.decode(framed(tokenizer, ids), SpecialOutput::Omit) == omitted);
        REQUIRE(streamed(tokenizer, framed(tokenizer, ids), SpecialOutput::Omit) == omitted);
      }
      ++count;
    }
  }
  REQUIRE(count > 300);
}

TEST_CASE("a megabyte of mixed text has the ids of the reference") {
  std::optional<std::filesystem::path> const data = mor::test::test_data();
  if (!data) SKIP("no test data: set MOR_TEST_DATA");
  std::string const text = mor::test::mixed_text(*data);
  mor::test::Fnv hash;
  hash.add(text);
  REQUIRE(text.size() == vectors()["mixed"]["bytes"]);
  REQUIRE(hash.text() == vectors()["mixed"]["text_hash"]);
  std::filesystem::path const folder = *data / "tokenizers";
  require_mixed_ids(Tokenizer::load(folder / "smollm2" / "tokenizer.json"), text, "smollm2");
  require_mixed_ids(Tokenizer(mor::test::gpt2_model(folder / "gpt2")), text, "gpt2");
  require_mixed_ids(Tokenizer::load(folder / "llama2" / "tokenizer.model"), text, "llama2");
}
