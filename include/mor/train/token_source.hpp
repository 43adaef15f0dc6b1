// SPDX-License-Identifier: Apache-2.0
/// @file
/// `TokenSource`: the tokens of a data set as one long array, whether they come from a text or from shard files.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/io/file.hpp"
#include "mor/train/token_shard.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mor::train {

/// An immutable array of tokens made of one or more segments, read as if they lay end to end. Copies and slices share
/// the memory. Ids are checked against the vocabulary whenever they are copied out, so a damaged shard is found at
/// the first token that would have been used.
class TokenSource {
 public:
  /// Tokens in memory.
  /// @throws mor::error InvalidArgument for an id outside the vocabulary
  [[nodiscard]] static TokenSource from_tokens(std::vector<Token> tokens, Index vocab_size,
                                               std::string name = "tokens") {
    TokenSource source(vocab_size);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i] < 0 || tokens[i] >= vocab_size) {
        fail(ErrorCode::InvalidArgument, "token id outside the vocabulary", name + ": token " + text_of(i),
             source.vocabulary(), text_of(tokens[i]));
      }
    }
    auto const owner = std::make_shared<std::vector<Token> const>(std::move(tokens));
    source.append({std::move(name), 0, static_cast<Index>(owner->size()), 4,
                   std::as_bytes(std::span<Token const>(*owner)).data(), owner});
    return source;
  }

  /// A text file, encoded by the caller's tokenizer.
  /// @param encode  maps the file's bytes to token ids
  [[nodiscard]] static TokenSource from_text(std::filesystem::path const& path,
                                             std::function<std::vector<Token>(std::string_view)> const& encode,
                                             Index vocab_size) {
    return from_tokens(encode(io::read_file(path)), vocab_size, path.string());
  }

  /// Shard files, in the order given; rows may cross from one shard into the next.
  /// @throws mor::error MalformedFile, IoFailure
  [[nodiscard]] static TokenSource from_shards(std::span<std::filesystem::path const> paths, Index vocab_size) {
    TokenSource source(vocab_size);
    for (std::filesystem::path const& path : paths) {
      auto const owner = std::make_shared<TokenShard const>(path);
      source.append({path.string(), 0, owner->size(), owner->format().width, owner->data(), owner});
    }
    return source;
  }

  [[nodiscard]] Index size() const { return size_; }  ///< tokens
  [[nodiscard]] Index vocab_size() const { return vocab_size_; }

  /// The tokens [first, last) as a source of their own.
  [[nodiscard]] TokenSource slice(Index first, Index last) const {
    if (first < 0 || first > last || last > size_) {
      fail(ErrorCode::InvalidArgument, "slice outside the tokens", "TokenSource",
           "0 <= first <= last <= " + text_of(size_), "first " + text_of(first) + ", last " + text_of(last));
    }
    TokenSource part = *this;
    part.offset_ += first;
    part.size_ = last - first;
    return part;
  }

  /// Copies tokens [first, first + out.size()) to `out`, checking every id. Allocates nothing.
  /// @throws mor::error MalformedFile naming the segment and the token for an id outside the vocabulary
  void copy(Index first, std::span<Token> out) const {
    if (first < 0 || static_cast<Index>(out.size()) > size_ - first) {
      fail(ErrorCode::InvalidArgument, "read outside the tokens", "TokenSource",
           "at most " + text_of(size_) + " tokens", text_of(first) + " + " + text_of(out.size()));
    }
    Index at = offset_ + first;
    auto segment = std::upper_bound(segments_.begin(), segments_.end(), at,
                                    [](Index value, Segment const& other) { return value < other.begin; });
    while (!out.empty()) {
      Segment const& source = *std::prev(segment);
      Index const local = at - source.begin;
      auto const count = static_cast<std::size_t>(std::min(static_cast<Index>(out.size()), source.size - local));
      copy_segment(source, local, out.first(count));
      out = out.subspan(count);
      at += static_cast<Index>(count);
      if (!out.empty()) ++segment;
    }
  }

 private:
  struct Segment {
    std::string name;
    Index begin = 0;  ///< index of its first token in the whole
    Index size = 0;   ///< tokens
    Index width = 0;  ///< bytes of a token
    std::byte const* data = nullptr;
    std::shared_ptr<void const> owner;
  };

  explicit TokenSource(Index vocab_size) : vocab_size_(vocab_size) {
    if (vocab_size < 1) {
      fail(ErrorCode::InvalidArgument, "no vocabulary", "TokenSource: vocab_size", "at least 1", text_of(vocab_size));
    }
  }

  void append(Segment segment) {
    segment.begin = size_;
    size_ += segment.size;
    segments_.push_back(std::move(segment));
  }

  [[nodiscard]] std::string vocabulary() const { return "0 to " + text_of(vocab_size_ - 1); }

  void copy_segment(Segment const& segment, Index first, std::span<Token> out) const {
    std::uint32_t const largest = segment.width == 2 ? convert<std::uint16_t>(segment, first, out)
                                                     : convert<std::uint32_t>(segment, first, out);
    if (static_cast<Index>(largest) < vocab_size_) return;
    for (std::size_t i = 0; i < out.size(); ++i) {
      Index const id = static_cast<Index>(static_cast<std::uint32_t>(out[i]));
      if (id < vocab_size_) continue;
      fail(ErrorCode::MalformedFile, "token id outside the vocabulary",
           segment.name + ": token " + text_of(first + static_cast<Index>(i)), vocabulary(), text_of(id));
    }
  }

  /// Copies, and returns the largest id as unsigned: a negative or too large id shows without a branch a token.
  template <class Stored>
  static std::uint32_t convert(Segment const& segment, Index first, std::span<Token> out) {
    auto const* const from = reinterpret_cast<Stored const*>(segment.data) + first;
    std::uint32_t largest = 0;
    for (std::size_t i = 0; i < out.size(); ++i) {
      std::uint32_t const id = from[i];
      largest = std::max(largest, id);
      out[i] = static_cast<Token>(id);
    }
    return largest;
  }

  std::vector<Segment> segments_;
  Index vocab_size_ = 0, offset_ = 0, size_ = 0;
};

/// Training and validation parts of one data set.
struct TokenSplit {
  TokenSource training, validation;
};

/// Cuts the last `validation_fraction` of the tokens off for validation: training gets floor(n (1 - fraction)).
/// @throws mor::error InvalidArgument for a fraction outside [0, 1)
[[nodiscard]] inline TokenSplit split_tokens(TokenSource const& source, double validation_fraction) {
  if (!(validation_fraction >= 0.0 && validation_fraction < 1.0)) {
    fail(ErrorCode::InvalidArgument, "no such share of the tokens", "split_tokens: validation_fraction",
         "0 or more, less than 1", text_of(validation_fraction));
  }
  double const share = 1.0 - validation_fraction;
  auto const training = static_cast<Index>(std::floor(static_cast<double>(source.size()) * share));
  return {source.slice(0, training), source.slice(training, source.size())};
}

}  // namespace mor::train
