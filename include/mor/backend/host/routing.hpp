// SPDX-License-Identifier: Apache-2.0
/// @file
/// Choosing rows by score, and the router's gates and losses, on the host.
#pragma once

#include "mor/backend/host/context.hpp"
#include "mor/backend/host/parallel.hpp"
#include "mor/backend/host/rows.hpp"
#include "mor/contract/backend.hpp"
#include "mor/core/active_set.hpp"
#include "mor/core/error.hpp"
#include "mor/math/activation.hpp"
#include "mor/math/ordering.hpp"
#include "mor/math/random.hpp"

#include <algorithm>
#include <span>

namespace mor::host {

namespace detail {

/// Writes candidate `slot` as the `place`-th row of a selection.
template <class Real>
inline void select_slot(ActiveSet<Real> const& candidates, Index slot, Index place, Selection const& selection) {
  auto const from = static_cast<std::size_t>(slot), to = static_cast<std::size_t>(place);
  selection.rows[to] = candidates.rows[from];
  selection.positions[to] = candidates.positions[from];
  selection.slots[to] = static_cast<Row>(slot);
}

/// A candidate's rank: larger keys first, then lower places.
template <class Key>
struct Ranked {
  Key key;
  Row place;
  friend bool operator<(Ranked a, Ranked b) { return math::chosen_before(a.key, a.place, b.key, b.place); }
};

/// body(s) for every sequence, on several threads where there are many candidates.
template <class F>
inline void for_each_sequence(Context context, Index sequences, Index candidates, F const& body) {
  parallel_items(candidates < 1024 ? 1 : context.threads, sequences, [&](Index s, int) { body(s); });
}

}  // namespace detail

/// In each sequence the host_offsets[s + 1] - host_offsets[s] rows with the largest scores, in ascending order.
template <class T>
inline void select_top_k(Context context, std::span<T const> scores, ActiveSet<T> const& candidates,
                         std::span<Row const> host_offsets, Selection selection) {
  using Entry = detail::Ranked<decltype(math::ordered_key(T(0)))>;
  Scratch scratch(context);
  Entry* const entries = scratch.take<Entry>(candidates.num_rows);
  detail::for_each_sequence(context, candidates.num_sequences, candidates.num_rows, [&](Index s) {
    Index const begin = detail::index_at(candidates.host_offsets, s), end = detail::index_at(candidates.host_offsets, s + 1);
    Index const to = detail::index_at(host_offsets, s), keep = detail::index_at(host_offsets, s + 1) - to;
    if (keep == end - begin) {
      for (Index i = 0; i < keep; ++i) detail::select_slot(candidates, begin + i, to + i, selection);
      return;
    }
    for (Index i = begin; i < end; ++i) {
      entries[i] = {math::ordered_key(scores[static_cast<std::size_t>(i)]), static_cast<Row>(i)};
    }
    std::nth_element(entries + begin, entries + begin + keep, entries + end);
    std::sort(entries + begin, entries + begin + keep, [](Entry a, Entry b) { return a.place < b.place; });
    for (Index i = 0; i < keep; ++i) detail::select_slot(candidates, entries[begin + i].place, to + i, selection);
  });
}

/// counts[t * S + s] = candidates of sequence s with score >= thresholds[t].
template <class T>
inline void count_at_least(std::span<T const> scores, ActiveSet<T> const& candidates, std::span<double const> thresholds,
                           std::span<Row> counts) {
  auto const sequences = static_cast<std::size_t>(candidates.num_sequences);
  for (std::size_t t = 0; t < thresholds.size(); ++t) {
    for (std::size_t s = 0; s < sequences; ++s) {
      auto const first = scores.begin() + candidates.host_offsets[s], last = scores.begin() + candidates.host_offsets[s + 1];
      counts[t * sequences + s] = static_cast<Row>(
          std::count_if(first, last, [&](T score) { return static_cast<double>(score) >= thresholds[t]; }));
    }
  }
}

/// Exactly the rows with score >= threshold; `host_offsets` come from `count_at_least`.
template <class T>
inline void select_at_least(std::span<T const> scores, double threshold, ActiveSet<T> const& candidates,
                            std::span<Row const> host_offsets, Selection selection) {
  for (Index s = 0; s < candidates.num_sequences; ++s) {
    Index to = detail::index_at(host_offsets, s);
    Index const stop = detail::index_at(host_offsets, s + 1);
    for (Index i = detail::index_at(candidates.host_offsets, s); i < detail::index_at(candidates.host_offsets, s + 1); ++i) {
      if (!(static_cast<double>(scores[static_cast<std::size_t>(i)]) >= threshold)) continue;
      if (to == stop) {
        fail(ErrorCode::InvalidArgument, "more rows reach the threshold than were announced", "host::select_at_least",
             "the counts of count_at_least");
      }
      detail::select_slot(candidates, i, to++, selection);
    }
  }
}

/// out(i, c) = a uniform random number of (key, counter, positions[i], c).
template <class T>
inline void random_scores(Context context, std::uint64_t key, std::uint64_t counter, std::span<Row const> positions,
                          View<T> out) {
  parallel_rows(context.threads, out.rows, out.cols * 16, [&](Index i) {
    for (Index c = 0; c < out.cols; ++c) {
      out(i, c) = math::random_score<T>(key, counter, positions[static_cast<std::size_t>(i)], c);
    }
  });
}

namespace detail {
inline void refuse_softmax(RouterActivation activation) {
  if (activation == RouterActivation::Softmax) {
    fail(ErrorCode::Unsupported, "softmax needs several logits a row", "host::router_gate", "sigmoid, tanh or none", "softmax");
  }
}
}  // namespace detail

/// gate[i] = alpha * act(logits[slots[i]]).
template <class T>
inline void router_gate(Context context, std::span<T const> logits, std::span<Row const> slots, RouterActivation activation,
                        T alpha, std::span<T> gate) {
  detail::refuse_softmax(activation);
  parallel_rows(context.threads, detail::length(slots), 32, [&](Index i) {
    auto const at = static_cast<std::size_t>(i);
    gate[at] = math::router_gate(activation, alpha, logits[static_cast<std::size_t>(slots[at])]);
  });
}

/// d_logits[slots[i]] += d_gate[i] * derivative.
template <class T>
inline void router_gate_backward(Context context, std::span<T const> logits, std::span<Row const> slots,
                                 RouterActivation activation, T alpha, std::span<T const> d_gate, std::span<T> d_logits) {
  detail::refuse_softmax(activation);
  parallel_rows(context.threads, detail::length(slots), 32, [&](Index i) {
    auto const at = static_cast<std::size_t>(i);
    auto const slot = static_cast<std::size_t>(slots[at]);
    d_logits[slot] += d_gate[at] * math::router_gate_derivative(activation, alpha, logits[slot]);
  });
}

}  // namespace mor::host
