// SPDX-License-Identifier: Apache-2.0
/// @file
/// Text to token ids and back: byte-level byte-pair encoding as in GPT-2, SmolLM2 and their relatives, with the same
/// ids as Hugging Face tokenizers for the same `tokenizer.json`.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/io/added_tokens.hpp"
#include "mor/io/bpe.hpp"
#include "mor/io/file.hpp"
#include "mor/io/pretokenizer.hpp"
#include "mor/io/tokenizer_json.hpp"
#include "mor/io/tokenizer_model.hpp"
#include "mor/io/word_cache.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace mor::io {

/// What `Tokenizer::encode` does where the text spells a special token such as `<|endoftext|>`.
enum class SpecialInput {
  Parse,     ///< it becomes that token, as with Hugging Face
  PlainText  ///< it is text like any other: for text from strangers, who must not be able to forge control tokens
};

/// What special tokens become when tokens are turned back into bytes.
enum class SpecialOutput { Keep, Omit };

/// A byte-level BPE tokenizer. A value: copies are independent, const members may be called from several threads.
///
/// When the vocabulary has a token for every byte (`is_lossless`), `decode(encode(x)) == x` for all byte strings x,
/// valid UTF-8 or not. Some published vocabularies lack bytes that never occur in UTF-8, or a few control characters;
/// like Hugging Face's, this tokenizer then drops these bytes or replaces them by the file's unknown token.
class Tokenizer {
 public:
  /// @throws mor::error InvalidArgument when the model contradicts itself
  explicit Tokenizer(TokenizerModel model) : model_(std::move(model)) {
    detail::check_tokenizer_model(model_);
    merge_table_ = detail::MergeTable(model_.merges);
    is_special_.resize(model_.tokens.size());
    for (AddedToken const& token : model_.added) is_special_[static_cast<std::size_t>(token.id)] = token.special;
    for (std::size_t mode = 0; mode < 2; ++mode) {
      for (std::size_t stage = 0; stage < 2; ++stage) {
        std::vector<AddedToken> wanted;
        for (AddedToken const& token : model_.added) {
          bool const parsed = mode == static_cast<std::size_t>(SpecialInput::Parse) || !token.special;
          if (parsed && token.normalized == (stage == 1)) wanted.push_back(token);
        }
        matchers_[mode][stage] = detail::AddedTokenMatcher(std::move(wanted));
      }
    }
    if (model_.ignore_merges) index_whole_words();
  }

  /// The tokenizer that needs no file: token b is the byte b, token 256 is `<|endoftext|>`.
  [[nodiscard]] static Tokenizer byte_level() {
    TokenizerModel model;
    for (std::size_t byte = 0; byte < 256; ++byte) {
      model.tokens.emplace_back(1, static_cast<char>(byte));
      model.byte_tokens[byte] = static_cast<Token>(byte);
    }
    model.tokens.emplace_back(end_of_text);
    model.added.push_back({256, std::string(end_of_text), true, false});
    return Tokenizer(std::move(model));
  }

  /// Reads a Hugging Face `tokenizer.json`.
  /// @throws mor::error IoFailure, MalformedFile or Unsupported, with the file and the field
  [[nodiscard]] static Tokenizer load(std::filesystem::path const& path) {
    return Tokenizer(parse_tokenizer_json(read_file(path), path.string()));
  }

  /// Writes a Hugging Face `tokenizer.json`, in one step: the file is the old or the new one, never a part.
  /// @throws mor::error IoFailure; InvalidArgument when the format has no spelling for this tokenizer
  void save(std::filesystem::path const& path) const {
    std::string const text = format_tokenizer_json(model_);
    // Only added tokens put together by hand can clash with the spelling of others; better found now than on load.
    if (parse_tokenizer_json(text, path.string()) != model_) {
      fail(ErrorCode::InvalidArgument, "tokenizer.json cannot express this tokenizer", path.string());
    }
    write_file(path, text);
  }

  /// The ids of a text. Any bytes are accepted. Time grows as n log n with the longest word, linearly otherwise.
  [[nodiscard]] std::vector<Token> encode(std::string_view text, SpecialInput special = SpecialInput::Parse) const {
    std::vector<Token> ids;
    ids.reserve(text.size() / 3 + 1);
    detail::WordCache cache(text.size());
    auto const& matchers = matchers_[static_cast<std::size_t>(special)];
    split_added(matchers[0], text, ids, [&](std::string_view outer) {
      split_added(matchers[1], outer, ids, [&](std::string_view inner) {
        split_text(inner, model_.split, [&](std::string_view word) { encode_word(word, cache, ids); });
      });
    });
    return ids;
  }

