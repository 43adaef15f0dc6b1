// SPDX-License-Identifier: Apache-2.0
/// @file
/// A few words for the host, written by a kernel: the copy engine would take over from the multiprocessors, and they from it,
/// which takes longer than the copy (15 us beside 4 on an H100).
#pragma once

#include "mor/core/types.hpp"

namespace mor::cuda {

/// Writes `words` words to the ring's next place, of `places` with `room` words each, in page-locked host memory; *next is
/// that place, and becomes the one behind it. One block.
template <int Threads>
__global__ void __launch_bounds__(Threads) send_words_kernel(Row const* from, int words, Row* ring, int room, int places, Row* next) {
  Row const place = *next;
  Row* const to = ring + Index{place} * room;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < words; i += Threads) to[i] = from[i];
  __syncthreads();
  if (threadIdx.x == 0) *next = place + 1 == places ? 0 : place + 1;
}

}  // namespace mor::cuda
