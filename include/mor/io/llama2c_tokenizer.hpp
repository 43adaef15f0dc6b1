// SPDX-License-Identifier: Apache-2.0
/// @file
/// Reads the tokenizer files of llama2.c (`tok*.bin`): the length of the longest piece, then for each token its score,
/// the length of its text, and the text, as little-endian int32, float32 and int32. Tokens 0, 1 and 2 are the unknown
/// token, the beginning and the end of a text; tokens 3 to 258 are the bytes.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"
#include "mor/core/types.hpp"
#include "mor/core/utf8.hpp"
#include "mor/io/byte_token.hpp"
#include "mor/io/scored_vocabulary.hpp"
#include "mor/io/space_rules.hpp"
#include "mor/io/tokenizer_model.hpp"

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace mor::io {

namespace detail {

/// One pass over the bytes of a tok*.bin.
class Llama2cTokenizerReader {
 public:
  Llama2cTokenizerReader(std::string_view bytes, std::string const& file) : bytes_(bytes), file_(file) {}

  [[nodiscard]] TokenizerModel run() {
    longest_ = read_integer("the length of the longest token");
    if (longest_ < 1 || longest_ > static_cast<std::int64_t>(max_piece_bytes)) {
      refuse(0, "the length of the longest token is out of range", "1 to " + std::to_string(max_piece_bytes),
             std::to_string(longest_));
    }
    std::vector<ScoredPiece> pieces;
    while (at_ < bytes_.size()) pieces.push_back(read_piece(pieces.size()));
    if (pieces.size() < first_piece) {
      refuse(at_, "the file ends before the last byte token", "at least " + std::to_string(first_piece) + " tokens",
             std::to_string(pieces.size()));
    }
    TokenizerModel model;
    model.kind = TokenizerKind::SentencePiece;
    model.spaces = {SpacePrefix::Always, false, SpaceStrip::One};
    for (ScoredPiece const& piece : pieces) model.tokens.push_back(piece.text);
    for (Token id = 0; id < first_byte; ++id) {
      model.added.push_back({id, model.tokens[static_cast<std::size_t>(id)], true, false});
    }
    for (Token byte = 0; byte < 256; ++byte) model.byte_tokens[static_cast<std::size_t>(byte)] = first_byte + byte;
    model.unknown = 0;
    model.begin = {1};
    model.merges = merges_of_scores(pieces);
    return model;
  }

 private:
  static constexpr Token first_byte = 3;
  static constexpr std::size_t first_piece = first_byte + 256;

  [[noreturn]] void refuse(std::size_t at, std::string what, std::string expected, std::string got) const {
    fail(ErrorCode::MalformedFile, std::move(what), file_ + ": byte " + std::to_string(at), std::move(expected),
         std::move(got));
  }

  [[nodiscard]] std::uint32_t read_word(std::string const& what) {
    std::size_t const left = bytes_.size() - at_;
    if (left < 4) refuse(at_, "the file ends inside " + what, "4 bytes", std::to_string(left));
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < 4; ++i) {
      value |= std::uint32_t{static_cast<unsigned char>(bytes_[at_ + i])} << (8 * i);
    }
    at_ += 4;
    return value;
  }
  [[nodiscard]] std::int64_t read_integer(std::string const& what) {
    return std::bit_cast<std::int32_t>(read_word(what));
  }

  [[nodiscard]] ScoredPiece read_piece(std::size_t id) {
    std::string const name = "token " + std::to_string(id);
    std::size_t const begin = at_;
    if (id >= max_vocab_size) refuse(begin, "too many tokens", "at most " + std::to_string(max_vocab_size), "more");
    ScoredPiece piece;
    piece.score = std::bit_cast<float>(read_word("the score of " + name));
    if (!std::isfinite(piece.score)) {
      refuse(begin, "the score of " + name + " is not finite", "a finite number", std::to_string(piece.score));
    }
    std::int64_t const length = read_integer("the length of " + name);
    if (length < 1 || length > longest_) {
      refuse(begin + 4, "the length of " + name + " is out of range", "1 to " + std::to_string(longest_),
             std::to_string(length));
    }
    std::size_t const left = bytes_.size() - at_;
    if (left < static_cast<std::size_t>(length)) {
      refuse(at_, "the file ends inside the text of " + name, std::to_string(length) + " bytes", std::to_string(left));
    }
    std::string_view const text = bytes_.substr(at_, static_cast<std::size_t>(length));
    read_text(id, text, piece);
    at_ += text.size();
    return piece;
  }

  void read_text(std::size_t id, std::string_view text, ScoredPiece& piece) {
    std::string const name = "the text of token " + std::to_string(id);
    if (!valid_utf8(text)) refuse(at_, name + " is not valid UTF-8", "UTF-8", printable(text));
    if (id >= static_cast<std::size_t>(first_byte) && id < first_piece) {
      auto const byte = static_cast<unsigned char>(id - static_cast<std::size_t>(first_byte));
      if (text != byte_token_text(byte)) refuse(at_, name + " is wrong", byte_token_text(byte), printable(text));
      piece.text.assign(1, static_cast<char>(byte));
      return;
    }
    piece.mergeable = id >= first_piece;
    if (!piece.mergeable) {  // llama2.c puts "\n<s>\n" for "<s>"
      std::size_t const first = text.find_first_not_of('\n');
      if (first == text.npos) refuse(at_, name + " is empty", "a name such as <s>", printable(text));
      text = text.substr(first, text.find_last_not_of('\n') + 1 - first);
    }
    piece.text = marks_to_spaces(text);
    auto const [place, is_new] = ids_.emplace(piece.text, id);
    if (!is_new) {
      refuse(at_, name + " is that of token " + std::to_string(place->second), "distinct texts", printable(text));
    }
  }

  std::string_view bytes_;
  std::string const& file_;
  std::size_t at_ = 0;
  std::int64_t longest_ = 0;
  std::unordered_map<std::string, std::size_t> ids_;
};

}  // namespace detail

/// Reads a tok*.bin of llama2.c. As in llama2.c a text is encoded with a space in front, and begins with token 1.
/// @param file  the name that errors carry
/// @throws mor::error MalformedFile with the byte at which the file is wrong
[[nodiscard]] inline TokenizerModel parse_llama2c_tokenizer(std::string_view bytes, std::string const& file) {
  return detail::Llama2cTokenizerReader(bytes, file).run();
}

}  // namespace mor::io
