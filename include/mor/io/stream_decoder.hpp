// SPDX-License-Identifier: Apache-2.0
/// @file
/// Text of tokens that come one by one, as a model generates them: never half a character.
#pragma once

#include "mor/core/types.hpp"
#include "mor/core/utf8.hpp"
#include "mor/io/tokenizer.hpp"

#include <string>
#include <string_view>

namespace mor::io {

/// Whether a stream of tokens begins a text, and so loses the space that its tokenizer put in front, or goes on with
/// one.
enum class StreamStart { Text, Continuation };

/// Turns tokens into text. Every returned piece is valid UTF-8 and ends between two characters; the pieces joined are
/// `to_valid_utf8` of the bytes that `Tokenizer::decode` gives for all tokens at once.
class StreamDecoder {
 public:
  /// @param tokenizer  must outlive the decoder
  explicit StreamDecoder(Tokenizer const& tokenizer, StreamStart start = StreamStart::Text,
                         SpecialOutput special = SpecialOutput::Omit)
      : tokenizer_(&tokenizer), special_(special), first_(start == StreamStart::Text) {}

  /// Takes the next token and returns the text that is now certain; it may be empty.
  /// @throws mor::error InvalidArgument for an id outside the vocabulary
  [[nodiscard]] std::string push(Token id) {
    std::string_view const bytes = tokenizer_->token_bytes(id, special_);
    if (bytes.empty() || !first_) return utf8_.push(bytes);
    first_ = false;
    return utf8_.push(tokenizer_->first_token_bytes(id));
  }

  /// Ends the text: an unfinished character becomes one U+FFFD.
  [[nodiscard]] std::string flush() { return utf8_.flush(); }

 private:
  Tokenizer const* tokenizer_;
  SpecialOutput special_;
  bool first_;  ///< the next token begins the text
  Utf8Stream utf8_;
};

}  // namespace mor::io
