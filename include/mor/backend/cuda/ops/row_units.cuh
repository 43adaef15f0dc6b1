// SPDX-License-Identifier: Apache-2.0
/// @file
/// Views as rows of the units that copies move.
#pragma once

#include "mor/backend/cuda/kernels/row_copy.cuh"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <type_traits>

namespace mor::cuda {

/// The rows of a view in units of `Unit`, which is T or a pack of whole Ts (`can_pack` says when that is allowed).
template <class Unit, class T>
[[nodiscard]] inline UnitRows<Unit> unit_rows(View<T> x) {
  constexpr Index elements = static_cast<Index>(sizeof(Unit) / sizeof(T));
  static_assert(std::is_const_v<Unit> == std::is_const_v<T>);
  return {reinterpret_cast<Unit*>(x.data), x.stride / elements};
}

/// Units of `Unit` in one row.
template <class Unit, class T>
[[nodiscard]] inline unsigned units_of(View<T> x) {
  return static_cast<unsigned>(x.cols * static_cast<Index>(sizeof(T)) / static_cast<Index>(sizeof(Unit)));
}

}  // namespace mor::cuda
