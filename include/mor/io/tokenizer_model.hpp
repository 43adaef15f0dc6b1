// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a BPE tokenizer is, as plain data, and the conditions this data must meet.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"
#include "mor/core/types.hpp"
#include "mor/io/added_tokens.hpp"
#include "mor/io/bpe.hpp"
#include "mor/io/byte_level.hpp"
#include "mor/io/pretokenizer.hpp"
#include "mor/io/space_rules.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

namespace mor::io {

/// Limits of what is accepted from a file, and produced by training.
inline constexpr std::size_t max_vocab_size = 1'000'000, max_token_bytes = 4096;

/// Text of the token that separates documents.
inline constexpr std::string_view end_of_text = "<|endoftext|>";

/// What the symbols are that merging starts from.
enum class TokenizerKind : std::uint8_t {
  ByteLevel,     ///< bytes, in words by `SplitRules`: GPT-2, SmolLM2
  SentencePiece  ///< characters, spaces by `SpaceRules`; a character without a token becomes bytes: Llama 2
};

/// A BPE tokenizer as data. The index of `tokens` is the token id.
struct TokenizerModel {
  static constexpr Token no_token = -1;

  TokenizerKind kind = TokenizerKind::ByteLevel;
  std::vector<std::string> tokens;       ///< the bytes each token stands for, spaces as spaces
  std::array<Token, 256> byte_tokens{};  ///< the token of each byte; `no_token` where the vocabulary has none
  std::vector<Merge> merges;             ///< in order of rank
  std::vector<AddedToken> added;
  SplitRules split;              ///< ByteLevel only
  SpaceRules spaces;             ///< SentencePiece only
  std::vector<Token> begin, end;  ///< what surrounds a whole text, such as `<s>`; `Tokenizer::encode` leaves it out
  std::optional<Token> unknown;  ///< what a byte or character without a token becomes; without it, it is dropped
  bool fuse_unknown = false;     ///< a run of them becomes one token
  bool ignore_merges = false;    ///< a word that is a token becomes that token, whatever the merges say
  bool operator==(TokenizerModel const&) const = default;
};

namespace detail {

inline void check_token_id(Token id, TokenizerModel const& model, std::string const& where) {
  if (id >= 0 && static_cast<std::size_t>(id) < model.tokens.size()) return;
  fail(ErrorCode::InvalidArgument, "token id out of range", where,
       "an id in [0, " + std::to_string(model.tokens.size()) + ")", std::to_string(id));
}

/// The bytes of an added token: its text, in which a SentencePiece-style tokenizer may spell spaces as U+2581.
[[nodiscard]] inline std::string added_token_bytes(AddedToken const& token, TokenizerKind kind) {
  return kind == TokenizerKind::SentencePiece ? marks_to_spaces(token.content) : token.content;
}

/// Throws InvalidArgument when the rules are not those of the model's kind.
inline void check_tokenizer_rules(TokenizerModel const& model) {
  auto const refuse = [](char const* what) { fail(ErrorCode::InvalidArgument, what, "tokenizer"); };
  if (model.kind == TokenizerKind::ByteLevel) {
    if (model.spaces != SpaceRules{}) refuse("a byte-level tokenizer has rules for spaces");
    return;
  }
  if (model.split != SplitRules{}) refuse("a SentencePiece-style tokenizer has rules for splitting words");
  bool const first = model.byte_tokens[0] == TokenizerModel::no_token;
  for (Token const id : model.byte_tokens) {
    if ((id == TokenizerModel::no_token) != first) refuse("some bytes have a token for byte fallback and some do not");
  }
}

/// Throws InvalidArgument when the parts of a model contradict each other.
inline void check_tokenizer_model(TokenizerModel const& model) {
  auto const refuse = [](std::string what, std::string where, std::string_view text) {
    fail(ErrorCode::InvalidArgument, std::move(what), std::move(where), {}, printable(text));
  };
  auto const bytes_of = [&](Token id) -> std::string const& { return model.tokens[static_cast<std::size_t>(id)]; };
  if (model.tokens.empty() || model.tokens.size() > max_vocab_size) {
    fail(ErrorCode::InvalidArgument, "size of the vocabulary out of range", "tokenizer",
         "1 to " + std::to_string(max_vocab_size), std::to_string(model.tokens.size()));
  }
  check_tokenizer_rules(model);
  for (std::size_t byte = 0; byte < 256; ++byte) {
    Token const id = model.byte_tokens[byte];
    if (id == TokenizerModel::no_token) continue;
    check_token_id(id, model, "token of byte " + std::to_string(byte));
    if (bytes_of(id) != std::string(1, static_cast<char>(byte))) {
      refuse("the token of a byte stands for something else", "token of byte " + std::to_string(byte), bytes_of(id));
    }
  }
  for (std::size_t rank = 0; rank < model.merges.size(); ++rank) {
    auto const [left, right, result, same_rank] = model.merges[rank];
    std::string const where = "merge " + std::to_string(rank);
    for (Token const id : {left, right, result}) check_token_id(id, model, where);
    if (rank == 0 && same_rank) refuse("the first merge has the rank of the one before it", where, bytes_of(result));
    if (bytes_of(result) != bytes_of(left) + bytes_of(right)) {
      refuse("the result of a merge is not its parts joined", where, bytes_of(result));
    }
  }
  std::unordered_set<std::string_view> contents;
  for (AddedToken const& token : model.added) {
    check_token_id(token.id, model, "added token " + printable(token.content));
    if (token.content.empty() || bytes_of(token.id) != added_token_bytes(token, model.kind)) {
      refuse("the text of an added token is not its bytes", "added token " + std::to_string(token.id), token.content);
    }
    if (!contents.insert(token.content).second) refuse("an added token is repeated", "tokenizer", token.content);
  }
  if (model.unknown) check_token_id(*model.unknown, model, "unknown token");
  for (Token const id : model.begin) check_token_id(id, model, "token before a text");
  for (Token const id : model.end) check_token_id(id, model, "token after a text");
}

}  // namespace detail
}  // namespace mor::io
