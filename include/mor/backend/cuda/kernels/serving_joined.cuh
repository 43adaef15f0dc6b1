// SPDX-License-Identifier: Apache-2.0
/// @file
/// Two changes of a serving engine's tables in one kernel, where one follows the other in every tick: what the first writes
/// is still at hand, and a launch is saved. One block each.
#pragma once

#include "mor/backend/cuda/kernels/serving_collect.cuh"
#include "mor/backend/cuda/kernels/serving_tables.cuh"

namespace mor::cuda {

/// `finish_recursion` and `collect_finished`.
template <class Arch, int Steps>
__global__ void __launch_bounds__(tuning::kServingThreads)
    finish_and_collect_kernel(ServingTables tables, TickRule rule, RowLists rows, float const* scores, Row* report, int room, RowLists finished,
                              SampledLists sampled) {
  wait_for_earlier_kernels<Arch>();
  let_next_kernel_start<Arch>();
  finish_rows(tables, rows, scores, report, room);
  __syncthreads();
  collect_finished_rows<Steps>(tables, rule, report, finished, sampled);
}

/// `commit_samples` and `collect_entering`, whose tokens may lie where those of the samples do.
template <class Arch, int Steps>
__global__ void __launch_bounds__(tuning::kServingThreads)
    commit_and_collect_kernel(ServingTables tables, RowLists finished, SampledLists sampled, Token const* tokens,
                              float const* log_probabilities, ServingReport report, Row* words, RowLists entering, Token* entering_tokens,
                              int tokens_room) {
  wait_for_earlier_kernels<Arch>();
  let_next_kernel_start<Arch>();
  commit_rows(tables, finished, sampled, tokens, log_probabilities, report, words);
  __syncthreads();
  collect_entering_rows<Steps>(tables, entering, entering_tokens, tokens_room, words + ServingReport::EnteredRows);
}

}  // namespace mor::cuda
