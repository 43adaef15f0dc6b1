// SPDX-License-Identifier: Apache-2.0
/// @file
/// The verb of `PacesTicks` on the device.
#pragma once

#include "mor/backend/cuda/kernels/serving_log.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/loop.cuh"
#include "mor/backend/cuda/ops/serving_tables.cuh"
#include "mor/backend/cuda/tuning/serving.hpp"
#include "mor/core/serving_tables.hpp"

namespace mor::cuda {

/// Floor: 16 bytes a finished row, 32 a row that makes a token; the last kernel of a loop's body.
template <class Arch>
inline void end_tick(Context const& context, ServingTables const& tables, ServingReport const& report,
                     TickLog const& log, Loop const& loop) {
  constexpr int threads = tuning::kServingLogThreads;
  LaunchShape const shape{dim3(1), threads, 0, 1, Arch::capability >= 90};
  launch(context, "end_tick", shape, &end_tick_kernel<Arch, threads>, tables, report, report.words.data(),
         log.words.data(), static_cast<int>(log.most), static_cast<int>(log.report_words), loop.condition, loop.looped);
}

}  // namespace mor::cuda
