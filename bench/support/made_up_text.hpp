// SPDX-License-Identifier: Apache-2.0
/// @file
/// A made-up language for benchmarks that need a model to have learned something: seeded, as long as wanted, and with enough
/// structure that a short training tells its tokens apart.
#pragma once

#include "mor/core/philox.hpp"
#include "mor/core/types.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace mor::bench {

/// Words of one to four tokens. Within a word the next token is certain; after a word comes one of its four followers, and
/// one time in four any word, low numbers far more often than high ones.
class MadeUpText {
 public:
  explicit MadeUpText(Index vocab_size)
      : vocabulary_(static_cast<std::uint64_t>(vocab_size)), words_(std::clamp<std::uint64_t>(vocabulary_ / 2, 1, 2048)) {}

  /// The first `length` tokens of text number `number` of a series; texts begin with a word.
  [[nodiscard]] std::vector<Token> tokens(std::uint64_t series, std::uint64_t number, Index length) const {
    Philox const random{stream_key(series, number)};
    std::vector<Token> text;
    std::uint64_t word = 0;
    for (std::uint64_t i = 0; static_cast<Index>(text.size()) < length; ++i) {
      auto const draw = random.block(i);
      double const u = uniform01(draw[2]);
      bool const any = i == 0 || draw[0] % 4 == 0;
      word = any ? static_cast<std::uint64_t>(u * u * u * static_cast<double>(words_))
                 : stream_key(word, draw[1] % 4) % words_;
      std::uint64_t const letters = 1 + stream_key(word, kLetters) % 4;
      for (std::uint64_t l = 1; l <= letters; ++l) {
        text.push_back(static_cast<Token>(stream_key(word, kLetters + l) % vocabulary_));
      }
    }
    text.resize(static_cast<std::size_t>(length));
    return text;
  }

 private:
  static constexpr std::uint64_t kLetters = 4;  ///< purposes of hashes from here on: followers have 0 to 3
  std::uint64_t vocabulary_, words_;
};

}  // namespace mor::bench
