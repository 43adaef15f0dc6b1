// SPDX-License-Identifier: Apache-2.0
/// @file
/// Ends generated text at a stop string, however the text was cut into pieces, without ever showing a part of it.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"
#include "mor/core/utf8.hpp"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mor {

/// What may be shown after one piece of text.
struct StopResult {
  std::string text;      ///< to be shown now
  bool stopped = false;  ///< a stop string was completed; the stop string and all that follows are swallowed
};

/// Watches a stream of text for any of several stop strings.
///
/// Text is held back exactly as long as it could still become a stop string. The stop string that is complete first
/// ends the text; of several that are complete at the same byte, the longest counts. So what is shown, all pieces
/// joined, does not depend on the cuts. Fed with whole characters (see Utf8Stream), it returns whole characters.
class StopMatcher {
 public:
  /// No stop strings: everything passes.
  StopMatcher() = default;

  /// @throws mor::error InvalidArgument when a stop string is empty or not valid UTF-8
  explicit StopMatcher(std::vector<std::string> stop_strings) {
    patterns_.reserve(stop_strings.size());
    for (std::string& text : stop_strings) {
      std::string const where = "stop string " + std::to_string(patterns_.size());
      if (text.empty()) fail(ErrorCode::InvalidArgument, "a stop string is empty", where, "at least one character");
      if (!valid_utf8(text)) {
        fail(ErrorCode::InvalidArgument, "a stop string is not valid UTF-8", where, {}, printable(text));
      }
      patterns_.push_back(Pattern(std::move(text)));
    }
  }

  /// Takes the next piece of text and returns what may be shown. After a stop it returns nothing more.
  [[nodiscard]] StopResult push(std::string_view text) {
    if (stopped()) return {{}, true};
    if (patterns_.empty()) return {std::string(text), false};
    std::size_t const held_before = held_.size();
    held_ += text;
    for (std::size_t i = held_before; i < held_.size(); ++i) {
      if (advance(held_[i])) {
        // The matcher never has more of a stop string in flight than it holds back, so the match lies in held_.
        std::size_t const begin = i + 1 - patterns_[*stop_index_].text.size();
        held_.resize(begin);
        return {std::exchange(held_, {}), true};
      }
    }
    std::size_t in_flight = 0;
    for (Pattern const& pattern : patterns_) in_flight = std::max(in_flight, pattern.matched);
    StopResult result{held_.substr(0, held_.size() - in_flight), false};
    held_.erase(0, held_.size() - in_flight);
    return result;
  }

  /// Ends the stream: returns the text held back, which is now known not to be a stop string. After a stop: nothing.
  [[nodiscard]] std::string flush() {
    for (Pattern& pattern : patterns_) pattern.matched = 0;
    return std::exchange(held_, {});
  }

  /// Ready for the next stream, with the same stop strings.
  void reset() {
    held_.clear();
    stop_index_.reset();
    for (Pattern& pattern : patterns_) pattern.matched = 0;
  }

  [[nodiscard]] bool stopped() const noexcept { return stop_index_.has_value(); }
  /// Which of the given stop strings ended the text.
  [[nodiscard]] std::optional<std::size_t> stop_index() const noexcept { return stop_index_; }

 private:
  /// Knuth-Morris-Pratt matcher of one stop string.
  struct Pattern {
    explicit Pattern(std::string stop_string) : text(std::move(stop_string)), fallback(text.size() + 1, 0) {
      for (std::size_t i = 1, length = 0; i < text.size(); ++i) {
        while (length > 0 && text[i] != text[length]) length = fallback[length];
        length += text[i] == text[length];
        fallback[i + 1] = length;
      }
    }

    void advance(char byte) {
      while (matched > 0 && text[matched] != byte) matched = fallback[matched];
      matched += text[matched] == byte;
    }

    std::string text;
    std::vector<std::size_t> fallback;  ///< [length]: longest proper prefix of the first `length` bytes that ends them
    std::size_t matched = 0;            ///< length of the longest prefix of `text` that ends what was pushed
  };

  /// True when this byte completes a stop string; `stop_index_` then names the longest.
  bool advance(char byte) {
    std::size_t longest = 0;
    for (std::size_t i = 0; i < patterns_.size(); ++i) {
      Pattern& pattern = patterns_[i];
      pattern.advance(byte);
      if (pattern.matched != pattern.text.size() || pattern.matched <= longest) continue;
      longest = pattern.matched;
      stop_index_ = i;
    }
    return longest > 0;
  }

  std::vector<Pattern> patterns_;
  std::string held_;  ///< pushed but neither shown nor swallowed
  std::optional<std::size_t> stop_index_;
};

}  // namespace mor
