// SPDX-License-Identifier: Apache-2.0
/// @file
/// Merges of a vocabulary with scores, as SentencePiece and llama2.c keep them: two adjacent tokens merge when their
/// texts joined are a token, the one with the highest score first, and of equal scores the leftmost.
#pragma once

#include "mor/core/types.hpp"
#include "mor/core/utf8.hpp"
#include "mor/io/bpe.hpp"

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace mor::io {

/// Longest piece, in bytes, of a vocabulary with scores: finding its merges takes time quadratic in the length.
inline constexpr std::size_t max_piece_bytes = 256;

/// A token of a vocabulary with scores.
struct ScoredPiece {
  std::string text;        ///< with plain spaces
  float score = 0.0F;      ///< finite
  bool mergeable = false;  ///< an ordinary piece: neither a byte, nor a control token
};

/// The merges of the vocabulary, in order of rank: every pair of mergeable pieces whose texts joined are one.
/// @param pieces  the mergeable ones are distinct and valid UTF-8
[[nodiscard]] inline std::vector<Merge> merges_of_scores(std::span<ScoredPiece const> pieces) {
  std::unordered_map<std::string_view, Token> ids;
  for (std::size_t id = 0; id < pieces.size(); ++id) {
    if (pieces[id].mergeable) ids.emplace(pieces[id].text, static_cast<Token>(id));
  }
  std::vector<Merge> merges;
  for (std::size_t id = 0; id < pieces.size(); ++id) {
    if (!pieces[id].mergeable) continue;
    std::string_view const text = pieces[id].text;
    for (std::size_t cut = decode_utf8(text, 0).length; cut < text.size(); cut += decode_utf8(text, cut).length) {
      auto const left = ids.find(text.substr(0, cut));
      if (left == ids.end()) continue;
      auto const right = ids.find(text.substr(cut));
      if (right != ids.end()) merges.push_back({left->second, right->second, static_cast<Token>(id)});
    }
  }
  auto const score = [&](Merge const& merge) { return pieces[static_cast<std::size_t>(merge.result)].score; };
  std::sort(merges.begin(), merges.end(), [&](Merge const& a, Merge const& b) {
    if (score(a) != score(b)) return score(a) > score(b);
    return detail::pair_key(a.left, a.right) < detail::pair_key(b.left, b.right);
  });
  for (std::size_t rank = 1; rank < merges.size(); ++rank) {
    merges[rank].same_rank = score(merges[rank]) == score(merges[rank - 1]);
  }
  return merges;
}

}  // namespace mor::io
