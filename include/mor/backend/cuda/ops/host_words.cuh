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

/// Enqueues a copy to the next place, which then gets their number: one more than the last ones', from 1 on (`HostRing::after`).
/// Floor: 4 bytes a word over the bus.
inline void send_words(Context const& context, std::span<Row const> words, HostRing const& ring) {
  constexpr int threads = tuning::kServingThreads;
  launch(context, "send_words", {dim3(1), threads}, &send_words_kernel<threads>, words.data(), static_cast<int>(words.size()), ring);
}

}  // namespace mor::cuda
