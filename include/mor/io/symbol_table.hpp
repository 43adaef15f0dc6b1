// SPDX-License-Identifier: Apache-2.0
/// @file
/// The symbols that merging starts from: the tokens of a word's bytes (byte-level) or of its characters, where a
/// character without a token becomes its bytes (SentencePiece with byte fallback).
#pragma once

#include "mor/core/types.hpp"
#include "mor/core/utf8.hpp"
#include "mor/io/tokenizer_model.hpp"

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace mor::io::detail {

/// From the text of a word to its first symbols. A value, made from a model that it does not refer to afterwards.
class SymbolTable {
 public:
  SymbolTable() = default;

  explicit SymbolTable(TokenizerModel const& model)
      : kind_(model.kind), bytes_(model.byte_tokens), unknown_(model.unknown), fuse_unknown_(model.fuse_unknown) {
    ascii_.fill(TokenizerModel::no_token);
    if (kind_ == TokenizerKind::ByteLevel) return;
    std::vector<bool> skipped(model.tokens.size());
    for (Token const id : model.byte_tokens) {
      if (id != TokenizerModel::no_token) skipped[static_cast<std::size_t>(id)] = true;
    }
    for (AddedToken const& token : model.added) skipped[static_cast<std::size_t>(token.id)] = true;
    for (std::size_t id = 0; id < model.tokens.size(); ++id) {
      std::string_view const text = model.tokens[id];
      if (skipped[id] || text.empty() || text.size() > 4) continue;
      Utf8Step const step = decode_utf8(text, 0);
      if (step.status != Utf8Status::Valid || step.length != text.size()) continue;
      if (step.code_point < ascii_.size()) {
        Token& place = ascii_[step.code_point];
        if (place == TokenizerModel::no_token) place = static_cast<Token>(id);
      } else {
        characters_.emplace(step.code_point, static_cast<Token>(id));
      }
    }
  }

  /// Appends the symbols of the word.
  void append(std::string_view word, std::vector<Token>& ids) const {
    bool after_unknown = false;
    if (kind_ == TokenizerKind::ByteLevel) {
      for (char const byte : word) append_byte(byte, ids, after_unknown);
      return;
    }
    for (std::size_t at = 0; at < word.size();) {
      auto const first = static_cast<unsigned char>(word[at]);
      std::size_t length = 1;
      Token id = TokenizerModel::no_token;
      if (first < ascii_.size()) {
        id = ascii_[first];
      } else if (Utf8Step const step = decode_utf8(word, at); step.status == Utf8Status::Valid) {
        length = step.length;
        if (auto const found = characters_.find(step.code_point); found != characters_.end()) id = found->second;
      }
      if (id != TokenizerModel::no_token) {
        ids.push_back(id);
        after_unknown = false;
      } else if (bytes_[0] != TokenizerModel::no_token) {
        for (char const byte : word.substr(at, length)) append_byte(byte, ids, after_unknown);
      } else {
        append_unknown(ids, after_unknown);
      }
      at += length;
    }
  }

 private:
  void append_byte(char byte, std::vector<Token>& ids, bool& after_unknown) const {
    Token const id = bytes_[static_cast<unsigned char>(byte)];
    if (id == TokenizerModel::no_token) {
      append_unknown(ids, after_unknown);
    } else {
      ids.push_back(id);
      after_unknown = false;
    }
  }

  void append_unknown(std::vector<Token>& ids, bool& after_unknown) const {
    if (unknown_ && !(after_unknown && fuse_unknown_)) ids.push_back(*unknown_);
    after_unknown = true;
  }

  TokenizerKind kind_ = TokenizerKind::ByteLevel;
  std::array<Token, 256> bytes_{};
  std::array<Token, 128> ascii_{};
  std::unordered_map<char32_t, Token> characters_;  ///< beyond ASCII
  std::optional<Token> unknown_;
  bool fuse_unknown_ = false;
};

}  // namespace mor::io::detail
