// SPDX-License-Identifier: Apache-2.0
/// @file
/// Drawing the next tokens.
#pragma once

#include "mor/backend/cuda/kernels/sampling.cuh"
#include "mor/backend/cuda/kernels/sampling_row.cuh"
#include "mor/backend/cuda/ops/alignment.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/tuning/architecture.hpp"
#include "mor/backend/cuda/tuning/sampling.hpp"
#include "mor/core/error.hpp"
#include "mor/core/sampling.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <span>
#include <type_traits>

namespace mor::cuda {

/// Floor: 4 N V bytes. On Hopper a cluster of up to 8 blocks has a row in its shared memory and reads it once, up to
/// 400 thousand logits; elsewhere a block has a row, and reads a long one several times. Nothing waits, nothing is
/// sorted; the number of blocks changes no bit. Throws Unsupported where a block would have 2^19 logits or more. Where
/// `count` is given, in device memory, only that many rows are drawn from, and the results of the others are not
/// written.
template <class Arch>
inline void sample(Context const& context, View<float const> logits, std::span<SamplingRule const> rules,
                   std::span<Token const> history, std::span<Token> tokens, std::span<float> log_probabilities,
                   Row const* count = nullptr) {
  if (logits.empty()) return;
  constexpr bool clusters = std::is_same_v<Arch, Sm90>;
  tuning::SamplePlan const plan(logits.rows, logits.cols, clusters, context.device->multiprocessors,
                                context.device->max_shared_bytes);
  if (plan.part() >= tuning::kSampleMostPart) {
    fail(ErrorCode::Unsupported, "the vocabulary is too large for the kernel", "cuda::sample",
         "fewer than " + text_of(tuning::kSampleMostPart) + " logits a block", text_of(plan.part()));
  }
  SampleArguments const arguments{logits,
                                  rules.data(),
                                  history.data(),
                                  tokens.data(),
                                  log_probabilities.data(),
                                  count,
                                  plan.blocks,
                                  static_cast<int>(plan.span),
                                  can_pack(logits)};
  LaunchShape const shape{dim3(static_cast<unsigned>(logits.rows * plan.blocks)), tuning::kSampleThreads,
                          tuning::kSampleSmallBytes + plan.shared_bytes(), plan.blocks, clusters};
  auto* const kernel = plan.resident ? &sample_kernel<true, clusters> : &sample_kernel<false, clusters>;
  launch(context, "sample", shape, kernel, arguments);
}

}  // namespace mor::cuda
