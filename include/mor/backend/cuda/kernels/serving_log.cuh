// SPDX-License-Identifier: Apache-2.0
/// @file
/// The end of a tick that the device may follow with another one by itself.
#pragma once

#include "mor/backend/cuda/kernels/overlap.cuh"
#include "mor/core/serving_tables.hpp"
#include "mor/core/types.hpp"
#include "mor/math/serving.hpp"

#include <cuda_runtime_api.h>

namespace mor::cuda {

/// `host::end_tick`. One block, since one thread may set the condition. `words` are the report's, `log` is the log's.
template <class Arch, int Threads>
__global__ void __launch_bounds__(Threads)
    end_tick_kernel(ServingTables tables, ServingReport report, Row const* words, Row* log, int most, int report_words,
                    cudaGraphConditionalHandle condition, bool looped) {
  wait_for_earlier_kernels<Arch>();
  let_next_kernel_start<Arch>();
  constexpr auto finished_words = static_cast<int>(ServingReport::kFinishedWords);
  constexpr auto sampled_words = static_cast<int>(ServingReport::kSampledWords);
  auto const thread = static_cast<int>(threadIdx.x);
  int const finished = words[ServingReport::FinishedRows] * finished_words;
  int const sampled = words[ServingReport::SampledRows] * sampled_words;
  int const tick = log[TickLog::Open] != 0 ? log[TickLog::Ticks] : 0;
  Row* const copy = log + TickLog::HeaderWords + Index{tick} * report_words;
  Index const first_finished = report.finished(0), first_sampled = report.sampled(0);
  bool calls = false;
  for (int i = thread; i < static_cast<int>(ServingReport::HeaderWords); i += Threads) copy[i] = words[i];
  for (int i = thread; i < finished; i += Threads) {
    Row const word = words[first_finished + i];
    copy[first_finished + i] = word;
    calls = calls || (i % finished_words == 0 && word >= tables.shape.slots);
  }
  for (int i = thread; i < sampled; i += Threads) {
    Row const word = words[first_sampled + i];
    copy[first_sampled + i] = word;
    calls = calls || (i % sampled_words == 3 && word != 0);
  }
  bool const called = __syncthreads_or(calls ? 1 : 0) != 0;  // and every thread has read the log's header
  if (thread != 0) return;
  Row const all_calls = math::next_count(log[TickLog::Calls], called);
  bool const again =
      looped && tick + 1 < most && all_calls == tables.at(tables.answered()) && math::rows_remain(words);
  log[TickLog::Ticks] = tick + 1;
  log[TickLog::Open] = again ? 1 : 0;
  log[TickLog::Calls] = all_calls;
  if (looped) cudaGraphSetConditional(condition, again ? 1U : 0U);
}

}  // namespace mor::cuda
