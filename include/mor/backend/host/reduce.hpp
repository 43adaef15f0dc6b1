// SPDX-License-Identifier: Apache-2.0
/// @file
/// Sums over long vectors in double precision, in an order that does not depend on the number of threads.
#pragma once

#include "mor/backend/host/context.hpp"
#include "mor/backend/host/parallel.hpp"
#include "mor/core/types.hpp"

#include <algorithm>

namespace mor::host {

/// The sum over i < count of term(i), a double: parts of a fixed size are summed on any thread, then one after another.
/// Within a part, eight sums run side by side.
template <class F>
[[nodiscard]] inline double parallel_sum(Context context, Index count, F const& term) {
  Index const part_size = 8192;
  Index const parts = divide_up(count, part_size);
  auto const sum_part = [&](Index part) {
    Index const end = std::min((part + 1) * part_size, count);
    double sums[8] = {};
    Index i = part * part_size;
    for (; i + 8 <= end; i += 8) {
      for (Index lane = 0; lane < 8; ++lane) sums[lane] += term(i + lane);
    }
    for (; i < end; ++i) sums[0] += term(i);
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
  };
  if (parts <= 1) return count > 0 ? sum_part(0) : 0.0;
  Scratch scratch(context);
  double* const partial = scratch.take<double>(parts);
  parallel_ranges(context.threads, parts, 2, [&](Index begin, Index end) {
    for (Index part = begin; part < end; ++part) partial[part] = sum_part(part);
  });
  double total = 0.0;
  for (Index part = 0; part < parts; ++part) total += partial[part];
  return total;
}

}  // namespace mor::host
