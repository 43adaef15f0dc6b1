// SPDX-License-Identifier: Apache-2.0
/// @file
/// `View`: a non-owning row-major matrix, the argument type of every backend verb.
#pragma once

#include "mor/core/types.hpp"

#include <type_traits>

namespace mor {

/// A matrix [rows, cols] of T somewhere in a backend's memory; row i starts at `data + i * stride`.
/// Views never own and are passed by value. Vectors are `std::span`.
template <class T>
struct View {
  T* data = nullptr;
  Index rows = 0;
  Index cols = 0;
  Index stride = 0;  ///< elements from one row to the next; at least `cols`

  constexpr View() = default;
  MOR_HOST_DEVICE constexpr View(T* data_, Index rows_, Index cols_) : View(data_, rows_, cols_, cols_) {}
  MOR_HOST_DEVICE constexpr View(T* data_, Index rows_, Index cols_, Index stride_)
      : data(data_), rows(rows_), cols(cols_), stride(stride_) {}

  /// A view of T converts to a view of T const.
  template <class U>
    requires(std::is_same_v<T, U const>)
  MOR_HOST_DEVICE constexpr View(View<U> other)  // NOLINT: conversion is the point
      : View(other.data, other.rows, other.cols, other.stride) {}

  [[nodiscard]] MOR_HOST_DEVICE constexpr T* row(Index i) const { return data + i * stride; }
  [[nodiscard]] MOR_HOST_DEVICE constexpr T& operator()(Index i, Index j) const { return data[i * stride + j]; }
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index size() const { return rows * cols; }
  [[nodiscard]] MOR_HOST_DEVICE constexpr bool empty() const { return rows == 0 || cols == 0; }
  [[nodiscard]] MOR_HOST_DEVICE constexpr bool contiguous() const { return stride == cols || rows <= 1; }

  /// Columns [first, first + count) of every row.
  [[nodiscard]] MOR_HOST_DEVICE constexpr View columns(Index first, Index count) const {
    return {data + first, rows, count, stride};
  }
  /// Rows [first, first + count).
  [[nodiscard]] MOR_HOST_DEVICE constexpr View row_range(Index first, Index count) const {
    return {data + first * stride, count, cols, stride};
  }
};

}  // namespace mor
