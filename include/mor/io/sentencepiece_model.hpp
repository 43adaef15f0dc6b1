// SPDX-License-Identifier: Apache-2.0
/// @file
/// Reads SentencePiece's `tokenizer.model` where it holds a BPE model without text normalization, as that of Llama 2
/// does. What the file asks for and this library does not do is refused, never ignored.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"
#include "mor/core/types.hpp"
#include "mor/core/utf8.hpp"
#include "mor/io/byte_token.hpp"
#include "mor/io/protobuf_reader.hpp"
#include "mor/io/scored_vocabulary.hpp"
#include "mor/io/space_rules.hpp"
#include "mor/io/tokenizer_model.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

namespace mor::io {

namespace detail {

/// One pass over the message ModelProto of sentencepiece_model.proto; the numbers are that file's field numbers.
class SentencePieceReader {
 public:
  SentencePieceReader(std::string_view bytes, std::string const& file) : root_(bytes, file), file_(file) {}

  [[nodiscard]] TokenizerModel run() {
    model_.kind = TokenizerKind::SentencePiece;
    model_.byte_tokens.fill(TokenizerModel::no_token);
    if (!read_messages()) fail(ErrorCode::MalformedFile, "required field is missing", file_ + ": field trainer_spec");
    if (pieces_.empty()) fail(ErrorCode::MalformedFile, "the vocabulary is empty", file_ + ": field pieces");
    if (trims_) {
      fail(ErrorCode::Unsupported, "unsupported value", file_ + ": field normalizer_spec.remove_extra_whitespaces",
           "false", "true");
    }
    check_bytes();
    if (begin_ >= 0) set_begin();
    if (dummy_prefix_) model_.spaces = {SpacePrefix::Always, false, SpaceStrip::One};
    for (ScoredPiece const& piece : pieces_) model_.tokens.push_back(piece.text);
    model_.merges = merges_of_scores(pieces_);
    return std::move(model_);
  }

 private:
  enum PieceType : std::uint64_t { Normal = 1, Unknown = 2, Control = 3, UserDefined = 4, Unused = 5, Byte = 6 };

  bool read_messages() {
    bool has_trainer = false;
    while (root_.next()) {
      switch (root_.field()) {
        case 1: read_piece(root_.read_message("pieces")); break;
        case 2:
          read_trainer(root_.read_message("trainer_spec"));
          has_trainer = true;
          break;
        case 3: read_normalizer(root_.read_message("normalizer_spec"), "normalizer_spec"); break;
        case 5: read_normalizer(root_.read_message("denormalizer_spec"), "denormalizer_spec"); break;
        default: root_.skip();
      }
    }
    return has_trainer;
  }

  void read_piece(ProtobufReader message) {
    ScoredPiece piece;
    std::string_view text;
    std::uint64_t type = Normal;
    while (message.next()) {
      switch (message.field()) {
        case 1: text = message.read_bytes("piece"); break;
        case 2: piece.score = message.read_float("score"); break;
        case 3: type = message.read_integer("type"); break;
        default: message.skip();
      }
    }
    std::string const name = "piece " + std::to_string(pieces_.size());
    if (pieces_.size() >= max_vocab_size) {
      root_.refuse("too many pieces", "at most " + std::to_string(max_vocab_size), "more");
    }
    if (text.empty() || text.size() > max_piece_bytes) {
      root_.refuse("the length of " + name + " is out of range", "1 to " + std::to_string(max_piece_bytes) + " bytes",
                   std::to_string(text.size()));
    }
    if (!valid_utf8(text)) root_.refuse(name + " is not valid UTF-8", "UTF-8", printable(text));
    if (!std::isfinite(piece.score)) {
      root_.refuse("the score of " + name + " is not finite", "a finite number", std::to_string(piece.score));
    }
    add_piece(name, text, type, std::move(piece));
  }

