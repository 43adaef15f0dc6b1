// SPDX-License-Identifier: Apache-2.0
/// @file
/// The rows a recursion works on, and the keys its attention may look at. Plain descriptions of memory that a
/// backend owns.
#pragma once

#include "mor/core/types.hpp"

#include <span>

namespace mor {

/// A subset of a batch's rows, in ascending order. The whole batch is the active set of everything.
///
/// Pointers named without `host_` are in the backend's memory. `host_offsets` is the same list as
/// `sequence_offsets` in host memory: the host always knows how many rows are active, never which.
template <class Real>
struct ActiveSet {
  Index num_rows = 0;
  Index num_sequences = 0;
  bool everything = false;                  ///< every row of the batch: `rows` is 0, 1, 2, ...
  std::span<Row const> rows;                ///< [num_rows] indices into the batch
  std::span<Row const> positions;           ///< [num_rows] position of each token in its own sequence
  std::span<Row const> sequence_offsets;    ///< [num_sequences + 1] first row of each sequence in this set
  std::span<Row const> host_offsets;        ///< the same in host memory
  std::span<Row const> slots;               ///< [num_rows] index of each row among the candidates it was chosen from
  std::span<Real> gate;                     ///< [num_rows] weight of each row's update; empty where a router has none
};

/// The key list of one attention: query row i of sequence s sees keys
/// `key_begin[s] .. key_begin[s] + limits[i] - 1`. Limits never decrease along a sequence.
///
/// Where `page_size` is positive, the list is cut into pages that lie anywhere in the storage: key j of sequence s is row
/// `pages[key_begin[s] + j / page_size] * page_size + j % page_size`, so `key_begin` counts entries of the page table.
struct KeyList {
  Index num_sequences = 0;
  Index num_queries = 0;
  Index max_limit = 0;                    ///< an upper bound of `limits`, known on the host (sizes scratch memory)
  std::span<Row const> query_offsets;     ///< [num_sequences + 1] first query row of each sequence
  std::span<Row const> host_query_offsets;  ///< the same in host memory
  std::span<Row const> key_begin;         ///< [num_sequences] first key row of each sequence
  std::span<Row const> limits;            ///< [num_queries] number of visible keys
  Index page_size = 0;                    ///< keys of a page; 0: the keys of a sequence are neighbours
  std::span<Row const> pages = {};        ///< page table: lists of pages, one after another
};

/// The row of the storage that holds key `key` of a sequence. Reads the list, so only where its memory is the host's.
[[nodiscard]] inline Index key_row(KeyList const& keys, Index sequence, Index key) {
  Index const begin = keys.key_begin[static_cast<std::size_t>(sequence)];
  if (keys.page_size == 0) return begin + key;
  return keys.pages[static_cast<std::size_t>(begin + key / keys.page_size)] * keys.page_size + key % keys.page_size;
}

/// Head geometry of an attention.
struct AttentionShape {
  Index num_heads = 0;
  Index num_kv_heads = 0;
  Index head_dim = 0;
  double scale = 1.0;  ///< factor on q.k, 1 / sqrt(head_dim)
};

}  // namespace mor
