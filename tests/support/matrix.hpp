// SPDX-License-Identifier: Apache-2.0
/// @file
/// Matrices that own their memory, random or poisoned, for tests.
#pragma once

#include "mor/core/philox.hpp"
#include "mor/core/view.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

namespace mor::test {

/// `count` numbers uniform in (-1, 1), the same for the same seed in every precision.
template <class T>
[[nodiscard]] std::vector<T> random_vector(Index count, std::uint64_t seed) {
  std::vector<T> values(static_cast<std::size_t>(count));
  Philox const generator{stream_key(seed, 77)};
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<T>(static_cast<float>(2.0 * uniform01(generator.block(i)[0]) - 1.0));
  }
  return values;
}

/// A matrix with room between its rows. The room holds NaN: a verb that reads it spoils its result, and `intact` tells
/// whether one wrote to it.
template <class T>
class Matrix {
 public:
  Matrix() = default;
  Matrix(Index rows, Index cols, T value = T(0), Index padding = 3)
      : rows_(rows), cols_(cols), stride_(cols + padding), data_(static_cast<std::size_t>(rows * stride_ + padding), poison()) {
    for (Index i = 0; i < rows; ++i) std::fill_n(view().row(i), cols, value);
  }
  static Matrix random(Index rows, Index cols, std::uint64_t seed) {
    Matrix result(rows, cols);
    result.assign(random_vector<T>(rows * cols, seed));
    return result;
  }
  /// Every element NaN: for outputs that must be overwritten.
  static Matrix poisoned(Index rows, Index cols) { return Matrix(rows, cols, poison()); }

  [[nodiscard]] View<T> view() { return {data_.data(), rows_, cols_, stride_}; }
  [[nodiscard]] View<T const> view() const { return {data_.data(), rows_, cols_, stride_}; }
  [[nodiscard]] View<T const> read() const { return view(); }
  [[nodiscard]] T& operator()(Index i, Index j) { return view()(i, j); }
  [[nodiscard]] T operator()(Index i, Index j) const { return view()(i, j); }
  [[nodiscard]] Index rows() const { return rows_; }
  [[nodiscard]] Index cols() const { return cols_; }

  /// The elements without the room between rows.
  [[nodiscard]] std::vector<T> values() const {
    std::vector<T> result;
    for (Index i = 0; i < rows_; ++i) result.insert(result.end(), view().row(i), view().row(i) + cols_);
    return result;
  }
  void assign(std::vector<T> const& values) {
    for (Index i = 0; i < rows_; ++i) std::copy_n(values.data() + i * cols_, cols_, view().row(i));
  }
  /// Whether nothing was written between or behind the rows.
  [[nodiscard]] bool intact() const {
    for (std::size_t i = 0; i < data_.size(); ++i) {
      bool const inside = static_cast<Index>(i) < rows_ * stride_ && static_cast<Index>(i) % stride_ < cols_;
      if (!inside && !std::isnan(data_[i])) return false;
    }
    return true;
  }

 private:
  static T poison() { return std::numeric_limits<T>::quiet_NaN(); }

  Index rows_ = 0, cols_ = 0, stride_ = 0;
  std::vector<T> data_;
};

/// The largest |a - b| / max(1, |b|); NaN anywhere, or different lengths, gives infinity. Equal infinities agree.
template <class A, class B>
[[nodiscard]] double worst_difference(std::vector<A> const& a, std::vector<B> const& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double worst = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    auto const x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    if (x == y) continue;
    double const difference = std::abs(x - y) / std::max(1.0, std::abs(y));
    worst = std::isfinite(difference) ? std::max(worst, difference) : std::numeric_limits<double>::infinity();
  }
  return worst;
}

}  // namespace mor::test
