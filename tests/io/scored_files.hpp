// SPDX-License-Identifier: Apache-2.0
/// @file
/// Small tokenizer files with scores, byte by byte: llama2.c's tok.bin and SentencePiece's tokenizer.model.
#pragma once

#include "mor/io/byte_token.hpp"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace scored_files {

/// Ordinary pieces with their scores, spaces as spaces.
using Pieces = std::vector<std::pair<std::string, float>>;

inline void add_word(std::string& file, std::uint32_t value) {
  for (int shift = 0; shift < 32; shift += 8) file += static_cast<char>(value >> shift & 0xFF);
}

/// One record of a tok.bin.
inline std::string record(std::string_view text, float score) {
  std::string bytes;
  add_word(bytes, std::bit_cast<std::uint32_t>(score));
  add_word(bytes, static_cast<std::uint32_t>(text.size()));
  return bytes.append(text);
}

/// The length of the longest token, the three special tokens, the bytes, and the pieces.
inline std::string tok_bin(Pieces const& pieces, std::uint32_t longest = 27) {
  std::string file;
  add_word(file, longest);
  for (char const* name : {"<unk>", "\n<s>\n", "\n</s>\n"}) file += record(name, 0.0F);
  for (int byte = 0; byte < 256; ++byte) {
    file += record(mor::io::byte_token_text(static_cast<unsigned char>(byte)), 0.0F);
  }
  for (auto const& [text, score] : pieces) file += record(text, score);
  return file;
}

/// A field of a message in the wire format of protocol buffers.
inline std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes += static_cast<char>(value);
}
inline std::string integer_field(std::uint64_t number, std::uint64_t value) {
  return varint(number << 3) + varint(value);
}
inline std::string bytes_field(std::uint64_t number, std::string const& bytes) {
  return varint(number << 3 | 2) + varint(bytes.size()) + bytes;
}
inline std::string float_field(std::uint64_t number, float value) {
  std::string bytes = varint(number << 3 | 5);
  add_word(bytes, std::bit_cast<std::uint32_t>(value));
  return bytes;
}

/// @param type  1 normal, 2 unknown, 3 control, 4 user-defined, 6 byte
inline std::string piece_field(std::string const& text, float score, std::uint64_t type) {
  return bytes_field(1, bytes_field(1, text) + float_field(2, score) + integer_field(3, type));
}

inline std::string special_pieces() {
  return piece_field("<unk>", 0, 2) + piece_field("<s>", 0, 3) + piece_field("</s>", 0, 3);
}
inline std::string byte_pieces() {
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) {
    bytes += piece_field(mor::io::byte_token_text(static_cast<unsigned char>(byte)), 0, 6);
  }
  return bytes;
}
inline std::string trainer() {
  return bytes_field(2, integer_field(3, 2) + integer_field(41, 1));
}
inline std::string normalizer() {
  return bytes_field(3, bytes_field(1, "identity") + integer_field(3, 1) + integer_field(4, 0) + integer_field(5, 1));
}

/// The same vocabulary as `tok_bin` gives.
inline std::string sentencepiece_model(Pieces const& pieces) {
  std::string file = special_pieces() + byte_pieces();
  for (auto const& [text, score] : pieces) file += piece_field(text, score, 1);
  return file + trainer() + normalizer();
}

}  // namespace scored_files
