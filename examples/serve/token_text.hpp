// SPDX-License-Identifier: Apache-2.0
/// @file
/// The text of generated tokens, token by token: whole characters, and nothing of a stop string, neither as text nor as
/// the token that spells it.
#pragma once

#include "mor/core/stop_strings.hpp"
#include "mor/core/types.hpp"
#include "mor/core/utf8.hpp"

#include <algorithm>
#include <cstddef>
#include <deque>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace examples::serve {

/// A token that may be shown, with its share of the text; of tokens that only together are a character, the last has
/// it.
struct ShownToken {
  mor::Token token = 0;
  std::string text;
  mor::Row depth = 0;
  double log_probability = 0.0;
};

/// Holds tokens back exactly as long as their text could still become a stop string, or is half a character.
class TokenText {
 public:
  /// @param drop_first_space  the text begins after "Assistant:", and its tokenizer puts spaces in front of words
  explicit TokenText(std::vector<std::string> stop, bool drop_first_space = false)
      : stop_(std::move(stop)), drop_first_space_(drop_first_space) {}

  /// Takes a token, whose `text` is its bytes, and returns what can now be shown.
  [[nodiscard]] std::vector<ShownToken> push(ShownToken token) {
    std::string const text = without_first_space(utf8_.push(token.text));
    decoded_ += text.size();
    held_.push_back({std::move(token), decoded_, utf8_.pending() == 0});
    return advance(text);
  }

  /// Ends the text and returns the rest of it.
  [[nodiscard]] std::vector<ShownToken> finish() {
    if (stopped()) return {};
    std::string const rest = utf8_.flush();
    decoded_ += rest.size();
    if (!held_.empty()) held_.back().end = decoded_;
    auto shown = advance(rest);
    if (stopped()) return shown;
    certain_ += stop_.flush();
    auto more = release(true);
    shown.insert(shown.end(), std::move_iterator(more.begin()), std::move_iterator(more.end()));
    return shown;
  }

  /// A stop string is complete: nothing more will be shown.
  [[nodiscard]] bool stopped() const { return stop_.stopped(); }

 private:
  struct Held {
    ShownToken token;
    std::size_t end;  ///< characters' bytes up to and with this token's
    bool whole;       ///< the text ends here with a whole character
  };

  [[nodiscard]] std::string without_first_space(std::string text) {
    if (!drop_first_space_ || text.empty()) return text;
    drop_first_space_ = false;
    if (text.front() == ' ') text.erase(0, 1);
    return text;
  }

  [[nodiscard]] std::vector<ShownToken> advance(std::string_view text) {
    auto result = stop_.push(text);
    certain_ += result.text;
    return release(result.stopped);
  }

  /// Tokens up to the last whole character that is certain; at the end of the text all of them, less what is no part of
  /// it.
  [[nodiscard]] std::vector<ShownToken> release(bool at_end) {
    std::vector<ShownToken> shown;
    std::size_t const available = shown_ + certain_.size();
    for (;;) {
      std::size_t last = 0;
      while (last < held_.size() && !held_[last].whole) ++last;
      bool const complete = last < held_.size() && held_[last].end <= available;
      if (!complete && !at_end) return shown;
      std::size_t const count = std::min(last + 1, held_.size());
      if (count == 0) return shown;
      for (std::size_t i = 0; i < count; ++i) {
        if (!complete && shown_ == available) {
          held_.clear();
          return shown;
        }
        shown.push_back(take(std::min(held_.front().end, available)));
      }
    }
  }

  /// The first token held, with the text up to `end`.
  [[nodiscard]] ShownToken take(std::size_t end) {
    ShownToken token = std::move(held_.front().token);
    held_.pop_front();
    token.text = certain_.substr(0, end - shown_);
    certain_.erase(0, end - shown_);
    shown_ = end;
    return token;
  }

  mor::Utf8Stream utf8_;
  mor::StopMatcher stop_;
  bool drop_first_space_;
  std::deque<Held> held_;
  std::string certain_;      ///< text that no stop string can take back, not yet given to a token
  std::size_t decoded_ = 0;  ///< bytes of text so far
  std::size_t shown_ = 0;    ///< bytes of text given to tokens
};

}  // namespace examples::serve
