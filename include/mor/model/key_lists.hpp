// SPDX-License-Identifier: Apache-2.0
/// @file
/// The keys that one recursion's attention sees, for every cache policy, with and without stored keys.
#pragma once

#include "mor/model/decoder_layer.hpp"
#include "mor/model/kv_cache.hpp"

#include <algorithm>
#include <span>
#include <vector>

namespace mor::detail {

/// Builds the `KeyList`s of one model call. Two kinds exist: among a set's own rows, and against all rows of the batch.
template <class B>
class KeyLists {
 public:
  using Real = typename B::real_type;

  /// `cache` may be null: then keys are the rows of this call alone.
  KeyLists(B& backend, ActiveSet<Real> const& batch, KvCache<B> const* cache)
      : backend_(&backend), batch_(batch), cache_(cache) {
    if (cache_ != nullptr) {
      begins_ = backend.upload(cache_->begins());
      lengths_ = backend.upload(cache_->lengths());
    }
    own_batch_ = among(batch_, lengths_, cache_ == nullptr ? std::span<Row const>{} : cache_->lengths());
  }

  /// Every row of the batch among all of them: prelude, coda, and recursions that no token left.
  [[nodiscard]] KeyList const& whole_batch() const { return own_batch_; }

  /// The set's rows among themselves, after the keys that recursion `step` stored before.
  [[nodiscard]] KeyList own_rows(ActiveSet<Real> const& set, Index step) const {
    if (cache_ == nullptr) return set.everything ? own_batch_ : among(set, {}, {});
    auto const host = cache_->active_lengths(step);
    return among(set, backend_->upload(host), host);
  }

  /// The set's rows against every token of their sequence.
  [[nodiscard]] KeyList batch_rows(ActiveSet<Real> const& set) const {
    if (set.everything) return own_batch_;
    KeyList list = describe(set);
    list.key_begin = own_batch_.key_begin;
    list.max_limit = own_batch_.max_limit;
    auto limits = backend_->arena().template allocate<Row>(set.num_rows);
    backend_->causal_limits(set.sequence_offsets, set.rows, batch_.sequence_offsets, lengths_, limits);
    list.limits = limits;
    return list;
  }

 private:
  static KeyList describe(ActiveSet<Real> const& set) {
    KeyList list;
    list.num_sequences = set.num_sequences;
    list.num_queries = set.num_rows;
    list.query_offsets = set.sequence_offsets;
    list.host_query_offsets = set.host_offsets;
    return list;
  }

  KeyList among(ActiveSet<Real> const& set, std::span<Row const> base, std::span<Row const> host_base) const {
    KeyList list = describe(set);
    list.key_begin = cache_ == nullptr ? set.sequence_offsets.first(static_cast<std::size_t>(set.num_sequences)) : begins_;
    auto limits = backend_->arena().template allocate<Row>(set.num_rows);
    backend_->causal_limits(set.sequence_offsets, {}, {}, base, limits);
    list.limits = limits;
    for (std::size_t s = 0; s + 1 < set.host_offsets.size(); ++s) {
      Index const stored = host_base.empty() ? 0 : host_base[s];
      list.max_limit = std::max(list.max_limit, stored + set.host_offsets[s + 1] - set.host_offsets[s]);
    }
    return list;
  }

  B* backend_;
  ActiveSet<Real> batch_;
  KvCache<B> const* cache_;
  std::span<Row const> begins_, lengths_;
  KeyList own_batch_;
};

}  // namespace mor::detail
