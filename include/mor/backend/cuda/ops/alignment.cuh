// SPDX-License-Identifier: Apache-2.0
/// @file
/// Whether a kernel may use 16-byte accesses on its operands.
#pragma once

#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <cstdint>

namespace mor::cuda {

/// Every row of the view starts at a multiple of 16 bytes and is a whole number of 16-byte packs.
template <class T>
[[nodiscard]] inline bool can_pack(View<T> x) {
  constexpr Index size = 16 / static_cast<Index>(sizeof(T));
  return reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && (x.stride % size == 0 || x.rows <= 1) && x.cols % size == 0;
}

template <class T, class... More>
[[nodiscard]] inline bool can_pack(View<T> first, View<More>... more) {
  return can_pack(first) && (... && can_pack(more));
}

}  // namespace mor::cuda
