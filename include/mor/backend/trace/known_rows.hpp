// SPDX-License-Identifier: Apache-2.0
/// @file
/// What the trace knows of integer arrays whose memory does not exist: the contents of what the host uploaded, and the
/// attention limits that follow from them. It is what makes attention FLOPs exact, or an expectation where a router
/// chose the rows.
#pragma once

#include "mor/core/active_set.hpp"
#include "mor/core/types.hpp"

#include <cstdint>
#include <iterator>
#include <map>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace mor::trace {

/// Copies of arrays by the address they were given, for any part of them.
template <class T>
class AddressTable {
 public:
  void set(Row const* address, std::span<T const> values) {
    if (!values.empty()) table_[key(address)].assign(values.begin(), values.end());
  }
  /// Forgets every array that overlaps `rows`, which are written now.
  void forget(std::span<Row const> rows) {
    std::uintptr_t const begin = key(rows.data()), end = begin + rows.size_bytes();
    auto entry = table_.lower_bound(begin);
    if (entry != table_.begin()) {
      auto const before = std::prev(entry);
      if (before->first + before->second.size() * sizeof(Row) > begin) entry = before;
    }
    while (entry != table_.end() && entry->first < end) entry = table_.erase(entry);
  }

  /// The values at `rows`, or nothing when they are not all known.
  [[nodiscard]] std::optional<std::span<T const>> find(std::span<Row const> rows) const {
    auto after = table_.upper_bound(key(rows.data()));
    if (rows.empty() || after == table_.begin()) return std::nullopt;
    auto const& [begin, values] = *--after;
    auto const first = static_cast<std::size_t>((key(rows.data()) - begin) / sizeof(Row));
    if (first > values.size() || values.size() - first < rows.size()) return std::nullopt;
    return std::span<T const>(values).subspan(first, rows.size());
  }

 private:
  static std::uintptr_t key(Row const* address) { return reinterpret_cast<std::uintptr_t>(address); }
  std::map<std::uintptr_t, std::vector<T>> table_;
};

/// How much an attention looks at.
struct VisibleKeys {
  double scores = 0.0;  ///< sum of all limits: query-key pairs of one head
  double keys = 0.0;    ///< distinct keys: the sum of each sequence's largest limit
};

/// Knows limits by address. Where they are not known exactly:
/// - rank in the batch of rows that a router chose: row i of n in a sequence of L rows has the expected limit
///   (i + 1) (L + 1) / (n + 1), that of a uniform choice; their sum is n (L + 1) / 2;
/// - offsets unknown: n (n + 1) / 2 for a rank in the set, n (max_limit + 1) / 2 for a rank in the batch;
/// - limits from elsewhere: every query sees `max_limit` keys, which is an upper bound.
class KnownRows {
 public:
  void set_upload(Row const* address, std::span<Row const> host) {
    uploads_.set(address, host);
  }
  /// What the host uploaded there, if it did.
  [[nodiscard]] std::optional<std::span<Row const>> upload(std::span<Row const> rows) const {
    return uploads_.find(rows);
  }

  /// Follows the verb `causal_limits`; arguments as there.
  void set_limits(std::span<Row const> set_offsets, std::span<Row const> rows, std::span<Row const> batch_offsets,
                  std::span<Row const> base, std::span<Row> limits) {
    if (limits.empty()) return;
    auto const known_base = uploads_.find(base);
    auto const address = reinterpret_cast<std::uintptr_t>(limits.data());
    limits_.forget(limits);
    sources_[address] = !base.empty() && !known_base ? Source::Elsewhere : rows.empty() ? Source::Set : Source::Batch;
    auto const set = uploads_.find(set_offsets);
    auto const batch = uploads_.find(batch_offsets);
    if (!set || sources_[address] == Source::Elsewhere || (!rows.empty() && !batch)) return;
    auto const known_rows = uploads_.find(rows);
    std::vector<double> values;
    values.reserve(limits.size());
    for (std::size_t s = 0; s + 1 < set->size(); ++s) {
      double const first = known_base ? (*known_base)[s] : 0.0;
      Row const count = (*set)[s + 1] - (*set)[s];
      for (Row i = 0; i < count && values.size() < limits.size(); ++i) {
        double rank = i + 1.0;
        if (known_rows) {
          rank = (*known_rows)[values.size()] - (*batch)[s] + 1.0;
        } else if (!rows.empty()) {
          rank = (i + 1.0) * ((*batch)[s + 1] - (*batch)[s] + 1.0) / (count + 1.0);
        }
        values.push_back(first + rank);
      }
    }
    limits_.set(limits.data(), values);
  }

  [[nodiscard]] VisibleKeys visible(KeyList const& keys) const {
    VisibleKeys result;
    auto const uploaded = uploads_.find(keys.limits);
    auto const derived = limits_.find(keys.limits);
    auto const source = sources_.find(reinterpret_cast<std::uintptr_t>(keys.limits.data()));
    for (std::size_t s = 0; s + 1 < keys.host_query_offsets.size(); ++s) {
      auto const begin = static_cast<std::size_t>(keys.host_query_offsets[s]);
      auto const end = static_cast<std::size_t>(keys.host_query_offsets[s + 1]);
      if (begin == end) continue;
      auto const count = static_cast<double>(end - begin), most = static_cast<double>(keys.max_limit);
      if (derived || uploaded) {
        double last = 0.0;
        for (std::size_t i = begin; i < end; ++i) {
          last = derived ? (*derived)[i] : static_cast<double>((*uploaded)[i]);
          result.scores += last;
        }
        result.keys += last;
      } else if (source != sources_.end() && source->second == Source::Set) {
        result.scores += count * (count + 1.0) / 2.0;
        result.keys += count;
      } else {
        bool const uniform = source != sources_.end() && source->second == Source::Batch;
        result.scores += count * (uniform ? (most + 1.0) / 2.0 : most);
        result.keys += most;
      }
    }
    return result;
  }

 private:
  enum class Source { Set, Batch, Elsewhere };

  AddressTable<Row> uploads_;
  AddressTable<double> limits_;
  std::map<std::uintptr_t, Source> sources_;
};

}  // namespace mor::trace
