// SPDX-License-Identifier: Apache-2.0
/// @file
/// Learns a byte-level BPE vocabulary from text: again and again the most frequent pair of adjacent symbols becomes a
/// token. Each distinct word is kept once, and every pair knows where it occurs, so a merge costs only its occurrences.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/io/added_tokens.hpp"
#include "mor/io/bpe.hpp"
#include "mor/io/pretokenizer.hpp"
#include "mor/io/tokenizer.hpp"
#include "mor/io/tokenizer_model.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <queue>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace mor::io {

/// What `train_bpe` may be told beyond the size.
struct BpeTrainingOptions {
  SplitRules split;              ///< how the text, and later every text to encode, is split into words
  Index min_pair_count = 2;      ///< rarer pairs become no tokens
  Index longest_token = 128;     ///< in bytes, at most `max_token_bytes`; keeps runs of one character in bounds
};

namespace detail {

/// The distinct words of the training text as linked symbols, with the count of every adjacent pair kept exact.
class BpeTrainer {
 public:
  BpeTrainer(TokenizerModel& model, BpeTrainingOptions const& options) : model_(model), options_(options) {
    for (std::size_t id = 0; id < model.tokens.size(); ++id) ids_.emplace(model.tokens[id], static_cast<Token>(id));
  }

  /// Adds a word that occurs `count` times in the text.
  void add_word(std::string_view word, Index count) {
    for (std::size_t i = 0; i < word.size(); ++i) {
      auto const at = static_cast<std::uint32_t>(symbols_.size());
      Token const id = model_.byte_tokens[static_cast<unsigned char>(word[i])];
      symbols_.push_back({id, i > 0 ? at - 1 : none, i + 1 < word.size() ? at + 1 : none});
      weights_.push_back(count);
    }
    if (symbols_.size() >= none) {
      fail(ErrorCode::InvalidArgument, "too many distinct words", "train_bpe", "less than 4 GiB of them");
    }
  }

  /// Appends tokens and merges to the model until it has `vocab_size` tokens or no pair is left.
  void run(std::size_t vocab_size) {
    for (std::uint32_t at = 0; at < symbols_.size(); ++at) {
      if (symbols_[at].next != none) change(symbols_[at].id, symbols_[symbols_[at].next].id, weights_[at], at);
    }
    offer_changed();
    while (model_.tokens.size() < vocab_size && !heap_.empty()) {
      Candidate const top = heap_.top();
      heap_.pop();
      Pair& pair = pairs_.at(top.key);
      if (top.count != pair.count) {  // outdated: counts fall without notice, rises are offered anew
        if (pair.count < top.count) offer(top.key, pair.count);
        continue;
      }
      auto const left = static_cast<Token>(top.key >> 32), right = static_cast<Token>(top.key & 0xFFFFFFFFu);
      std::string joined = bytes_of(left) + bytes_of(right);
      if (joined.size() > static_cast<std::size_t>(options_.longest_token)) continue;
      merge({left, right, token_of(std::move(joined))}, std::exchange(pair.places, {}));
      offer_changed();
    }
  }

 private:
  static constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

  struct Symbol {
    Token id;  ///< -1 once merged into the symbol before it
    std::uint32_t previous, next;
  };

  struct Pair {
    Index count = 0;                    ///< occurrences in the text
    std::vector<std::uint32_t> places;  ///< where it may occur: every place it does, and some where it no longer does
    bool changed = false;               ///< listed in changed_
  };

  /// Orders the heap: the highest count, then the lowest left id, then the lowest right id.
  struct Candidate {
    Index count;
    std::uint64_t key;
    bool operator<(Candidate const& other) const {
      return count != other.count ? count < other.count : key > other.key;
    }
  };

  std::string const& bytes_of(Token id) const { return model_.tokens[static_cast<std::size_t>(id)]; }

  /// The token of these bytes; a new one unless other merges have already led to the same bytes.
  Token token_of(std::string&& bytes) {
    auto const [place, is_new] = ids_.emplace(std::move(bytes), static_cast<Token>(model_.tokens.size()));
    if (is_new) model_.tokens.push_back(place->first);
    return place->second;
  }

  void change(Token left, Token right, Index difference, std::uint32_t place) {
    std::uint64_t const key = pair_key(left, right);
    Pair& pair = pairs_[key];
    pair.count += difference;
    if (difference <= 0) return;
    pair.places.push_back(place);
    if (!std::exchange(pair.changed, true)) changed_.push_back(key);
  }

  void offer(std::uint64_t key, Index count) {
    if (count >= std::max<Index>(options_.min_pair_count, 1)) heap_.push({count, key});
  }

