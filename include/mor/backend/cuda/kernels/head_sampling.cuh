// SPDX-License-Identifier: Apache-2.0
/// @file
/// Norm, head product and sampling of a few rows in one launch. All blocks make logits (head_product.cuh), which stay in the
/// second-level cache; when all have met, each cluster of blocks draws from a row as sampling.cuh does.
///
/// All blocks must run at the same time, one on a multiprocessor: a cooperative launch, at least as many clusters as rows.
#pragma once

#include "mor/backend/cuda/kernels/head_product.cuh"
#include "mor/backend/cuda/kernels/meeting.cuh"
#include "mor/backend/cuda/kernels/overlap.cuh"
#include "mor/backend/cuda/kernels/sampling.cuh"
#include "mor/backend/cuda/tuning/head_sampling.hpp"

namespace mor::cuda {

/// The barrier of the block behind which its rows are normed.
inline constexpr int kRowsNormed = 1;

/// How many rows there are. Waits for the kernels that wrote them.
template <class Arch>
[[nodiscard]] __device__ __forceinline__ int rows_of_head(HeadProductArguments const& head, SampleArguments const& sampling) {
  wait_for_earlier_kernels<Arch>();
  return sampling.count == nullptr ? head.rows : min(head.rows, *sampling.count);
}

/// The first weights are under way before the kernels have ended that make the rows. Shared memory is first the product's, then the logits' of a block's part of a row; what sampling has beside them has room
/// of its own. Without rows every block returns. @tparam Arch  Sm90
template <class Arch>
__global__ void __launch_bounds__(tuning::HeadSampling::threads, 1)
    head_sampling_kernel(__grid_constant__ HeadProductArguments const head, __grid_constant__ SampleArguments const sampling,
                         unsigned* counter) {
  using tuning::HeadSampling;
  unsigned char* const shared = &shared_storage<unsigned char>();
  auto const& plan = head.plan;
  int const warp = static_cast<int>(threadIdx.x) / kWarpSize;
  HeadRing const ring(plan.stages, shared + plan.barriers_at, shared + plan.ring_at);
  let_next_kernel_start<Arch>();
  int rows;
  if (warp == HeadSampling::fetch_warp) {
    HeadWeights weights(head, ring);
    rows = rows_of_head<Arch>(head, sampling);
    if (rows <= 0) return weights.leave();
    named_wait(kRowsNormed, HeadSampling::threads);
    weights.bring_rest();
  } else {
    rows = rows_of_head<Arch>(head, sampling);
    if (rows <= 0) return;
    norm_head_rows(head, shared, rows, warp < HeadSampling::fetch_warp ? warp : warp - 1, HeadSampling::warps - 1);
    named_wait(kRowsNormed, HeadSampling::threads);
    if (warp >= HeadSampling::first_product_warp) HeadProduct(head, ring, shared, rows).run();
  }
  if (static_cast<int>(blockIdx.x) >= rows * sampling.blocks) {  // for every block of the cluster
    __syncthreads();
    if (threadIdx.x == 0) Meeting const meeting(counter);
    return;
  }
  SampleRow<true, true> row(sampling, *reinterpret_cast<SampleShared*>(shared), shared + plan.rows_at);  // its rule is on its way
  __syncthreads();
  if (threadIdx.x == 0) Meeting(counter).wait();
  __syncthreads();
  sample_row(sampling, row);
}

}  // namespace mor::cuda
