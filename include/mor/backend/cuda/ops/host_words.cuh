// SPDX-License-Identifier: Apache-2.0
/// @file
/// A few words from the device to page-locked host memory.
#pragma once

#include "mor/backend/cuda/kernels/host_words.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/tuning/serving.hpp"
#include "mor/core/types.hpp"

#include <span>

namespace mor::cuda {

/// Places for words in page-locked host memory, taken in turn by the device, which knows the next one: so the same launch,
/// captured once, takes another place each time.
struct HostRing {
  Row* words = nullptr;  ///< [places, room]
  Index room = 0, places = 0;
  Row* next = nullptr;  ///< in device memory, 0 at first
};

/// Enqueues a copy to the next place. Floor: 4 bytes a word over the bus.
inline void send_words(Context const& context, std::span<Row const> words, HostRing const& ring) {
  constexpr int threads = tuning::kServingThreads;
  launch(context, "send_words", {dim3(1), threads}, &send_words_kernel<threads>, words.data(), static_cast<int>(words.size()), ring.words,
         static_cast<int>(ring.room), static_cast<int>(ring.places), ring.next);
}

}  // namespace mor::cuda
