// SPDX-License-Identifier: Apache-2.0
/// @file
/// A few words for the host, written by a kernel: the copy engine would take over from the multiprocessors, and they from it,
/// which takes longer than the copy (15 us beside 4 on an H100).
#pragma once

#include "mor/core/types.hpp"

namespace mor::cuda {

/// to[i] = from[i]; `to` is page-locked host memory. Any number of blocks.
template <int Threads>
__global__ void __launch_bounds__(Threads) send_words_kernel(Row const* from, Row* to, int words) {
  for (int i = static_cast<int>(blockIdx.x) * Threads + static_cast<int>(threadIdx.x); i < words;
       i += static_cast<int>(gridDim.x) * Threads) {
    to[i] = from[i];
  }
}

}  // namespace mor::cuda