  void offer_changed() {
    for (std::uint64_t const key : changed_) {
      Pair& pair = pairs_.at(key);
      pair.changed = false;
      offer(key, pair.count);
    }
    changed_.clear();
  }

  /// Replaces the pair wherever it still occurs, from left to right.
  void merge(Merge const& merge, std::vector<std::uint32_t> places) {
    model_.merges.push_back(merge);
    std::sort(places.begin(), places.end());
    for (std::uint32_t const at : places) {
      std::uint32_t const swallowed = symbols_[at].next;
      if (symbols_[at].id != merge.left || swallowed == none || symbols_[swallowed].id != merge.right) continue;
      Index const count = weights_[at];
      std::uint32_t const before = symbols_[at].previous, after = symbols_[swallowed].next;
      change(merge.left, merge.right, -count, at);
      if (before != none) {
        change(symbols_[before].id, merge.left, -count, before);
        change(symbols_[before].id, merge.result, count, before);
      }
      if (after != none) {
        change(merge.right, symbols_[after].id, -count, swallowed);
        change(merge.result, symbols_[after].id, count, at);
        symbols_[after].previous = at;
      }
      symbols_[at].id = merge.result;
      symbols_[at].next = after;
      symbols_[swallowed].id = TokenizerModel::no_token;
    }
  }

  TokenizerModel& model_;
  BpeTrainingOptions const& options_;
  std::unordered_map<std::string, Token> ids_;
  std::vector<Symbol> symbols_;  ///< of all words, one after the other
  std::vector<Index> weights_;   ///< [symbol]: how often its word occurs in the text
  std::unordered_map<std::uint64_t, Pair> pairs_;
  std::vector<std::uint64_t> changed_;  ///< pairs whose count may have risen since they were offered
  std::priority_queue<Candidate> heap_;
};

/// `<|endoftext|>`, then the 256 bytes in order.
[[nodiscard]] inline TokenizerModel untrained_model(SplitRules split) {
  TokenizerModel model;
  model.split = split;
  model.tokens.emplace_back(end_of_text);
  model.added.push_back({0, std::string(end_of_text), true, false});
  for (std::size_t byte = 0; byte < 256; ++byte) {
    model.byte_tokens[byte] = static_cast<Token>(model.tokens.size());
    model.tokens.emplace_back(1, static_cast<char>(byte));
  }
  return model;
}

inline void check_training(Index vocab_size, BpeTrainingOptions const& options) {
  auto const check = [](char const* name, Index value, Index least, std::size_t most) {
    if (value >= least && value <= static_cast<Index>(most)) return;
    fail(ErrorCode::InvalidArgument, std::string(name) + " out of range", "train_bpe",
         std::to_string(least) + " to " + std::to_string(most), std::to_string(value));
  };
  check("vocab_size", vocab_size, 257, max_vocab_size);
  check("longest_token", options.longest_token, 1, max_token_bytes);
}

}  // namespace detail

/// Trains a byte-level BPE tokenizer.
///
/// Ids: `<|endoftext|>` is 0, the byte b is b + 1, then the merged tokens in the order in which they were learned. Each
/// step merges the pair that occurs most often; of equally frequent pairs the one with the lower left id, then with the
/// lower right id. The same text and options give the same tokenizer, on every machine. Where `<|endoftext|>` stands in
/// the text it separates documents and is not learned from.
///
/// @param vocab_size  tokens wanted, at least 257; a short text may have too few pairs and give fewer
/// @throws mor::error InvalidArgument when a number is out of range
[[nodiscard]] inline Tokenizer train_bpe(std::string_view text, Index vocab_size,
                                         BpeTrainingOptions const& options = {}) {
  detail::check_training(vocab_size, options);
  TokenizerModel model = detail::untrained_model(options.split);
  std::unordered_map<std::string_view, std::size_t> places;
  std::vector<std::pair<std::string_view, Index>> words;  // in order of first occurrence
  for (std::size_t at = 0; at < text.size();) {
    std::size_t const end = std::min(text.find(end_of_text, at), text.size());
    split_text(text.substr(at, end - at), options.split, [&](std::string_view word) {
      auto const [place, is_new] = places.emplace(word, words.size());
      if (is_new) words.emplace_back(word, 0);
      ++words[place->second].second;
    });
    at = end + end_of_text.size();
  }
  detail::BpeTrainer trainer(model, options);
  for (auto const& [word, count] : words) trainer.add_word(word, count);
  trainer.run(static_cast<std::size_t>(vocab_size));
  return Tokenizer(std::move(model));
}

}  // namespace mor::io
