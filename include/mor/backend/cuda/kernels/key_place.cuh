// SPDX-License-Identifier: Apache-2.0
/// @file
/// Where a key of a list lies in its storage; see `KeyList`.
#pragma once

#include "mor/core/types.hpp"

namespace mor::cuda {

/// A page table; `page_size` 0 where the keys of a sequence are neighbours.
struct KeyPages {
  Row const* pages = nullptr;
  int page_size = 0;

  void note_to(auto& log) const { log.note(pages, page_size); }
};

/// The storage row of key `key` of a list that begins at `begin` (a row, or an entry of the page table).
[[nodiscard]] __device__ __forceinline__ Index key_place(KeyPages const& table, Index begin, int key) {
  if (table.page_size == 0) return begin + key;
  int const page = key / table.page_size;
  return Index{table.pages[begin + page]} * table.page_size + (key - page * table.page_size);
}

}  // namespace mor::cuda
