// SPDX-License-Identifier: Apache-2.0
/// @file
/// A few words for the host, written by a kernel: the copy engine would take over from the multiprocessors, and they from it,
/// which takes longer than the copy (15 us beside 4 on an H100).
#pragma once

#include "mor/core/types.hpp"
#include "mor/math/serving.hpp"

namespace mor::cuda {

/// Places for words in page-locked host memory, taken in turn by the device, which knows the next one: so the same launch,
/// captured once, takes another place each time.
struct HostRing {
  Row* words = nullptr;    ///< [places, room]
  Row* numbers = nullptr;  ///< [places]: of the words that a place has had, the number of the last ones, once they are there
  Index room = 0, places = 0;
  Row* next = nullptr;  ///< in device memory, 0 at first: the next place, and the number before the next words'

  [[nodiscard]] static MOR_HOST_DEVICE constexpr Row after(Row number) { return math::next_count(number, true); }

  void note_to(auto& log) const { log.note(words, numbers, room, places, next); }
};

/// Writes `words` words to the ring's next place, and then their number. One block.
template <int Threads>
__global__ void __launch_bounds__(Threads) send_words_kernel(Row const* from, int words, HostRing ring) {
  Row const place = ring.next[0], number = HostRing::after(ring.next[1]);
  Row* const to = ring.words + Index{place} * ring.room;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < words; i += Threads) to[i] = from[i];
  __syncthreads();
  if (threadIdx.x != 0) return;
  __threadfence_system();
  *static_cast<Row volatile*>(ring.numbers + place) = number;
  ring.next[0] = place + 1 == ring.places ? 0 : place + 1;
  ring.next[1] = number;
}

}  // namespace mor::cuda
