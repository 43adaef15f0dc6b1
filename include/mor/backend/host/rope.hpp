// SPDX-License-Identifier: Apache-2.0
/// @file
/// Rotary position embedding on the host, with a table of cosines and sines that grows with the positions seen.
#pragma once

#include "mor/backend/host/context.hpp"
#include "mor/backend/host/parallel.hpp"
#include "mor/backend/host/rows.hpp"
#include "mor/backend/host/vector_math.hpp"
#include "mor/contract/backend.hpp"
#include "mor/core/error.hpp"
#include "mor/core/memory.hpp"
#include "mor/core/view.hpp"
#include "mor/math/rope.hpp"

#include <algorithm>
#include <cmath>
#include <span>

namespace mor::host {

/// cos and sin of every pair at positions 0 .. size - 1, for one head dimension and base. Grows by doubling, so a
/// program that has seen its longest sequence allocates no more.
template <class T>
class RopeTable {
 public:
  /// Makes positions below `count` readable.
  void prepare(MemoryResource memory, int threads, Index count, Index head_dim, double theta) {
    bool const same = head_dim == head_dim_ && theta == theta_;
    if (same && count <= positions_) return;
    Index positions = std::max<Index>(same ? positions_ : 0, 256);
    while (positions < count) positions *= 2;
    Buffer<T> table(memory, positions * head_dim);
    Buffer<double> frequencies(memory, head_dim / 2);
    for (Index pair = 0; pair < head_dim / 2; ++pair) {
      frequencies.data()[pair] = math::rope_frequency(pair, head_dim, theta);
    }
    parallel_rows(threads, positions, head_dim * 16, [&](Index position) {
      T* const cosines = table.data() + position * head_dim;
      T* const sines = cosines + head_dim / 2;
      for (Index pair = 0; pair < head_dim / 2; ++pair) {
        double const angle = math::rope_angle(static_cast<Row>(position), frequencies.data()[pair]);
        cosines[pair] = static_cast<T>(std::cos(angle));
        sines[pair] = static_cast<T>(std::sin(angle));
      }
    });
    table_ = std::move(table);
    positions_ = positions;
    head_dim_ = head_dim;
    theta_ = theta;
  }

  /// head_dim / 2 cosines, then as many sines.
  [[nodiscard]] T const* row(Index position) const { return table_.data() + position * head_dim_; }

 private:
  Buffer<T> table_;
  Index positions_ = 0, head_dim_ = 0;
  double theta_ = 0.0;
};

/// Rotates x [N, heads * head_dim] in place: with (a, b) = (x[i], x[i + head_dim / 2]) and the angle of pair i,
/// (a cos - b sin, b cos + a sin); backward turns the other way.
template <class T>
inline void rope(Context context, MemoryResource memory, RopeTable<T>& table, std::span<Row const> positions,
                 Index head_dim, double theta, Rotation rotation, View<T> x) {
  if (x.empty()) return;
  if (head_dim <= 0 || head_dim % 2 != 0 || x.cols % head_dim != 0) {
    fail(ErrorCode::ShapeMismatch, "the head dimension does not fit the columns", "host::rope",
         "an even divisor of " + text_of(x.cols), text_of(head_dim));
  }
  Row const last = *std::max_element(positions.begin(), positions.begin() + x.rows);
  table.prepare(memory, context.threads, Index{last} + 1, head_dim, theta);
  Index const half = head_dim / 2;
  Pack<T> const direction(rotation == Rotation::Forward ? T(1) : T(-1));
  parallel_rows(context.threads, x.rows, x.cols, [&](Index i) {
    T const* const cosines = table.row(detail::index_at(positions, i));
    T const* const sines = cosines + half;
    for (T* head = x.row(i); head < x.row(i) + x.cols; head += head_dim) {
      for (Index pair = 0; pair < half; pair += Pack<T>::size) {
        Index const count = std::min(half - pair, Pack<T>::size);
        bool const whole = count == Pack<T>::size;
        auto const read = [&](T const* from) { return whole ? load(from) : load_partial(from, count); };
        auto const write = [&](T* to, Pack<T> value) { whole ? store(to, value) : store_partial(to, count, value); };
        Pack<T> const cosine = read(cosines + pair), sine = direction * read(sines + pair);
        Pack<T> const a = read(head + pair), b = read(head + half + pair);
        write(head + pair, a * cosine - b * sine);
        write(head + half + pair, b * cosine + a * sine);
      }
    }
  });
}

}  // namespace mor::host
