// SPDX-License-Identifier: Apache-2.0
/// @file
/// Loops over one row in packs: element-wise maps, dot products, sums and maxima.
#pragma once

#include "mor/backend/host/pack.hpp"
#include "mor/core/types.hpp"

#include <limits>

namespace mor::host {

/// out[i] = function(in[i]...) for i < count, `function` taking and giving packs. `out` may be one of the inputs.
template <class T, class F, class... In>
inline void map(Index count, F const& function, T* out, In const*... in) {
  constexpr Index width = Pack<T>::size;
  Index i = 0;
  for (; i + width <= count; i += width) store(out + i, function(load(in + i)...));
  if (i < count) store_partial(out + i, count - i, function(load_partial(in + i, count - i)...));
}

/// The sum over i < count of function(in[i]...); four packs are summed side by side, in a fixed order.
template <class T, class F, class... In>
[[nodiscard]] inline T map_sum(Index count, F const& function, T const* first, In const*... in) {
  constexpr Index width = Pack<T>::size;
  Pack<T> sums[4] = {Pack<T>(T(0)), Pack<T>(T(0)), Pack<T>(T(0)), Pack<T>(T(0))};
  Index i = 0;
  for (; i + 4 * width <= count; i += 4 * width) {
    sums[0] += function(load(first + i), load(in + i)...);
    sums[1] += function(load(first + i + width), load(in + i + width)...);
    sums[2] += function(load(first + i + 2 * width), load(in + i + 2 * width)...);
    sums[3] += function(load(first + i + 3 * width), load(in + i + 3 * width)...);
  }
  for (; i + width <= count; i += width) sums[0] += function(load(first + i), load(in + i)...);
  if (i < count) {
    // Lanes beyond the end must add nothing, whatever the function gives for zeros.
    T lanes[width] = {};
    store_partial(lanes, count - i, function(load_partial(first + i, count - i), load_partial(in + i, count - i)...));
    sums[1] += load(static_cast<T const*>(lanes));
  }
  return sum_of((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

template <class T>
[[nodiscard]] inline T dot(Index count, T const* a, T const* b) {
  return map_sum(count, [](Pack<T> x, Pack<T> y) { return x * y; }, a, b);
}

/// The largest of count numbers; -infinity for none.
template <class T>
[[nodiscard]] inline T maximum(Index count, T const* values) {
  constexpr Index width = Pack<T>::size;
  T const lowest = -std::numeric_limits<T>::infinity();
  Pack<T> best(lowest);
  Index i = 0;
  for (; i + width <= count; i += width) best = larger(best, load(values + i));
  if (i < count) best = larger(best, load_partial(values + i, count - i, lowest));
  return largest_of(best);
}

/// values[i] = exp(values[i] - offset); returns their sum.
template <class T>
inline T exp_and_sum(Index count, T offset, T* values) {
  constexpr Index width = Pack<T>::size;
  T const lowest = -std::numeric_limits<T>::infinity();
  Pack<T> sum(T(0));
  Pack<T> const shift(offset);
  Index i = 0;
  for (; i + width <= count; i += width) {
    Pack<T> const e = exp(load(static_cast<T const*>(values + i)) - shift);
    store(values + i, e);
    sum += e;
  }
  if (i < count) {
    Pack<T> const e = exp(load_partial(static_cast<T const*>(values + i), count - i, lowest) - shift);
    store_partial(values + i, count - i, e);
    sum += e;
  }
  return sum_of(sum);
}

}  // namespace mor::host
