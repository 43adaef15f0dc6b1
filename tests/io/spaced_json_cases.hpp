// SPDX-License-Identifier: Apache-2.0
/// @file
/// A valid SentencePiece-style tokenizer.json, odd ways to say the same, and the ways to break it.
#pragma once

#include "io/tokenizer_json_cases.hpp"
#include "mor/io/byte_token.hpp"

#include <functional>
#include <string>
#include <vector>

namespace tokenizer_json_cases {

inline std::string const mark = "\xE2\x96\x81";
inline Json const prepend = {{"type", "Prepend"}, {"prepend", mark}};
inline Json const replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", mark}};
inline Json const metaspace = {
    {"type", "Metaspace"}, {"replacement", mark}, {"prepend_scheme", "first"}, {"split", false}};
inline Json const to_space = {{"type", "Replace"}, {"pattern", {{"String", mark}}}, {"content", " "}};
inline Json const byte_fallback = {{"type", "ByteFallback"}}, fuse = {{"type", "Fuse"}};
inline Json const strip = {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}};

/// Tokens: <unk>, <s>, </s>, the bytes from 3 on, then U+2581, a, b, "U+2581 a" and "ab" from 259 on.
inline Json valid_spaced_file() {
  Json file = valid_file();
  file["added_tokens"].erase(1);
  file["added_tokens"][0]["content"] = "<unk>";
  for (int id = 1; id < 3; ++id) {
    file["added_tokens"].push_back(file["added_tokens"][0]);
    file["added_tokens"][static_cast<std::size_t>(id)]["id"] = id;
    file["added_tokens"][static_cast<std::size_t>(id)]["content"] = id == 1 ? "<s>" : "</s>";
  }
  file["normalizer"] = {{"type", "Sequence"}, {"normalizers", {prepend, replace}}};
  file["pre_tokenizer"] = nullptr;
  Json const begin = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
  Json const text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  file["post_processor"] = {{"type", "TemplateProcessing"}, {"single", {begin, text}}, {"pair", Json::array()}};
  file["post_processor"]["special_tokens"]["<s>"] = {
      {"id", "<s>"}, {"ids", Json::array({1})}, {"tokens", Json::array({"<s>"})}};
  file["decoder"] = {{"type", "Sequence"}, {"decoders", {to_space, byte_fallback, fuse, strip}}};
  Json& model = file["model"];
  model["unk_token"] = "<unk>";
  model["fuse_unk"] = model["byte_fallback"] = true;
  model["vocab"] = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (int byte = 0; byte < 256; ++byte) {
    model["vocab"][mor::io::byte_token_text(static_cast<unsigned char>(byte))] = 3 + byte;
  }
  int next = 259;
  for (std::string const& piece : {mark, std::string("a"), std::string("b"), mark + "a", std::string("ab")}) {
    model["vocab"][piece] = next++;
  }
  model["merges"] = Json::array({Json::array({mark, "a"}), Json::array({"a", "b"})});
  return file;
}

/// Changes after which the file still describes the same tokenizer.
inline std::vector<std::function<void(Json&)>> same_spaced_file() {
  std::string const post = "/post_processor";
  return {
      put("/normalizer/normalizers", Json{replace, prepend}),
      put("/normalizer/normalizers",
          Json{Json{{"type", "Sequence"}, {"normalizers", Json::array({prepend})}}, replace}),
      put("/normalizer/normalizers/0/something", 1),
      put("/decoder/decoders", Json{Json{{"type", "Sequence"}, {"decoders", {to_space, byte_fallback}}}, fuse, strip}),
      put("/model/merges", Json{mark + " a", "a b"}),
      put("/post_processor/pair", nullptr),
      put("/post_processor",
          Json{{"type", "Sequence"},
               {"processors", {Json{{"type", "ByteLevel"}}, valid_spaced_file()["post_processor"]}}}),
      put("/post_processor/special_tokens/<unused>", Json{{"ids", Json::array()}}),
      drop("", "version"),
      drop("/model", "type"),
      drop("/model", "ignore_merges"),
      [](Json& j) { std::swap(j["added_tokens"][0]["something"], j["added_tokens"][1]["something"]); },
      [](Json& j) { j["model"]["vocab"].erase("</s>"); },  // an added token need not be in the vocabulary
  };
}