  void add_piece(std::string const& name, std::string_view text, std::uint64_t type, ScoredPiece piece) {
    auto const id = static_cast<Token>(pieces_.size());
    piece.text = marks_to_spaces(text);
    if (type != Byte && !texts_.insert(piece.text).second) {
      root_.refuse(name + " repeats another", "distinct pieces", printable(text));
    }
    switch (type) {
      case Normal: piece.mergeable = true; break;
      case Unknown:
        if (model_.unknown) root_.refuse(name + " is a second unknown piece", "one", printable(text));
        model_.unknown = id;
        [[fallthrough]];
      case Control:
      case UserDefined: model_.added.push_back({id, piece.text, type != UserDefined, false}); break;
      case Byte: {
        auto const byte = parse_byte_token(text);
        if (!byte || text != byte_token_text(*byte)) {
          root_.refuse(name + " is no byte", "<0x00> to <0xFF>", printable(text));
        }
        Token& place = model_.byte_tokens[*byte];
        if (place != TokenizerModel::no_token) root_.refuse(name + " repeats a byte", "one a byte", printable(text));
        place = id;
        piece.text.assign(1, static_cast<char>(*byte));
        break;
      }
      default: root_.refuse("unknown type of " + name, "1 to 4, or 6", std::to_string(type), ErrorCode::Unsupported);
    }
    pieces_.push_back(std::move(piece));
  }

  void read_trainer(ProtobufReader message) {
    std::uint64_t type = 1;  // unigram, unless the file says otherwise
    while (message.next()) {
      switch (message.field()) {
        case 3: type = message.read_integer("model_type"); break;
        case 24:
          expect(message, "treat_whitespace_as_suffix", message.read_boolean("treat_whitespace_as_suffix"), false);
          break;
        case 41: begin_ = static_cast<std::int32_t>(message.read_integer("bos_id")); break;
        default: message.skip();
      }
    }
    if (type != 2) {
      fail(ErrorCode::Unsupported, "unsupported value", file_ + ": field trainer_spec.model_type", "2 (BPE)",
           std::to_string(type));
    }
  }

  void read_normalizer(ProtobufReader message, char const* name) {
    bool const before_encoding = std::string_view(name) == "normalizer_spec";
    while (message.next()) {
      switch (message.field()) {
        case 2:
          if (std::string_view const map = message.read_bytes("precompiled_charsmap"); !map.empty()) {
            message.refuse("unsupported value of precompiled_charsmap", "no normalization",
                           std::to_string(map.size()) + " bytes", ErrorCode::Unsupported);
          }
          break;
        case 3: {
          bool const prefix = message.read_boolean("add_dummy_prefix");
          if (before_encoding) dummy_prefix_ = prefix;
          break;
        }
        case 4: {
          bool const trims = message.read_boolean("remove_extra_whitespaces");
          if (before_encoding) trims_ = trims;
          break;
        }
        case 5: expect(message, "escape_whitespaces", message.read_boolean("escape_whitespaces"), true); break;
        default: message.skip();
      }
    }
  }

  static void expect(ProtobufReader const& message, char const* name, bool value, bool wanted) {
    if (value == wanted) return;
    message.refuse(std::string("unsupported value of ") + name, wanted ? "true" : "false", value ? "true" : "false",
                   ErrorCode::Unsupported);
  }

  void check_bytes() const {
    std::size_t count = 0;
    for (Token const id : model_.byte_tokens) count += id != TokenizerModel::no_token;
    if (count == 0 || count == 256) return;
    fail(ErrorCode::Unsupported, "some bytes have a piece and some do not", file_ + ": field pieces", "0 or 256",
         std::to_string(count));
  }

  void set_begin() {
    for (AddedToken const& token : model_.added) {
      if (token.id == begin_ && token.special) model_.begin = {begin_};
    }
    if (!model_.begin.empty()) return;
    fail(ErrorCode::MalformedFile, "not a control piece", file_ + ": field trainer_spec.bos_id", "its id",
         std::to_string(begin_));
  }

  ProtobufReader root_;
  std::string const& file_;
  TokenizerModel model_;
  std::vector<ScoredPiece> pieces_;
  std::unordered_set<std::string> texts_;
  Token begin_ = 1;  ///< -1: none
  bool dummy_prefix_ = true, trims_ = true;
};

}  // namespace detail

/// Reads a tokenizer.model. As with Llama 2, a text begins with the control piece named by `bos_id`.
/// @param file  the name that errors carry
/// @throws mor::error MalformedFile with the byte or field at which the file is wrong, Unsupported for other models
/// than
///         BPE and for text normalization
[[nodiscard]] inline TokenizerModel parse_sentencepiece_model(std::string_view bytes, std::string const& file) {
  return detail::SentencePieceReader(bytes, file).run();
}

}  // namespace mor::io
