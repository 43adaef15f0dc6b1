// SPDX-License-Identifier: Apache-2.0
/// @file
/// Ragged attention problems, and attention written as plainly as possible.
#pragma once

#include "support/matrix.hpp"

#include "mor/core/active_set.hpp"

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace mor::test {

/// One attention: `sequences` lists, for each sequence, the limits of its queries and its number of keys.
struct AttentionCase {
  struct Sequence {
    std::vector<Row> limits;
    Row keys;
  };
  AttentionCase(std::string name_, Index heads, Index kv_heads, Index head_dim, std::vector<Sequence> sequences)
      : name(std::move(name_)), shape{heads, kv_heads, head_dim, 1.0 / std::sqrt(static_cast<double>(head_dim))} {
    offsets.push_back(0);
    for (auto const& sequence : sequences) {
      key_begin.push_back(num_keys + 1);  // a row that belongs to nobody before each list
      num_keys += sequence.keys + 1;
      limits.insert(limits.end(), sequence.limits.begin(), sequence.limits.end());
      offsets.push_back(static_cast<Row>(limits.size()));
    }
  }
  [[nodiscard]] Index queries() const { return static_cast<Index>(limits.size()); }
  [[nodiscard]] KeyList keys() const {
    Row largest = 0;
    for (Row const limit : limits) largest = std::max(largest, limit);
    return {static_cast<Index>(key_begin.size()), queries(), largest, offsets, offsets, key_begin, limits};
  }

  std::string name;
  AttentionShape shape;
  std::vector<Row> limits, offsets, key_begin;
  Row num_keys = 0;
};

/// The lists of a case cut into pages that lie in storage in another order, with a page between them that belongs to nobody.
struct PagedLists {
  PagedLists(AttentionCase const& problem, Index page_size_) : page_size(page_size_), problem_(problem) {
    for (std::size_t s = 0; s < problem.key_begin.size(); ++s) {
      Row const end = s + 1 < problem.key_begin.size() ? problem.key_begin[s + 1] - 1 : problem.num_keys;
      key_begin.push_back(static_cast<Row>(pages.size()));
      for (Index first = 0; first < end - problem.key_begin[s]; first += page_size) pages.push_back(0);
    }
    auto const count = static_cast<Row>(pages.size());
    for (Row i = 0; i < count; ++i) pages[static_cast<std::size_t>(i)] = (i % 2 == 0 ? count - i / 2 : i / 2 + 1);
    num_rows = (count + 2) * page_size;
  }
  [[nodiscard]] KeyList keys() const {
    KeyList list = problem_.keys();
    list.key_begin = key_begin;
    list.pages = pages;
    list.page_size = page_size;
    return list;
  }
  /// The keys or values of the case in pages; everything else is NaN.
  template <class T>
  [[nodiscard]] Matrix<T> storage(Matrix<T> const& plain) const {
    auto paged = Matrix<T>::poisoned(num_rows, plain.cols());
    KeyList const from = problem_.keys(), to = keys();
    for (std::size_t s = 0; s < key_begin.size(); ++s) {
      Row const end = s + 1 < key_begin.size() ? problem_.key_begin[s + 1] - 1 : problem_.num_keys;
      for (Index key = 0; key < end - problem_.key_begin[s]; ++key) {
        for (Index j = 0; j < plain.cols(); ++j) {
          paged(key_row(to, static_cast<Index>(s), key), j) = plain(key_row(from, static_cast<Index>(s), key), j);
        }
      }
    }
    return paged;
  }

  Index page_size, num_rows = 0;
  std::vector<Row> pages, key_begin;

 private:
  AttentionCase const& problem_;
};

/// Limits 1, 2, ..., count: causal attention of a sequence over itself.
[[nodiscard]] inline AttentionCase::Sequence causal(Row count) {
  AttentionCase::Sequence sequence{{}, count};
  for (Row i = 1; i <= count; ++i) sequence.limits.push_back(i);
  return sequence;
}

/// The definition, one query and head at a time, in double.
template <class T>
void plain_attention(AttentionCase const& problem, Matrix<T> const& q, Matrix<T> const& k, Matrix<T> const& v,
                     Matrix<double>& out, Matrix<double>& lse) {
  auto const [heads, kv_heads, dim, scale] = problem.shape;
  for (std::size_t s = 0; s + 1 < problem.offsets.size(); ++s) {
    for (Row i = problem.offsets[s]; i < problem.offsets[s + 1]; ++i) {
      for (Index h = 0; h < heads; ++h) {
        Index const kv = h / (heads / kv_heads) * dim;
        std::vector<double> scores;
        for (Row key = 0; key < problem.limits[static_cast<std::size_t>(i)]; ++key) {
          double sum = 0.0;
          for (Index e = 0; e < dim; ++e) {
            sum += static_cast<double>(q(i, h * dim + e)) * static_cast<double>(k(problem.key_begin[s] + key, kv + e));
          }
          scores.push_back(scale * sum);
        }
        double highest = -std::numeric_limits<double>::infinity(), total = 0.0;
        for (double const score : scores) highest = std::max(highest, score);
        for (double const score : scores) total += std::exp(score - highest);
        lse(i, h) = scores.empty() ? highest : highest + std::log(total);
        for (Index e = 0; e < dim; ++e) {
          double sum = 0.0;
          for (std::size_t key = 0; key < scores.size(); ++key) {
            sum += std::exp(scores[key] - lse(i, h)) * static_cast<double>(v(problem.key_begin[s] + static_cast<Row>(key), kv + e));
          }
          out(i, h * dim + e) = sum;
        }
      }
    }
  }
}

}  // namespace mor::test
