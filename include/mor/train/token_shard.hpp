// SPDX-License-Identifier: Apache-2.0
/// @file
/// Token shards, the files that training reads: llm.c's format. A header of 256 little-endian int32 (magic, version,
/// token count, the rest unused), then the tokens: magic 20240520 with version 1 for uint16, magic 20240801 with
/// version 7 for uint32.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/io/file.hpp"
#include "mor/io/mapped_file.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace mor::train {

static_assert(std::endian::native == std::endian::little, "token shards are little-endian and mapped as they are");

/// The two kinds of shard.
struct TokenShardFormat {
  std::int32_t magic = 0;
  std::int32_t version = 0;
  Index width = 0;  ///< bytes of a token
  bool operator==(TokenShardFormat const&) const = default;
};

inline constexpr TokenShardFormat kUint16Shard{20240520, 1, 2};
inline constexpr TokenShardFormat kUint32Shard{20240801, 7, 4};
inline constexpr Index kTokenShardHeaderBytes = 1024;

/// One shard, mapped read-only; its header is checked, its token ids are not (see TokenSource). Shards are written once
/// and not edited: one that another process truncates while it is mapped ends this process (see io::MappedFile).
class TokenShard {
 public:
  /// @throws mor::error MalformedFile naming the header field, IoFailure when the file cannot be read
  explicit TokenShard(std::filesystem::path const& path) : path_(path), mapping_(path) {
    Index const file_size = static_cast<Index>(mapping_.bytes().size());
    if (file_size < kTokenShardHeaderBytes) {
      reject("file size", "a header of " + text_of(kTokenShardHeaderBytes) + " bytes", text_of(file_size) + " bytes");
    }
    std::array<std::int32_t, 3> header{};  // magic, version, count
    std::memcpy(header.data(), mapping_.bytes().data(), sizeof(header));
    if (header[0] != kUint16Shard.magic && header[0] != kUint32Shard.magic) {
      reject("header[0] (magic)", text_of(kUint16Shard.magic) + " or " + text_of(kUint32Shard.magic),
             text_of(header[0]));
    }
    format_ = header[0] == kUint16Shard.magic ? kUint16Shard : kUint32Shard;
    if (header[1] != format_.version) {
      reject("header[1] (version)", text_of(format_.version), text_of(header[1]));
    }
    if (header[2] < 0) reject("header[2] (token count)", "0 or more", text_of(header[2]));
    size_ = header[2];
    Index const expected = kTokenShardHeaderBytes + size_ * format_.width;
    if (file_size != expected) {
      reject("file size",
             text_of(expected) + " bytes for " + text_of(size_) + " tokens of " + text_of(format_.width) + " bytes",
             text_of(file_size) + " bytes");
    }
  }

  [[nodiscard]] Index size() const { return size_; }  ///< tokens
  [[nodiscard]] TokenShardFormat const& format() const { return format_; }
  [[nodiscard]] std::filesystem::path const& path() const { return path_; }
  /// The tokens as stored: `size()` little-endian unsigned integers of `format().width` bytes.
  [[nodiscard]] std::byte const* data() const { return mapping_.bytes().data() + kTokenShardHeaderBytes; }

 private:
  [[noreturn]] void reject(std::string const& field, std::string expected, std::string got) const {
    fail(ErrorCode::MalformedFile, "not a token shard: wrong " + field, path_.string(), std::move(expected),
         std::move(got));
  }

  std::filesystem::path path_;
  io::MappedFile mapping_;
  TokenShardFormat format_;
  Index size_ = 0;
};

namespace detail {

/// Writes `tokens` after the header, converted to `Stored` through a small buffer.
template <class Stored>
void write_stored_tokens(io::FileWriter& writer, std::span<Token const> tokens) {
  std::vector<Stored> buffer(std::min<std::size_t>(tokens.size(), 1U << 16U));
  while (!tokens.empty()) {
    std::size_t const count = std::min(tokens.size(), buffer.size());
    for (std::size_t i = 0; i < count; ++i) buffer[i] = static_cast<Stored>(tokens[i]);
    writer.write(std::as_bytes(std::span<Stored const>(buffer.data(), count)));
    tokens = tokens.subspan(count);
  }
}

}  // namespace detail

/// Writes one shard; the file appears whole or not at all. Tokens take 2 bytes where every id of the vocabulary fits,
/// else 4.
/// @param tokens      [n] ids in [0, vocab_size), n at most 2^31 - 1
/// @throws mor::error InvalidArgument for an id outside the vocabulary or too many tokens, IoFailure
inline void write_token_shard(std::filesystem::path const& path, std::span<Token const> tokens, Index vocab_size) {
  if (tokens.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
    fail(ErrorCode::InvalidArgument, "too many tokens for one shard; write several", path.string(),
         "at most " + text_of(std::numeric_limits<std::int32_t>::max()), text_of(tokens.size()));
  }
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab_size) {
      fail(ErrorCode::InvalidArgument, "token id outside the vocabulary", path.string() + ": token " + text_of(i),
           "0 to " + text_of(vocab_size - 1), text_of(tokens[i]));
    }
  }
  TokenShardFormat const format = vocab_size <= 65536 ? kUint16Shard : kUint32Shard;
  std::array<std::int32_t, kTokenShardHeaderBytes / 4> header{};
  header[0] = format.magic;
  header[1] = format.version;
  header[2] = static_cast<std::int32_t>(tokens.size());
  io::FileWriter writer(path);
  writer.write(std::as_bytes(std::span<std::int32_t const>(header)));
  if (format == kUint16Shard) {
    detail::write_stored_tokens<std::uint16_t>(writer, tokens);
  } else {
    detail::write_stored_tokens<std::uint32_t>(writer, tokens);
  }
  writer.commit();
}

}  // namespace mor::train
