// SPDX-License-Identifier: Apache-2.0
/// @file
/// Key lists on the host: the limits of a causal attention, and writing keys at their places.
#pragma once

#include "mor/backend/host/context.hpp"
#include "mor/backend/host/parallel.hpp"
#include "mor/core/active_set.hpp"
#include "mor/core/view.hpp"

#include <algorithm>
#include <span>

namespace mor::host {

/// limits[i] as `BackendAttention` defines them: rank in the set where `rows` is empty, else rank in the batch.
inline void causal_limits(std::span<Row const> set_offsets, std::span<Row const> rows, std::span<Row const> batch_offsets,
                          std::span<Row const> base, std::span<Row> limits) {
  for (std::size_t s = 0; s + 1 < set_offsets.size(); ++s) {
    Row const before = base.empty() ? 0 : base[s];
    for (Row i = set_offsets[s]; i < set_offsets[s + 1]; ++i) {
      auto const at = static_cast<std::size_t>(i);
      limits[at] = before + 1 + (rows.empty() ? i - set_offsets[s] : rows[at] - batch_offsets[s]);
    }
  }
}

/// storage[key_row(s, limits[i] - 1)] = x[i]; a row with limit 0 has no place and is left out.
template <class T>
inline void write_keys(Context context, View<T const> x, KeyList const& keys, View<T> storage) {
  for (Index s = 0; s < keys.num_sequences; ++s) {
    auto const sequence = static_cast<std::size_t>(s);
    Index const begin = keys.query_offsets[sequence];
    parallel_rows(context.threads, keys.query_offsets[sequence + 1] - begin, x.cols, [&](Index i) {
      Index const limit = keys.limits[static_cast<std::size_t>(begin + i)];
      if (limit > 0) std::copy(x.row(begin + i), x.row(begin + i) + x.cols, storage.row(key_row(keys, s, limit - 1)));
    });
  }
}

}  // namespace mor::host
