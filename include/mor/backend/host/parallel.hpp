// SPDX-License-Identifier: Apache-2.0
/// @file
/// Loops on several threads. OpenMP where the compiler has it, one thread where it has not. Bodies must not throw.
#pragma once

#include "mor/core/types.hpp"

#include <algorithm>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace mor::host {

/// The number of threads that a request for `requested` gets; 0 asks for the default.
[[nodiscard]] inline int resolve_threads(int requested) {
#if defined(_OPENMP)
  return requested > 0 ? requested : std::max(1, omp_get_max_threads());
#else
  static_cast<void>(requested);
  return 1;
#endif
}

/// body(item, thread) for every item in [0, count), each on whichever thread is free. Use it where items write to
/// different places, so that the result does not depend on who did what.
template <class F>
inline void parallel_items(int threads, Index count, F const& body) {
  int const team = static_cast<int>(std::min<Index>(threads, count));
  if (team <= 1) {
    for (Index item = 0; item < count; ++item) body(item, 0);
    return;
  }
#if defined(_OPENMP)
#pragma omp parallel for schedule(dynamic, 1) num_threads(team)
  for (Index item = 0; item < count; ++item) body(item, omp_get_thread_num());
#endif
}

/// body(part, begin, end) on contiguous parts of [0, count), at most one per thread and none smaller than `grain`.
template <class F>
inline void parallel_parts(int threads, Index count, Index grain, F const& body) {
  Index const parts = std::clamp<Index>(count / std::max<Index>(grain, 1), 1, threads);
  if (parts == 1) {
    if (count > 0) body(Index{0}, Index{0}, count);
    return;
  }
#if defined(_OPENMP)
#pragma omp parallel for schedule(static, 1) num_threads(static_cast<int>(parts))
  for (Index part = 0; part < parts; ++part) body(part, count * part / parts, count * (part + 1) / parts);
#endif
}

/// body(begin, end) on such parts: for element-wise work.
template <class F>
inline void parallel_ranges(int threads, Index count, Index grain, F const& body) {
  parallel_parts(threads, count, grain, [&](Index, Index begin, Index end) { body(begin, end); });
}

/// Rows of `width` elements in parallel, with parts large enough to be worth a thread.
template <class F>
inline void parallel_rows(int threads, Index rows, Index width, F const& body) {
  Index const worthwhile = 16384;  // elements; a parallel region costs about as much as this many additions
  parallel_ranges(threads, rows, worthwhile / std::max<Index>(width, 1) + 1, [&](Index begin, Index end) {
    for (Index row = begin; row < end; ++row) body(row);
  });
}

}  // namespace mor::host
