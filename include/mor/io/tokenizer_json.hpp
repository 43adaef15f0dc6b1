// SPDX-License-Identifier: Apache-2.0
/// @file
/// A TokenizerModel as the text of a Hugging Face `tokenizer.json`, and back.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/utf8.hpp"
#include "mor/io/byte_level.hpp"
#include "mor/io/byte_token.hpp"
#include "mor/io/json.hpp"
#include "mor/io/space_rules.hpp"
#include "mor/io/tokenizer_model.hpp"
#include "mor/io/tokenizer_reader.hpp"

#include <cstddef>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace mor::io {

/// Reads a tokenizer.json.
/// @param file  the name that errors carry
/// @throws mor::error MalformedFile when the file contradicts itself or the format, Unsupported when it asks for a
///         model, pre-tokenizer or option that this library does not have; both name the field
[[nodiscard]] inline TokenizerModel parse_tokenizer_json(std::string_view text, std::string const& file) {
  nlohmann::json const json = parse_json(text, file);
  return detail::TokenizerReader(json, file).run();
}

namespace detail {

/// Text as a JSON string. Bytes that are not valid UTF-8 have no spelling in JSON.
[[nodiscard]] inline std::string json_quoted(std::string_view text) {
  if (!valid_utf8(text)) {
    fail(ErrorCode::InvalidArgument, "text for JSON is not valid UTF-8", "tokenizer.json", {}, printable(text));
  }
  static constexpr char digits[] = "0123456789abcdef";
  std::string out = "\"";
  for (char const c : text) {
    auto const byte = static_cast<unsigned char>(c);
    if (byte < 0x20) {
      out.append("\\u00").append({digits[byte >> 4], digits[byte & 15]});
    } else {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
  }
  return out += '"';
}

[[nodiscard]] inline char const* json_text(bool value) { return value ? "true" : "false"; }

[[nodiscard]] inline std::string added_token_json(AddedToken const& token) {
  std::string text = "    {\"id\": " + std::to_string(token.id) + ", \"content\": " + json_quoted(token.content);
  text += ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": ";
  return text + json_text(token.normalized) + ", \"special\": " + json_text(token.special) + "}";
}

[[nodiscard]] inline std::string byte_level_pre_tokenizer_json(SplitRules rules) {
  std::string text = R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": )";
  text.append(json_text(rules.split_words)).append("}");
  if (rules.digits == DigitSplit::None) return text;
  std::string const individual = json_text(rules.digits == DigitSplit::Individual);
  return R"({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": )" + individual + "}, " +
         text + "]}";
}

/// Whether the rules need the pre-tokenizer Metaspace; the others are those of normalizers.
[[nodiscard]] inline bool is_metaspace(SpaceRules rules) {
  return rules.prefix == SpacePrefix::Start || rules.prefix == SpacePrefix::Pieces || rules.split;
}

[[nodiscard]] inline std::string normalizer_json(TokenizerModel const& model) {
  if (model.kind == TokenizerKind::ByteLevel || is_metaspace(model.spaces)) return "null";
  std::string const mark(space_mark);
  std::string const replace = R"({"type": "Replace", "pattern": {"String": " "}, "content": ")" + mark + "\"}";
  if (model.spaces.prefix == SpacePrefix::None) return replace;
  return R"({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": ")" + mark + "\"}, " + replace + "]}";
}

[[nodiscard]] inline std::string pre_tokenizer_json(TokenizerModel const& model) {
  if (model.kind == TokenizerKind::ByteLevel) return byte_level_pre_tokenizer_json(model.split);
  if (!is_metaspace(model.spaces)) return "null";
  if (model.spaces.prefix == SpacePrefix::Always) {
    fail(ErrorCode::InvalidArgument, "tokenizer.json cannot both put a space before every piece and split at spaces",
         "tokenizer.json");
  }
  char const* scheme = "never";
  if (model.spaces.prefix == SpacePrefix::Start) scheme = "first";
  if (model.spaces.prefix == SpacePrefix::Pieces) scheme = "always";
  return R"({"type": "Metaspace", "replacement": ")" + std::string(space_mark) + R"(", "prepend_scheme": ")" + scheme +
         R"(", "split": )" + json_text(model.spaces.split) + "}";
}

[[nodiscard]] inline bool has_byte_tokens(TokenizerModel const& model) {
  return model.kind == TokenizerKind::SentencePiece && model.byte_tokens[0] != TokenizerModel::no_token;
}

[[nodiscard]] inline std::string decoder_json(TokenizerModel const& model) {
  if (model.kind == TokenizerKind::ByteLevel) {
    return R"({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true})";
  }
  std::string const mark(space_mark);
  std::string text = R"({"type": "Sequence", "decoders": [{"type": )";
  if (model.spaces.strip == SpaceStrip::FirstToken) {
    text += R"("Metaspace", "replacement": ")" + mark + R"(", "prepend_scheme": "always", "split": true}, )";
  } else {
    text += R"("Replace", "pattern": {"String": ")" + mark + R"("}, "content": " "}, )";
  }
  if (has_byte_tokens(model)) text += R"({"type": "ByteFallback"}, )";
  text += R"({"type": "Fuse"})";
  if (model.spaces.strip == SpaceStrip::One) text += R"(, {"type": "Strip", "content": " ", "start": 1, "stop": 0})";
  return text + "]}";
}

