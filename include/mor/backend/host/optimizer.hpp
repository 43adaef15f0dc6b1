// SPDX-License-Identifier: Apache-2.0
/// @file
/// AdamW and gradient norms on the host.
#pragma once

#include "mor/backend/host/context.hpp"
#include "mor/backend/host/parallel.hpp"
#include "mor/backend/host/reduce.hpp"
#include "mor/backend/host/vector_math.hpp"
#include "mor/contract/backend.hpp"

#include <cmath>
#include <span>

namespace mor::host {

namespace detail {
/// Constants of one update, computed once in double.
template <class T>
struct AdamwConstants {
  Pack<T> scale, keep_first, add_first, keep_second, add_second, correct_first, correct_second, epsilon, rate, decay;

  explicit AdamwConstants(AdamwStep const& step)
      : scale(step.gradient_scale),
        keep_first(step.beta1),
        add_first(1.0 - step.beta1),
        keep_second(step.beta2),
        add_second(1.0 - step.beta2),
        correct_first(1.0 / (1.0 - std::pow(step.beta1, static_cast<double>(step.step)))),
        correct_second(1.0 / (1.0 - std::pow(step.beta2, static_cast<double>(step.step)))),
        epsilon(step.epsilon),
        rate(step.learning_rate),
        decay(step.weight_decay) {}

  void update(Pack<T> gradient, Pack<T>& weight, Pack<T>& first, Pack<T>& second) const {
    Pack<T> const g = scale * gradient;
    first = keep_first * first + add_first * g;
    second = keep_second * second + add_second * (g * g);
    Pack<T> const direction = first * correct_first / (sqrt(second * correct_second) + epsilon);
    weight = weight - rate * (direction + decay * weight);
  }
};
}  // namespace detail

/// One AdamW update of a flat buffer, in place.
template <class T>
inline void adamw(Context context, std::span<T const> gradients, AdamwStep const& step, std::span<T> weights,
                  std::span<T> first_moment, std::span<T> second_moment) {
  detail::AdamwConstants<T> const constants(step);
  constexpr Index width = Pack<T>::size;
  parallel_ranges(context.threads, divide_up(static_cast<Index>(gradients.size()), width), 1024, [&](Index begin, Index end) {
    for (Index i = begin * width; i < end * width; i += width) {
      Index const count = std::min(width, static_cast<Index>(gradients.size()) - i);
      auto const read = [&](T const* from) { return count == width ? load(from + i) : load_partial(from + i, count); };
      auto const write = [&](T* to, Pack<T> value) {
        count == width ? store(to + i, value) : store_partial(to + i, count, value);
      };
      Pack<T> weight = read(weights.data()), first = read(first_moment.data()), second = read(second_moment.data());
      constants.update(read(gradients.data()), weight, first, second);
      write(weights.data(), weight);
      write(first_moment.data(), first);
      write(second_moment.data(), second);
    }
  });
}

/// Sum of squares in double; NaN and infinity stay.
template <class T>
[[nodiscard]] inline double squared_norm(Context context, std::span<T const> values) {
  return parallel_sum(context, static_cast<Index>(values.size()), [&](Index i) {
    auto const value = static_cast<double>(values[static_cast<std::size_t>(i)]);
    return value * value;
  });
}

}  // namespace mor::host
