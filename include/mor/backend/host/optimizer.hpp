// SPDX-License-Identifier: Apache-2.0
/// @file
/// AdamW and gradient norms on the host.
#pragma once

#include "mor/backend/host/context.hpp"
#include "mor/backend/host/parallel.hpp"
#include "mor/backend/host/reduce.hpp"
#include "mor/backend/host/vector_math.hpp"
#include "mor/contract/backend.hpp"

#include <algorithm>
#include <span>

namespace mor::host {

namespace detail {
/// Constants of one update of a group.
template <class T>
struct AdamwConstants {
  Pack<T> scale, keep_first, add_first, keep_second, add_second, correct_first, correct_second, epsilon, rate, decay;

  AdamwConstants(AdamwSettings const& settings, ParameterGroup group, UpdateRecord<T> const& record)
      : scale(record.group(group).gradient_scale),
        keep_first(settings.beta1),
        add_first(1.0 - settings.beta1),
        keep_second(settings.beta2),
        add_second(1.0 - settings.beta2),
        correct_first(record.first_correction),
        correct_second(record.second_correction),
        epsilon(settings.epsilon),
        rate(record.group(group).learning_rate),
        decay(settings.weight_decay) {}

  void update(Pack<T> gradient, Pack<T>& weight, Pack<T>& first, Pack<T>& second) const {
    Pack<T> const g = scale * gradient;
    first = keep_first * first + add_first * g;
    second = keep_second * second + add_second * (g * g);
    Pack<T> const direction = first * correct_first / (sqrt(second * correct_second) + epsilon);
    weight = weight - rate * (direction + decay * weight);
  }
};
}  // namespace detail

/// One AdamW update of a flat buffer, in place, or nothing where the record says so.
template <class T>
inline void adamw(Context context, std::span<T const> gradients, AdamwSettings const& settings, ParameterGroup group,
                  UpdateRecord<T> const& record, std::span<T> weights, std::span<T> first_moment,
                  std::span<T> second_moment) {
  if (record.applied == 0) return;
  detail::AdamwConstants<T> const constants(settings, group, record);
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