inline std::vector<Case> bad_spaced() {
  std::string const normalizers = "normalizer.normalizers", decoders = "decoder.decoders", post = "post_processor";
  Json const nfkc = {{"type", "NFKC"}}, regex = {{"Regex", " "}};
  auto const only_metaspace = [](char const* key, Json value) {
    return [=](Json& j) {
      j["normalizer"] = nullptr;
      j["pre_tokenizer"] = metaspace;
      j["pre_tokenizer"][key] = value;
    };
  };
  return {
      {put("/normalizer", nullptr), unsupported, {"field pre_tokenizer", "Metaspace", "none"}},
      {put("/normalizer", nfkc), unsupported, {"normalizer.type", "Prepend, Replace", "NFKC"}},
      {put("/normalizer/normalizers/0", nfkc), unsupported, {normalizers + "[0].type", "NFKC"}},
      {put("/normalizer/normalizers", Json::array({prepend})), unsupported, {"normalizer", "no Replace"}},
      {put("/normalizer/normalizers", Json{replace, replace}), unsupported, {normalizers + "[1].type", "twice"}},
      {put("/normalizer/normalizers", Json{prepend, prepend, replace}), unsupported, {normalizers + "[1].type"}},
      {put("/normalizer/normalizers", 3), malformed, {normalizers, "an array", "3"}},
      {put("/normalizer/normalizers/0/prepend", "_"), unsupported, {normalizers + "[0].prepend", "\"_\""}},
      {drop("/normalizer/normalizers/0", "prepend"), malformed, {normalizers + "[0].prepend", "missing"}},
      {put("/normalizer/normalizers/1/content", " "), unsupported, {normalizers + "[1].content", "\" \""}},
      {put("/normalizer/normalizers/1/pattern/String", "x"),
       unsupported,
       {normalizers + "[1].pattern.String", "\"x\""}},
      {put("/normalizer/normalizers/1/pattern", regex), unsupported, {normalizers + "[1].pattern", "a String"}},
      {put("/normalizer/normalizers/1/pattern", " "), malformed, {normalizers + "[1].pattern", "an object"}},
      {put("/pre_tokenizer", metaspace), unsupported, {"pre_tokenizer.type", "one of them", "Metaspace"}},
      {put("/pre_tokenizer", Json{{"type", "Split"}}), unsupported, {"pre_tokenizer.type", "Metaspace", "Split"}},
      {only_metaspace("replacement", "_"), unsupported, {"pre_tokenizer.replacement", "\"_\""}},
      {only_metaspace("prepend_scheme", "last"), unsupported, {"pre_tokenizer.prepend_scheme", "first, always, never"}},
      {only_metaspace("prepend_scheme", 1), malformed, {"pre_tokenizer.prepend_scheme", "a string"}},
      {only_metaspace("add_prefix_space", false), malformed, {"pre_tokenizer.add_prefix_space", "prepend_scheme"}},
      {only_metaspace("split", "no"), malformed, {"pre_tokenizer.split", "true or false"}},
      {put("/decoder", nullptr), unsupported, {"decoder", "Replace or Metaspace"}},
      {put("/decoder/decoders", Json::array()), unsupported, {"decoder", "none"}},
      {put("/decoder/decoders", Json{to_space, fuse, byte_fallback}),
       unsupported,
       {decoders + "[2].type", "ByteFallb"}},
      {put("/decoder/decoders", Json{byte_fallback, fuse}), unsupported, {decoders + "[0].type", "first"}},
      {put("/decoder/decoders", Json{to_space, to_space}), unsupported, {decoders + "[1].type", "out of place"}},
      {put("/decoder/decoders", Json{to_space, byte_fallback, strip}), unsupported, {decoders + "[2].type", "Fuse"}},
      {put("/decoder/decoders/1/type", "CTC"), unsupported, {decoders + "[1].type", "ByteFallback", "CTC"}},
      {put("/decoder/decoders/0/content", ""), unsupported, {decoders + "[0].content", "\" \"", "\"\""}},
      {put("/decoder/decoders/3/start", 2), malformed, {decoders + "[3].start", "[0, 1]", "2"}},
      {put("/decoder/decoders/3/stop", 1), malformed, {decoders + "[3].stop", "[0, 0]", "1"}},
      {put("/decoder/decoders/3/content", "x"), unsupported, {decoders + "[3].content", "\" \""}},
      {put("/decoder/decoders/0", metaspace), unsupported, {decoders + "[3].start", "twice"}},
      {put("/decoder/decoders", Json{to_space, fuse}), unsupported, {"model.byte_fallback", "with ByteFallback"}},
      {put("/model/byte_fallback", false), unsupported, {"model.byte_fallback", "without ByteFallback"}},
      {[](Json& j) { j["model"]["vocab"].erase("<0x41>"), j["model"]["vocab"]["c"] = 3 + 0x41; },
       unsupported,
       {"model.byte_fallback", "missing"}},
      {[](Json& j) { j["model"]["vocab"].erase("<0x4A>"), j["model"]["vocab"]["<0x4a>"] = 3 + 0x4A; },
       malformed,
       {"model.vocab[\"<0x4a>\"]", "<0x4A>"}},
      {[](Json& j) { j["added_tokens"][2]["content"] = "<0x41>", j["added_tokens"][2]["id"] = 3 + 0x41; },
       malformed,
       {"model.vocab[\"<0x41>\"]", "added token"}},
      {put("/model/vocab/a b", 264), unsupported, {"model.vocab[\"a b\"]", "a token with a space"}},
      {[](Json& j) {
         j["model"]["vocab"]["<0x41>a"] = 264, j["model"]["merges"][1] = {"<0x41>", "a"};
       },
       malformed,
       {"model.merges[1]", "byte tokens"}},
      {put("/post_processor/single", Json::array()), malformed, {post + ".single", "without the text"}},
      {put("/post_processor/single/0", 7), malformed, {post + ".single[0]", "an object"}},
      {put("/post_processor/single/0", Json::object()), malformed, {post + ".single[0].SpecialToken", "missing"}},
      {put("/post_processor/single/0/SpecialToken/id", "<x>"), malformed, {post + ".special_tokens.<x>", "missing"}},
      {[](Json& j) { j["post_processor"]["single"][0] = j["post_processor"]["single"][1]; },
       unsupported,
       {post + ".single[1]", "twice"}},
      {put("/post_processor/special_tokens/<s>/ids/0", 264), malformed, {post, "less than 264", "264"}},
      {put("/post_processor/special_tokens/<s>/ids/0", -1), malformed, {post + ".special_tokens.<s>", "-1"}},
      {drop("/post_processor", "special_tokens"), malformed, {post + ".special_tokens", "missing"}},
      {[](Json& j) {
         Json const one = j["post_processor"];
         j["post_processor"] = {{"type", "Sequence"}, {"processors", {one, one}}};
       },
       unsupported,
       {post + ".processors[1].type", "one TemplateProcessing"}},
  };
}

}  // namespace tokenizer_json_cases