  /// The bytes that the tokens stand for, joined; not necessarily valid UTF-8 (see Utf8Stream for streaming).
  /// @throws mor::error InvalidArgument for an id outside [0, vocab_size)
  [[nodiscard]] std::string decode(std::span<Token const> ids, SpecialOutput special = SpecialOutput::Keep) const {
    std::string bytes;
    for (Token const id : ids) bytes += token_bytes(id, special);
    return bytes;
  }

  /// The bytes of one token, none for a special token unless asked. The view lives as long as the tokenizer.
  /// @throws mor::error InvalidArgument for an id outside [0, vocab_size)
  [[nodiscard]] std::string_view token_bytes(Token id, SpecialOutput special = SpecialOutput::Omit) const {
    detail::check_token_id(id, model_, "tokenizer");
    auto const index = static_cast<std::size_t>(id);
    if (special == SpecialOutput::Omit && is_special_[index]) return {};
    return model_.tokens[index];
  }

  /// Number of tokens, added ones included; ids are [0, vocab_size).
  [[nodiscard]] Index vocab_size() const noexcept { return static_cast<Index>(model_.tokens.size()); }

  /// The id of an added token by its text, such as `<|im_end|>`.
  [[nodiscard]] std::optional<Token> added_token_id(std::string_view content) const {
    for (AddedToken const& token : model_.added) {
      if (token.content == content) return token.id;
    }
    return std::nullopt;
  }

  /// The token that separates documents: of `<|endoftext|>`, `<|end_of_text|>` and `</s>` the first that was added.
  [[nodiscard]] std::optional<Token> end_of_text_id() const {
    for (std::string_view const name : {end_of_text, std::string_view("<|end_of_text|>"), std::string_view("</s>")}) {
      if (std::optional<Token> const id = added_token_id(name)) return id;
    }
    return std::nullopt;
  }

  /// Whether every byte has a token, so that no text loses anything.
  [[nodiscard]] bool is_lossless() const {
    auto const& ids = model_.byte_tokens;
    return std::find(ids.begin(), ids.end(), TokenizerModel::no_token) == ids.end();
  }

  /// The data this tokenizer was made of.
  [[nodiscard]] TokenizerModel const& model() const noexcept { return model_; }

 private:
  struct TextHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const noexcept { return std::hash<std::string_view>()(text); }
  };

  void index_whole_words() {
    for (std::size_t id = 0; id < model_.tokens.size(); ++id) {
      whole_words_.emplace(model_.tokens[id], static_cast<Token>(id));
    }
    for (AddedToken const& token : model_.added) whole_words_.erase(token.content);
  }

  /// Appends the added tokens that `matcher` finds, and calls `visit` for the text between them.
  template <class Visit>
  static void split_added(detail::AddedTokenMatcher const& matcher, std::string_view text, std::vector<Token>& ids,
                          Visit&& visit) {
    for (std::size_t at = 0; at < text.size();) {
      detail::AddedTokenMatcher::Match const match = matcher.find(text, at);
      if (match.begin > at) visit(text.substr(at, match.begin - at));
      if (match.length > 0) ids.push_back(match.id);
      at = match.begin + match.length;
    }
  }

  void encode_word(std::string_view word, detail::WordCache& cache, std::vector<Token>& ids) const {
    detail::WordCache::Entry* const slot = cache.slot(word);
    std::size_t const begin = ids.size();
    if (slot != nullptr && slot->holds(word)) {
      ids.resize(begin + slot->count);
      std::copy_n(ids.begin() + std::ptrdiff_t(slot->begin), slot->count, ids.begin() + std::ptrdiff_t(begin));
      return;
    }
    encode_new_word(word, ids);
    if (slot != nullptr) *slot = {word, begin, ids.size() - begin};
  }

  void encode_new_word(std::string_view word, std::vector<Token>& ids) const {
    if (model_.ignore_merges) {
      if (auto const whole = whole_words_.find(word); whole != whole_words_.end()) {
        ids.push_back(whole->second);
        return;
      }
    }
    std::size_t const begin = ids.size();
    bool after_unknown = false;
    for (char const byte : word) {
      Token const id = model_.byte_tokens[static_cast<unsigned char>(byte)];
      bool const known = id != TokenizerModel::no_token;
      if (known) {
        ids.push_back(id);
      } else if (model_.unknown && !(after_unknown && model_.fuse_unknown)) {
        ids.push_back(*model_.unknown);
      }
      after_unknown = !known;
    }
    ids.resize(begin + detail::merge_word(merge_table_, std::span(ids).subspan(begin)));
  }

  TokenizerModel model_;
  detail::MergeTable merge_table_;
  std::vector<bool> is_special_;
  /// Added tokens to look for, by SpecialInput, then in two passes: those that are not `normalized` and those that are.
  std::array<std::array<detail::AddedTokenMatcher, 2>, 2> matchers_;
  std::unordered_map<std::string, Token, TextHash, std::equal_to<>> whole_words_;  ///< only with ignore_merges
};

}  // namespace mor::io
