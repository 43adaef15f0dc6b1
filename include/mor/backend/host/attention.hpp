// SPDX-License-Identifier: Apache-2.0
/// @file
/// Forward attention on the host: how it is cut into items of work, and the verb.
#pragma once

#include "mor/backend/host/attention_block.hpp"
#include "mor/backend/host/attention_forward.hpp"
#include "mor/backend/host/context.hpp"
#include "mor/backend/host/parallel.hpp"

#include <algorithm>

namespace mor::host {

namespace detail {

/// How forward attention is cut into items of work. A sequence with many queries is cut into blocks for each key/value
/// head; one with so few that they fill a single panel (decoding), into groups of heads.
template <class T>
class AttentionPlan {
 public:
  /// `first_item` has room for one number a sequence and one more: the items before each sequence.
  AttentionPlan(KeyList const& keys, AttentionSizes<T> const& sizes, Index kv_heads, int threads, Index* first_item)
      : keys_(keys), sizes_(sizes), kv_heads_(kv_heads), first_item_(first_item) {
    Index const share = divide_up(kv_heads * keys.num_sequences, threads);  // so that every thread has something to do
    heads_ = std::clamp<Index>(share, 1, std::min(kv_heads, AttentionForward<T>::most_heads(sizes)));
    first_item[0] = 0;
    for (Index s = 0; s < keys.num_sequences; ++s) {
      first_item[s + 1] =
          first_item[s] + (few(s) ? divide_up(kv_heads, heads_) : count_blocks(keys, sizes, s) * kv_heads);
    }
  }
  [[nodiscard]] Index items() const { return first_item_[keys_.num_sequences]; }

  void run(AttentionForward<T> worker, Index item, View<T const> q, View<T const> k, View<T const> v, View<T> out,
           View<T> lse) const {
    Index const s = std::upper_bound(first_item_, first_item_ + keys_.num_sequences + 1, item) - first_item_ - 1;
    Index const local = item - first_item_[s];
    if (few(s)) {
      auto const block = query_block(keys_, sizes_, s, local * heads_, 0);
      worker.run_heads(q, k, v, keys_, block, std::min(heads_, kv_heads_ - block.kv_head), out, lse);
    } else {
      worker.run(q, k, v, keys_, query_block(keys_, sizes_, s, local % kv_heads_, local / kv_heads_), out, lse);
    }
  }

 private:
  [[nodiscard]] bool few(Index sequence) const {
    auto const s = static_cast<std::size_t>(sequence);
    Index const queries = Index{keys_.host_query_offsets[s + 1]} - keys_.host_query_offsets[s];
    return queries > 0 && queries * sizes_.group <= AttentionForward<T>::kPanel;
  }

  KeyList const& keys_;
  AttentionSizes<T> const& sizes_;
  Index kv_heads_;
  Index* first_item_;
  Index heads_ = 1;
};

}  // namespace detail

/// out [N, H*E] and lse [N, H] of row-limited attention; see `BackendAttention`.
template <class T>
inline void attention(Context context, View<T const> q, View<T const> k, View<T const> v, KeyList const& keys,
                      AttentionShape const& shape, View<T> out, View<T> lse) {
  if (keys.num_queries == 0) return;
  detail::AttentionSizes<T> const sizes(shape);
  // A few thousand multiplications are done sooner than another thread starts.
  int const threads = keys.num_queries * keys.max_limit * shape.num_heads * shape.head_dim < 16384 ? 1 : context.threads;
  Scratch scratch(context);
  Index* const first_item = scratch.take<Index>(keys.num_sequences + 1);
  detail::AttentionPlan<T> const plan(keys, sizes, shape.num_kv_heads, threads, first_item);
  Index const elements = detail::AttentionForward<T>::scratch_elements(sizes, keys.page_size);
  T* const memory = scratch.take<T>(elements * context.threads);
  parallel_items(threads, plan.items(), [&](Index reversed, int thread) {
    detail::AttentionForward<T> const worker(sizes, static_cast<T>(shape.scale), keys.page_size,
                                             memory + elements * thread);
    plan.run(worker, plan.items() - 1 - reversed, q, k, v, out, lse);  // late blocks see the most keys: they start first
  });
}

}  // namespace mor::host
