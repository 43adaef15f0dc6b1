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

/// Enqueues to[i] = words[i]. Floor: 4 bytes a word over the bus.
inline void send_words(Context const& context, std::span<Row const> words, Row* to) {
  constexpr int threads = tuning::kServingLogThreads;
  auto const size = static_cast<Index>(words.size());
  launch(context, "send_words", {dim3(persistent_blocks(context, divide_up(size, threads), 1)), threads}, &send_words_kernel<threads>,
         words.data(), to, static_cast<int>(size));
}

}  // namespace mor::cuda
