// SPDX-License-Identifier: Apache-2.0
/// @file
/// A valid tokenizer.json, and the ways to break it: each case with the code and the words that its refusal must have.
#pragma once

#include "mor/core/error.hpp"

#include <nlohmann/json.hpp>

#include <functional>
#include <string>
#include <vector>

namespace tokenizer_json_cases {

using Json = nlohmann::json;
using mor::ErrorCode;

/// A small valid file; every case below changes one thing in it.
inline Json valid_file() {
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

struct Case {
  std::function<void(Json&)> change;
  ErrorCode code;
  std::vector<std::string> parts;  ///< what the message must hold, besides the file
};

inline constexpr ErrorCode malformed = ErrorCode::MalformedFile;
inline constexpr ErrorCode unsupported = ErrorCode::Unsupported;

/// A change that gives the value at a JSON pointer a new value.
inline std::function<void(Json&)> put(char const* pointer, Json value) {
  return [=](Json& j) { j[Json::json_pointer(pointer)] = value; };
}

/// A change that removes a key of the object at a JSON pointer.
inline std::function<void(Json&)> drop(char const* pointer, char const* key) {
  return [=](Json& j) { j[Json::json_pointer(pointer)].erase(key); };
}

inline Json const byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
inline Json const digits = {{"type", "Digits"}, {"individual_digits", true}};
inline std::string const steps = "pre_tokenizer.pretokenizers";

inline std::vector<Case> bad_structure() {
  return {
      {[](Json& j) { j = Json::array(); }, malformed, {"an object"}},
      {put("/version", 1.0), malformed, {"version", "a string"}},
      {put("/version", "2.0"), unsupported, {"version", "1.0", "2.0"}},
      {put("/truncation", Json{{"max_length", 8}}), unsupported, {"truncation", "null"}},
      {put("/padding", true), unsupported, {"padding", "null"}},
      {put("/normalizer", Json{{"type", "NFC"}}), unsupported, {"normalizer", "null"}},
      {put("/post_processor", Json{{"type", "BertProcessing"}}), unsupported, {"post_processor.type", "ByteLevel"}},
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

inline std::vector<Case> bad_tokens() {
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

}  // namespace tokenizer_json_cases