/// @param spelled  each token as a JSON string
[[nodiscard]] inline std::string post_processor_json(TokenizerModel const& model,
                                                     std::vector<std::string> const& spelled) {
  if (model.begin.empty() && model.end.empty()) return "null";
  auto const name = [&](Token id) -> std::string const& { return spelled[static_cast<std::size_t>(id)]; };
  auto const special = [&](Token id, std::string const& type) {
    return R"({"SpecialToken": {"id": )" + name(id) + R"(, "type_id": )" + type + "}}";
  };
  auto const sequence = [&](std::string const& text, std::string const& type) {
    std::string parts;
    for (Token const id : model.begin) parts += special(id, type) + ", ";
    parts += R"({"Sequence": {"id": ")" + text + R"(", "type_id": )" + type + "}}";
    for (Token const id : model.end) parts += ", " + special(id, type);
    return parts;
  };
  std::string tokens;
  std::set<Token> listed(model.begin.begin(), model.begin.end());
  listed.insert(model.end.begin(), model.end.end());
  for (Token const id : listed) {
    tokens += (tokens.empty() ? "" : ", ") + name(id) + R"(: {"id": )" + name(id) + R"(, "ids": [)" +
              std::to_string(id) + R"(], "tokens": [)" + name(id) + "]}";
  }
  return R"({"type": "TemplateProcessing", "single": [)" + sequence("A", "0") + R"(], "pair": [)" +
         sequence("A", "0") + ", " + sequence("B", "1") + R"(], "special_tokens": {)" + tokens + "}}";
}

/// How the vocabulary spells each token, as JSON strings.
[[nodiscard]] inline std::vector<std::string> spelled_tokens(TokenizerModel const& model) {
  bool const byte_level = model.kind == TokenizerKind::ByteLevel;
  std::vector<std::string> spelled(model.tokens.size());
  for (std::size_t id = 0; id < spelled.size(); ++id) {
    spelled[id] = byte_level ? to_byte_level(model.tokens[id]) : spaces_to_marks(model.tokens[id]);
  }
  if (has_byte_tokens(model)) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      spelled[static_cast<std::size_t>(model.byte_tokens[byte])] = byte_token_text(static_cast<unsigned char>(byte));
    }
  }
  for (AddedToken const& token : model.added) spelled[static_cast<std::size_t>(token.id)] = token.content;
  for (std::string& text : spelled) text = json_quoted(text);
  return spelled;
}

}  // namespace detail

/// Writes a tokenizer.json, with every token in the vocabulary in order of id and merges as pairs.
/// @throws mor::error InvalidArgument when a token is not valid UTF-8, or the format has no such rules for spaces
[[nodiscard]] inline std::string format_tokenizer_json(TokenizerModel const& model) {
  std::vector<std::string> const spelled = detail::spelled_tokens(model);
  auto const token_json = [&](Token id) -> std::string const& { return spelled[static_cast<std::size_t>(id)]; };

  std::string text = "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [";
  char const* separator = "\n";
  for (AddedToken const& token : model.added) {
    text.append(separator).append(detail::added_token_json(token));
    separator = ",\n";
  }
  text += "\n  ],\n  \"normalizer\": " + detail::normalizer_json(model);
  text += ",\n  \"pre_tokenizer\": " + detail::pre_tokenizer_json(model);
  text += ",\n  \"post_processor\": " + detail::post_processor_json(model, spelled);
  text += ",\n  \"decoder\": " + detail::decoder_json(model);
  text += ",\n  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": ";
  text += model.unknown ? token_json(*model.unknown) : "null";
  text += ",\n    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": ";
  text += detail::json_text(model.fuse_unknown);
  text += ",\n    \"byte_fallback\": ";
  text += detail::json_text(detail::has_byte_tokens(model));
  text += ",\n    \"ignore_merges\": ";
  text += detail::json_text(model.ignore_merges);
  text += ",\n    \"vocab\": {";
  separator = "\n";
  for (std::size_t id = 0; id < spelled.size(); ++id) {
    text.append(separator).append("      ").append(spelled[id]).append(": ").append(std::to_string(id));
    separator = ",\n";
  }
  text += "\n    },\n    \"merges\": [";
  separator = "\n";
  for (Merge const& merge : model.merges) {
    text.append(separator).append("      [").append(token_json(merge.left)).append(", ");
    text.append(token_json(merge.right)).append("]");
    separator = ",\n";
  }
  return text += "\n    ]\n  }\n}\n";
}

}  // namespace mor::io
