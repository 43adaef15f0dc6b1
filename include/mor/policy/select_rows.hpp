// SPDX-License-Identifier: Apache-2.0
/// @file
/// Building blocks of `select` for router authors: keep everything, keep the top k, keep what passes a threshold.
#pragma once

#include "mor/contract/router.hpp"

#include <algorithm>
#include <span>
#include <vector>

namespace mor {

/// The elements of a contiguous one-column matrix.
template <class T>
[[nodiscard]] std::span<T> values(View<T> column) {
  return {column.data, static_cast<std::size_t>(column.size())};
}

/// The residual stream of a set's rows: a copy, or the stream itself where nobody will overwrite it.
template <class B>
[[nodiscard]] View<typename B::scalar_type> gather_hidden(RouterContext<B>& context,
                                                          ActiveSet<typename B::real_type> const& set) {
  if (set.everything && !context.training) return context.hidden;
  auto out = context.backend.arena().template matrix<typename B::scalar_type>(set.num_rows, context.hidden.cols);
  if (set.everything) {
    context.backend.copy(context.hidden, out);
  } else {
    context.backend.gather_rows(context.hidden, set.rows, out);
  }
  return out;
}

/// Every candidate goes on.
template <class B>
[[nodiscard]] ActiveSet<typename B::real_type> keep_all(RouterContext<B>& context,
                                                        ActiveSet<typename B::real_type> candidates) {
  candidates.slots = context.batch.rows.first(static_cast<std::size_t>(candidates.num_rows));  // 0, 1, 2, ...
  candidates.gate = {};
  return candidates;
}

/// Turns per-sequence counts, stored in `offsets[1..S]`, into offsets.
inline void counts_to_offsets(std::vector<Row>& offsets) {
  offsets.front() = 0;
  for (std::size_t s = 1; s < offsets.size(); ++s) offsets[s] = static_cast<Row>(offsets[s] + offsets[s - 1]);
}

/// An empty set of the sizes in `host_offsets`, and where a selection verb writes it. `host_offsets` must outlive the call
/// of the model.
template <class B>
[[nodiscard]] ActiveSet<typename B::real_type> allocate_set(RouterContext<B>& context, std::span<Row const> host_offsets,
                                                            Selection& selection) {
  auto& arena = context.backend.arena();
  Index const rows = host_offsets.back();
  selection = {arena.template allocate<Row>(rows), arena.template allocate<Row>(rows), arena.template allocate<Row>(rows)};
  ActiveSet<typename B::real_type> set;
  set.num_rows = rows;
  set.num_sequences = static_cast<Index>(host_offsets.size()) - 1;
  set.everything = rows == context.batch.num_rows;
  set.rows = selection.rows;
  set.positions = selection.positions;
  set.slots = selection.slots;
  set.host_offsets = host_offsets;
  set.sequence_offsets = context.backend.upload(host_offsets);
  return set;
}

/// The best `offsets[s + 1]` candidates (counts on entry, offsets on return) of each sequence s.
template <class B>
[[nodiscard]] ActiveSet<typename B::real_type> keep_top_k(RouterContext<B>& context,
                                                          std::span<typename B::real_type const> scores,
                                                          ActiveSet<typename B::real_type> const& candidates,
                                                          std::vector<Row>& offsets) {
  counts_to_offsets(offsets);
  if (offsets.back() == candidates.num_rows) return keep_all(context, candidates);
  Selection selection;
  auto set = allocate_set(context, offsets, selection);
  context.backend.select_top_k(scores, candidates, offsets, selection);
  return set;
}

/// The candidates with score >= threshold; `offsets` holds their counts on entry.
template <class B>
[[nodiscard]] ActiveSet<typename B::real_type> keep_counted(RouterContext<B>& context,
                                                            std::span<typename B::real_type const> scores, double threshold,
                                                            ActiveSet<typename B::real_type> const& candidates,
                                                            std::vector<Row>& offsets) {
  counts_to_offsets(offsets);
  if (offsets.back() == candidates.num_rows) return keep_all(context, candidates);
  Selection selection;
  auto set = allocate_set(context, offsets, selection);
  context.backend.select_at_least(scores, threshold, candidates, offsets, selection);
  return set;
}

/// The candidates with score >= threshold, counted first.
template <class B>
[[nodiscard]] ActiveSet<typename B::real_type> keep_at_least(RouterContext<B>& context,
                                                             std::span<typename B::real_type const> scores,
                                                             double threshold,
                                                             ActiveSet<typename B::real_type> const& candidates,
                                                             std::vector<Row>& offsets) {
  offsets.resize(static_cast<std::size_t>(candidates.num_sequences) + 1);
  context.backend.count_at_least(scores, candidates, std::span<double const>(&threshold, 1),
                                 std::span<Row>(offsets).subspan(1));
  return keep_counted(context, scores, threshold, candidates, offsets);
}

}  // namespace mor
