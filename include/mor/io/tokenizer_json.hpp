// SPDX-License-Identifier: Apache-2.0
/// @file
/// A TokenizerModel as the text of a Hugging Face `tokenizer.json`, and back.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/utf8.hpp"
#include "mor/io/byte_level.hpp"
#include "mor/io/json.hpp"
#include "mor/io/tokenizer_model.hpp"
#include "mor/io/tokenizer_reader.hpp"

#include <cstddef>
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

[[nodiscard]] inline std::string pre_tokenizer_json(SplitRules rules) {
  std::string text = R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": )";
  text.append(json_text(rules.split_words)).append("}");
  if (rules.digits == DigitSplit::None) return text;
  std::string const individual = json_text(rules.digits == DigitSplit::Individual);
  return R"({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": )" + individual + "}, " +
         text + "]}";
}

}  // namespace detail

/// Writes a tokenizer.json, with every token in the vocabulary in order of id and merges as pairs.
/// @throws mor::error InvalidArgument when an added token is not valid UTF-8
[[nodiscard]] inline std::string format_tokenizer_json(TokenizerModel const& model) {
  std::vector<std::string> spelled(model.tokens.size());
  for (std::size_t id = 0; id < spelled.size(); ++id) spelled[id] = to_byte_level(model.tokens[id]);
  for (AddedToken const& token : model.added) spelled[static_cast<std::size_t>(token.id)] = token.content;
  for (std::string& text : spelled) text = detail::json_quoted(text);
  auto const token_json = [&](Token id) -> std::string const& { return spelled[static_cast<std::size_t>(id)]; };

  std::string text = "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [";
  char const* separator = "\n";
  for (AddedToken const& token : model.added) {
    text.append(separator).append(detail::added_token_json(token));
    separator = ",\n";
  }
  text += "\n  ],\n  \"normalizer\": null,\n  \"pre_tokenizer\": " + detail::pre_tokenizer_json(model.split);
  text += ",\n  \"post_processor\": null,\n  \"decoder\": ";
  text += R"({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true})";
  text += ",\n  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": ";
  text += model.unknown ? token_json(*model.unknown) : "null";
  text += ",\n    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": ";
  text += detail::json_text(model.fuse_unknown);
  text += ",\n    \"byte_fallback\": false,\n    \"ignore_merges\": ";
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
