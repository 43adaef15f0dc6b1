// SPDX-License-Identifier: Apache-2.0
/// @file
/// Text to token ids and back: byte-pair encoding of bytes as in GPT-2, SmolLM2 and their relatives, or of characters
/// with byte fallback as in Llama 2, with the same ids as Hugging Face tokenizers for the same `tokenizer.json`.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/io/added_tokens.hpp"
#include "mor/io/bpe.hpp"
#include "mor/io/file.hpp"
#include "mor/io/llama2c_tokenizer.hpp"
#include "mor/io/pretokenizer.hpp"
#include "mor/io/sentencepiece_model.hpp"
#include "mor/io/space_rules.hpp"
#include "mor/io/symbol_table.hpp"
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

/// A BPE tokenizer. A value: copies are independent, const members may be called from several threads.
///
/// When a byte-level vocabulary has a token for every byte (`is_lossless`), `decode(encode(x)) == x` for all byte
/// strings x, valid UTF-8 or not. Some published vocabularies lack bytes that never occur in UTF-8, or a few control
/// characters; like Hugging Face's, this tokenizer then drops these bytes or replaces them by the file's unknown token.
/// With byte fallback no byte is lost either, but U+2581 comes back as a space, and after an added token so does the
/// space that `SpaceRules` put in front.
class Tokenizer {
 public:
  /// @throws mor::error InvalidArgument when the model contradicts itself
  explicit Tokenizer(TokenizerModel model) : model_(std::move(model)) {
    detail::check_tokenizer_model(model_);
    merge_table_ = detail::MergeTable(model_.merges);
    symbols_ = detail::SymbolTable(model_);
    is_special_.resize(model_.tokens.size());
    for (AddedToken const& token : model_.added) is_special_[static_cast<std::size_t>(token.id)] = token.special;
    for (std::size_t mode = 0; mode < 2; ++mode) {
      for (std::size_t stage = 0; stage < 2; ++stage) {
        std::vector<AddedToken> wanted;
        for (AddedToken const& token : model_.added) {
          bool const parsed = mode == static_cast<std::size_t>(SpecialInput::Parse) || !token.special;
          if (parsed && token.normalized == (stage == 1)) wanted.push_back(stage == 1 ? as_normalized(token) : token);
        }
        matchers_[mode][stage] = detail::AddedTokenMatcher(std::move(wanted));
      }
    }
    merges_cross_spaces_ = find_merges_across_spaces();
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

  /// Reads the tokenizer of a file: `*.model` as SentencePiece's, `*.bin` as llama2.c's, anything else as a Hugging
  /// Face `tokenizer.json`.
  /// @throws mor::error IoFailure, MalformedFile or Unsupported, with the file and the field
  [[nodiscard]] static Tokenizer load(std::filesystem::path const& path) {
    std::string const bytes = read_file(path);
    if (path.extension() == ".model") return Tokenizer(parse_sentencepiece_model(bytes, path.string()));
    if (path.extension() == ".bin") return Tokenizer(parse_llama2c_tokenizer(bytes, path.string()));
    return Tokenizer(parse_tokenizer_json(bytes, path.string()));
  }

  /// Writes a Hugging Face `tokenizer.json`, in one step: the file is the old or the new one, never a part. The format
  /// knows no merges of one rank; they get ranks in the order in which they are listed.
  /// @throws mor::error IoFailure; InvalidArgument when the format has no spelling for this tokenizer
  void save(std::filesystem::path const& path) const {
    std::string const text = format_tokenizer_json(model_);
    // Only added tokens put together by hand can clash with the spelling of others; better found now than on load.
    TokenizerModel spelled = model_;
    for (Merge& merge : spelled.merges) merge.same_rank = false;
    if (parse_tokenizer_json(text, path.string()) != spelled) {
      fail(ErrorCode::InvalidArgument, "tokenizer.json cannot express this tokenizer", path.string());
    }
    write_file(path, text);
  }

  /// The ids of a text. Any bytes are accepted. Time grows as n log n with the longest word, linearly otherwise. What a
  /// model expects around a whole text is left out: see `begin_tokens`, `end_tokens`.
  [[nodiscard]] std::vector<Token> encode(std::string_view text, SpecialInput special = SpecialInput::Parse) const {
    std::vector<Token> ids;
    ids.reserve(text.size() / 3 + 1);
    detail::WordCache cache(text.size());
    Matchers const& matchers = matchers_[static_cast<std::size_t>(special)];
    if (model_.kind == TokenizerKind::SentencePiece) {
      encode_spaced(text, matchers, cache, ids);
      return ids;
    }
    split_added(matchers[0], text, ids, [&](std::string_view outer) {
      split_added(matchers[1], outer, ids, [&](std::string_view inner) {
        split_text(inner, model_.split, [&](std::string_view word) { encode_word(word, cache, ids); });
      });
    });
    return ids;
  }

  /// Tokens that the model expects before a whole text, such as `<s>`; often none.
  [[nodiscard]] std::span<Token const> begin_tokens() const noexcept { return model_.begin; }

  /// Tokens that the model expects after a whole text; mostly none.
  [[nodiscard]] std::span<Token const> end_tokens() const noexcept { return model_.end; }

  /// The bytes that the tokens stand for, joined, less the space put in front of a text; not necessarily valid UTF-8
  /// (see StreamDecoder for text that comes token by token).
  /// @throws mor::error InvalidArgument for an id outside [0, vocab_size)
  [[nodiscard]] std::string decode(std::span<Token const> ids, SpecialOutput special = SpecialOutput::Keep) const {
    std::string bytes;
    bool first = true;
    for (Token const id : ids) {
      std::string_view const more = token_bytes(id, special);
      if (first && !more.empty()) {
        bytes += first_token_bytes(id);
        first = false;
      } else {
        bytes += more;
      }
    }
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

  /// The bytes of a token that begins a text: less the space that the tokenizer put in front of the text.
  /// @throws mor::error InvalidArgument for an id outside [0, vocab_size)
  [[nodiscard]] std::string first_token_bytes(Token id) const {
    std::string bytes(token_bytes(id, SpecialOutput::Keep));
    SpaceStrip const strip = model_.spaces.strip;
    if (strip == SpaceStrip::One && bytes.starts_with(' ')) bytes.erase(0, 1);
    if (strip == SpaceStrip::FirstToken && id != model_.byte_tokens[' ']) std::erase(bytes, ' ');
    return bytes;
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

  /// Whether every byte string comes back from its tokens: the tokenizer is byte-level and every byte has a token.
  [[nodiscard]] bool is_lossless() const {
    auto const& ids = model_.byte_tokens;
    if (model_.kind != TokenizerKind::ByteLevel) return false;
    return std::find(ids.begin(), ids.end(), TokenizerModel::no_token) == ids.end();
  }

  /// The data this tokenizer was made of.
  [[nodiscard]] TokenizerModel const& model() const noexcept { return model_; }

 private:
  struct TextHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const noexcept { return std::hash<std::string_view>()(text); }
  };

  /// Added tokens to look for in two passes: those that are not `normalized` and those that are.
  using Matchers = std::array<detail::AddedTokenMatcher, 2>;

  /// Whether text is changed before the second pass for added tokens, as by a normalizer, or after it.
  [[nodiscard]] bool prefix_is_normalized() const noexcept {
    return model_.spaces.prefix == SpacePrefix::None || model_.spaces.prefix == SpacePrefix::Always;
  }

  /// The token as the second pass must look for it: a normalizer changes it like the text around it.
  [[nodiscard]] AddedToken as_normalized(AddedToken token) const {
    if (model_.kind == TokenizerKind::SentencePiece && prefix_is_normalized()) {
      token.content = detail::marks_to_spaces(token.content);
      if (model_.spaces.prefix == SpacePrefix::Always) token.content.insert(0, 1, ' ');
    }
    return token;
  }

  /// Whether the words between spaces must not be encoded one by one: a merge, a fused unknown token or a token that is
  /// looked up as a whole may reach across.
  [[nodiscard]] bool find_merges_across_spaces() const {
    if (model_.kind == TokenizerKind::ByteLevel) return false;
    if (model_.ignore_merges) return true;
    if (model_.byte_tokens[0] == TokenizerModel::no_token) {
      std::vector<Token> space;
      symbols_.append(" ", space);
      bool const space_is_known = !space.empty() && space.front() != model_.unknown;
      if (!model_.unknown || !space_is_known) return true;  // characters that are dropped let their neighbours meet
    }
    return std::any_of(model_.merges.begin(), model_.merges.end(), [&](Merge const& merge) {
      return detail::has_inner_space(model_.tokens[static_cast<std::size_t>(merge.result)]);
    });
  }

  /// Byte tokens are left out: a text that spells `<0x41>` must not come back as "A" (with Hugging Face it does).
  void index_whole_words() {
    for (std::size_t id = 0; id < model_.tokens.size(); ++id) {
      std::string const& bytes = model_.tokens[id];
      bool const fallback = model_.kind == TokenizerKind::SentencePiece && bytes.size() == 1 &&
                            model_.byte_tokens[static_cast<unsigned char>(bytes[0])] == static_cast<Token>(id);
      if (!fallback) whole_words_.emplace(bytes, static_cast<Token>(id));
    }
    for (AddedToken const& token : model_.added) {
      whole_words_.erase(detail::added_token_bytes(token, model_.kind));
    }
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

  void encode_spaced(std::string_view text, Matchers const& matchers, detail::WordCache& cache,
                     std::vector<Token>& ids) const {
    auto const normalize = [](std::string_view piece, bool prefix) {
      return (prefix ? " " : "") + detail::marks_to_spaces(piece);
    };
    auto const encode_piece = [&](std::string_view piece) {
      if (merges_cross_spaces_ && !model_.spaces.split) return encode_word(piece, cache, ids);
      detail::split_at_spaces(piece, model_.spaces.split,
                              [&](std::string_view word) { encode_word(word, cache, ids); });
    };
    SpacePrefix const prefix = model_.spaces.prefix;
    bool const normalized = prefix_is_normalized();
    split_added(matchers[0], text, ids, [&](std::string_view outer) {
      if (normalized) {
        std::string const changed = normalize(outer, prefix == SpacePrefix::Always);
        split_added(matchers[1], changed, ids, encode_piece);
        return;
      }
      split_added(matchers[1], outer, ids, [&](std::string_view inner) {
        bool const wanted = prefix == SpacePrefix::Pieces || inner.data() == text.data();
        encode_piece(normalize(inner, wanted && !detail::begins_with_space(inner)));
      });
    });
  }

  void encode_word(std::string_view word, detail::WordCache& cache, std::vector<Token>& ids) const {
    detail::WordKey const key(word);
    detail::WordCache::Entry* const slot = cache.slot(key);
    if (slot != nullptr && slot->holds(key)) {
      ids.insert(ids.end(), slot->ids().begin(), slot->ids().end());
      return;
    }
    std::size_t const begin = ids.size();
    encode_new_word(word, ids);
    if (slot != nullptr) slot->keep(key, std::span<Token const>(ids).subspan(begin));
  }

  void encode_new_word(std::string_view word, std::vector<Token>& ids) const {
    if (model_.ignore_merges) {
      if (auto const whole = whole_words_.find(word); whole != whole_words_.end()) {
        ids.push_back(whole->second);
        return;
      }
    }
    std::size_t const begin = ids.size();
    symbols_.append(word, ids);
    ids.resize(begin + detail::merge_word(merge_table_, std::span(ids).subspan(begin)));
  }

  TokenizerModel model_;
  detail::MergeTable merge_table_;
  detail::SymbolTable symbols_;
  std::vector<bool> is_special_;
  std::array<Matchers, 2> matchers_;  ///< by SpecialInput
  bool merges_cross_spaces_ = false;
  std::unordered_map<std::string, Token, TextHash, std::equal_to<>> whole_words_;  ///< only with ignore_merges
};

}  // namespace mor::io
