// SPDX-License-Identifier: Apache-2.0
/// @file
/// Builds a TokenizerModel from a parsed Hugging Face `tokenizer.json`: the vocabulary, the merges and the added tokens
/// of a BPE model, byte-level or with byte fallback. What the file asks for and this library does not do is refused,
/// never ignored.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"
#include "mor/core/types.hpp"
#include "mor/io/byte_level.hpp"
#include "mor/io/byte_token.hpp"
#include "mor/io/json.hpp"
#include "mor/io/space_rules.hpp"
#include "mor/io/tokenizer_model.hpp"
#include "mor/io/tokenizer_pipeline.hpp"

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace mor::io::detail {

/// One pass over a parsed tokenizer.json, which must outlive the reader: its tables refer to the strings in the JSON.
/// Where there may be a million entries, the place that an error would name is a function, called only for an error.
class TokenizerReader {
 public:
  TokenizerReader(nlohmann::json const& json, std::string const& file) : root_(json, file) {}

  [[nodiscard]] TokenizerModel run() {
    PipelineReader pipeline(root_, model_);
    pipeline.run();
    decodes_bytes_ = pipeline.decodes_bytes();
    read_added_tokens();
    JsonObject model = root_.object("model");
    check_model_type(model);
    read_vocabulary(model);
    read_unknown(model);
    read_merges(model);
    check_template();
    return std::move(model_);
  }

 private:
  using Json = nlohmann::json;

  void expect_null(JsonObject& object, std::string const& key, char const* known = "null") {
    Json const* const value = object.find(key);
    if (value == nullptr || value->is_null()) return;
    refuse_unsupported("unsupported value", object.where(key), known, describe(*value));
  }

  void expect_false(JsonObject& object, std::string const& key) {
    if (object.boolean_or(key, false)) refuse_unsupported("unsupported value", object.where(key), "false", "true");
  }

  void read_added_tokens() {
    if (!root_.contains("added_tokens")) return;
    Json const& list = root_.array("added_tokens");
    check_count(list.size(), root_.where("added_tokens"));
    for (std::size_t i = 0; i < list.size(); ++i) {
      JsonObject entry(list[i], root_.file(), "added_tokens[" + std::to_string(i) + "]");
      AddedToken token;
      token.id = static_cast<Token>(entry.integer("id", 0, static_cast<Index>(max_vocab_size) - 1));
      token.content = entry.string("content");
      check_length(token.content, entry.where("content"));
      for (char const* key : {"single_word", "lstrip", "rstrip"}) expect_false(entry, key);
      token.special = entry.boolean_or("special", false);
      token.normalized = entry.boolean_or("normalized", false);
      if (!added_ids_.emplace(entry.string("content"), token.id).second) {
        fail(ErrorCode::MalformedFile, "the same added token twice", entry.where("content"), "distinct texts",
             printable(token.content));
      }
      model_.added.push_back(std::move(token));
    }
  }

  void check_model_type(JsonObject& model) {
    // Early files leave the type out; only BPE has merges.
    if (model.contains("type") || !model.contains("merges")) {
      std::string const& type = model.string("type");
      if (type != "BPE") refuse_unsupported("unknown model type", model.where("type"), "BPE", printable(type));
    }
    Json const* const dropout = model.find("dropout");
    if (dropout != nullptr && !dropout->is_null() && json_number(*dropout, model.where("dropout")) != 0.0) {
      refuse_unsupported("unsupported value", model.where("dropout"), "null or 0", dropout->dump());
    }
    for (char const* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      Json const* const value = model.find(key);
      if (value != nullptr && *value != "") expect_null(model, key, "null or an empty string");
    }
    byte_fallback_ = model.boolean_or("byte_fallback", false);
    model_.fuse_unknown = model.boolean_or("fuse_unk", false);
    model_.ignore_merges = model.boolean_or("ignore_merges", false);
  }

  void read_vocabulary(JsonObject& model) {
    if (!model.at("vocab").is_object()) {
      fail(ErrorCode::MalformedFile, "wrong type", model.where("vocab"), "an object", describe(model.at("vocab")));
    }
    auto const& entries = model.at("vocab").get_ref<Json::object_t const&>();
    std::size_t count = entries.size();
    for (AddedToken const& token : model_.added) count += !entries.contains(token.content);
    check_count(count, model.where("vocab"));
    if (count == 0) fail(ErrorCode::MalformedFile, "the vocabulary is empty", model.where("vocab"));
    model_.tokens.resize(count);
    model_.byte_tokens.fill(TokenizerModel::no_token);
    taken_.resize(count);
    ids_.reserve(count);
    for (auto const& entry : entries) {
      auto const where = [&] { return model.where("vocab") + "[" + printable(entry.first) + "]"; };
      Json const& value = entry.second;
      bool const good = value.is_number_unsigned() && value.get<std::uint64_t>() < count;
      Index const id = good ? value.get<Index>() : json_integer(value, where(), 0, static_cast<Index>(count) - 1);
      take(static_cast<Token>(id), where);
      read_token(entry.first, static_cast<Token>(id), where);
    }
    for (std::size_t i = 0; i < model_.added.size(); ++i) {
      AddedToken const& token = model_.added[i];
      if (entries.contains(token.content)) continue;
      auto const where = [&] { return root_.where("added_tokens[" + std::to_string(i) + "].id"); };
      if (static_cast<std::size_t>(token.id) >= count) {
        fail(ErrorCode::MalformedFile, "integer out of range", where(),
             "an id below the number of tokens, " + std::to_string(count), std::to_string(token.id));
      }
      take(token.id, where);
      model_.tokens[static_cast<std::size_t>(token.id)] = added_token_bytes(token, model_.kind);
    }
    check_byte_fallback(model);
  }

  void check_byte_fallback(JsonObject& model) {
    if (model_.kind == TokenizerKind::SentencePiece && byte_fallback_ != decodes_bytes_) {
      refuse_unsupported("byte_fallback and the decoder disagree", model.where("byte_fallback"),
                         byte_fallback_ ? "a decoder with ByteFallback" : "a decoder without ByteFallback",
                         byte_fallback_ ? "true" : "false");
    }
    if (byte_fallback_ && lacks_bytes()) {
      refuse_unsupported("byte_fallback with bytes missing from the vocabulary", model.where("byte_fallback"), "false",
                         "true");
    }
  }

  /// One entry of the vocabulary.
  template <class Where>
  void read_token(std::string const& text, Token id, Where const& where) {
    auto const added = added_ids_.find(text);
    if (added != added_ids_.end() && added->second != id) {
      fail(ErrorCode::MalformedFile, "the id differs from that in added_tokens", where(), std::to_string(added->second),
           std::to_string(id));
    }
    bool const is_added = added != added_ids_.end();
    if (model_.kind == TokenizerKind::ByteLevel) {
      read_byte_level_token(text, id, is_added, where);
    } else {
      read_spaced_token(text, id, is_added, where);
    }
  }

  /// The text is spelled in the byte-level alphabet, unless it is an added token.
  template <class Where>
  void read_byte_level_token(std::string const& text, Token id, bool is_added, Where const& where) {
    std::optional<std::string> bytes = from_byte_level(text);
    std::string const& kept = bytes ? *bytes : text;
    if (kept.empty() || kept.size() > max_token_bytes) check_length(kept, where());
    bool const literal = is_added && kept != text;
    if (!bytes && !is_added) {
      fail(ErrorCode::MalformedFile, "a token has a character outside the byte-level alphabet", where());
    }
    if (literal && kept.size() == 1) {
      fail(ErrorCode::MalformedFile, "an added token is spelled like another byte", where());
    }
    std::string& place = model_.tokens[static_cast<std::size_t>(id)];
    place = literal ? text : kept;
    if (literal || !bytes) return;
    ids_.emplace(text, id);
    if (place.size() == 1) model_.byte_tokens[static_cast<unsigned char>(place[0])] = id;
  }

  /// The text spells a space as U+2581, unless it is an added token, and a byte as <0xXX>.
  template <class Where>
  void read_spaced_token(std::string const& text, Token id, bool is_added, Where const& where) {
    if (text.empty() || text.size() > max_token_bytes) check_length(text, where());
    std::string& place = model_.tokens[static_cast<std::size_t>(id)];
    ids_.emplace(text, id);
    std::optional<unsigned char> const byte = parse_byte_token(text);
    if (byte && decodes_bytes_) {
      if (is_added || text != byte_token_text(*byte)) {
        fail(ErrorCode::MalformedFile, "an entry that the decoder takes for a byte", where(), byte_token_text(*byte),
             is_added ? "an added token" : printable(text));
      }
      place.assign(1, static_cast<char>(*byte));
      model_.byte_tokens[*byte] = id;
      return;
    }
    if (!is_added && text.find(' ') != text.npos) {
      refuse_unsupported("a token with a space", where(), "U+2581 for each space", printable(text));
    }
    place = marks_to_spaces(text);
  }

  void read_unknown(JsonObject& model) {
    Json const* const value = model.find("unk_token");
    if (value == nullptr || value->is_null()) return;
    std::string const text = json_string(*value, model.where("unk_token"));
    auto const added = added_ids_.find(text);
    if (added == added_ids_.end() && !ids_.contains(text)) {
      fail(ErrorCode::MalformedFile, "not a token", model.where("unk_token"), "an entry of the vocabulary",
           printable(text));
    }
    model_.unknown = added != added_ids_.end() ? added->second : ids_.at(text);
  }

  void read_merges(JsonObject& model) {
    Json const& list = model.array("merges");
    check_count(list.size(), model.where("merges"));
    std::unordered_set<std::uint64_t> pairs;
    pairs.reserve(list.size());
    model_.merges.reserve(list.size());
    std::string joined;
    for (std::size_t i = 0; i < list.size(); ++i) {
      auto const where = [&] { return model.where("merges") + "[" + std::to_string(i) + "]"; };
      auto const [left, right] = merge_parts(list[i], where);
      joined.assign(left).append(right);
      Merge const merge{merge_token(left, where), merge_token(right, where), merge_token(joined, where)};
      if (model_.kind == TokenizerKind::SentencePiece &&
          bytes_of(merge.result) != bytes_of(merge.left) + bytes_of(merge.right)) {
        fail(ErrorCode::MalformedFile, "a merge of byte tokens", where(), "two texts", describe(list[i]));
      }
      if (!pairs.insert(pair_key(merge.left, merge.right)).second) {
        fail(ErrorCode::MalformedFile, "the same merge twice", where(), "distinct merges", describe(list[i]));
      }
      model_.merges.push_back(merge);
    }
  }

  /// A merge is `["a", "b"]`, or `"a b"` in older files.
  template <class Where>
  static std::pair<std::string_view, std::string_view> merge_parts(Json const& merge, Where const& where) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      return {merge[0].get_ref<std::string const&>(), merge[1].get_ref<std::string const&>()};
    }
    if (merge.is_string()) {
      std::string_view const text = merge.get_ref<std::string const&>();
      std::size_t const space = text.find(' ');
      if (space != text.npos && text.find(' ', space + 1) == text.npos) {
        return {text.substr(0, space), text.substr(space + 1)};
      }
    }
    fail(ErrorCode::MalformedFile, "not a merge", where(), "two tokens, as [\"a\", \"b\"] or \"a b\"", describe(merge));
  }

  template <class Where>
  Token merge_token(std::string_view text, Where const& where) const {
    auto const found = ids_.find(text);
    if (found != ids_.end()) return found->second;
    fail(ErrorCode::MalformedFile, "a merge refers to an unknown token", where(), "an entry of the vocabulary",
         printable(text));
  }

  void check_template() const {
    for (auto const* const ids : {&model_.begin, &model_.end}) {
      for (Token const id : *ids) {
        if (static_cast<std::size_t>(id) < model_.tokens.size()) continue;
        fail(ErrorCode::MalformedFile, "token id out of range", root_.where("post_processor"),
             "less than " + std::to_string(model_.tokens.size()), std::to_string(id));
      }
    }
  }

  [[nodiscard]] std::string const& bytes_of(Token id) const { return model_.tokens[static_cast<std::size_t>(id)]; }

  template <class Where>
  void take(Token id, Where const& where) {
    if (taken_[static_cast<std::size_t>(id)]) {
      fail(ErrorCode::MalformedFile, "two tokens have the same id", where(), "distinct ids", std::to_string(id));
    }
    taken_[static_cast<std::size_t>(id)] = true;
  }

  static void check_count(std::size_t count, std::string const& where) {
    if (count <= max_vocab_size) return;
    fail(ErrorCode::MalformedFile, "too many entries", where, "at most " + std::to_string(max_vocab_size),
         std::to_string(count));
  }

  static void check_length(std::string const& text, std::string const& where) {
    if (!text.empty() && text.size() <= max_token_bytes) return;
    fail(ErrorCode::MalformedFile, "length of a token out of range", where,
         "1 to " + std::to_string(max_token_bytes) + " bytes", std::to_string(text.size()));
  }

  [[nodiscard]] bool lacks_bytes() const {
    for (Token const id : model_.byte_tokens) {
      if (id == TokenizerModel::no_token) return true;
    }
    return false;
  }

  JsonObject root_;
  TokenizerModel model_;
  bool byte_fallback_ = false, decodes_bytes_ = false;
  std::unordered_map<std::string_view, Token> added_ids_;  ///< by their text
  std::unordered_map<std::string_view, Token> ids_;        ///< ordinary tokens, as spelled in the file
  std::vector<bool> taken_;
};

}  // namespace mor::io::detail
