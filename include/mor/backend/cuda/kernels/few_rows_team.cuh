// SPDX-License-Identifier: Apache-2.0
/// @file
/// The warps that share the columns of some tiles of weights, of a block or of a cluster of blocks: what each has
/// summed meets where it is finished. Within a block that is shared memory behind a barrier. The blocks of a cluster send
/// one another their sums, and each waits until as many bytes have come as it will finish: no block waits for its stores
/// to be seen everywhere, as in a barrier of the cluster that publishes them.
#pragma once

#include "mor/backend/cuda/kernels/cluster.cuh"
#include "mor/backend/cuda/kernels/computed_here.cuh"
#include "mor/backend/cuda/kernels/mma.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/kernels/tma.cuh"
#include "mor/backend/cuda/tuning/few_rows.hpp"
#include "mor/core/types.hpp"

#include <cstdint>

namespace mor::cuda {

/// Where a thread is. A group's fragments (16 rows of the weights by 8 rows of x) are counted tile by tile of the
/// weights for the first 8 rows of x, then for the next; each block of a cluster finishes `FewRowsPlan::share` that
/// follow one another, and its warps take them in turns.
struct FewRowsPlace {
  int warp, row, pair;     ///< row g and column pair 2t of the fragments
  int rank, cluster;       ///< block of the cluster; cluster
  int weight_tile, part;   ///< of the group; of the columns
  int fragment;            ///< the first that the warp finishes, where `warp` is below the block's share

  __device__ __forceinline__ static FewRowsPlace find(tuning::FewRowsPlan const& plan) {
    int const lane = static_cast<int>(threadIdx.x) % kWarpSize, warp = static_cast<int>(threadIdx.x) / kWarpSize;
    int const block = static_cast<int>(blockIdx.x), rank = block & (plan.cluster - 1);
    return {warp, lane / 4, lane % 4 * 2, rank, block >> plan.cluster_shift, warp & (plan.weight_tiles - 1),
            rank * plan.block_parts + (warp >> plan.tiles_shift), (rank << plan.share_shift) + warp};
  }
};

/// `Cluster`: in a cluster of blocks, or, where that has one block, alone.
template <bool Cluster>
class FewRowsTeam {
 public:
  __device__ __forceinline__ FewRowsTeam(tuning::FewRowsPlan const& plan, FewRowsPlace const& place,
                                         unsigned char* shared)
      : plan_(plan), place_(place), shared_(shared) {}

  /// By every thread: makes what peers tell of their stores; `opened` before the first store.
  __device__ __forceinline__ void open() const {
    if constexpr (Cluster) {
      if (!clustered()) return;
      if (threadIdx.x == 0) {
        make_barrier(*reinterpret_cast<Barrier*>(shared_ + plan_.barrier_at), 1);
        publish_barriers();
      }
      cluster_arrive();
    }
  }
  __device__ __forceinline__ void opened() const {
    if constexpr (Cluster) {
      if (clustered()) cluster_wait();
    }
  }

  /// By every thread, once a round: what the block is going to be sent for `rows` rows of x.
  __device__ __forceinline__ void expect(int rows, bool squares) const {
    if constexpr (Cluster) {
      if (!clustered() || threadIdx.x != 0) return;
      int const first = place_.rank << plan_.share_shift, all = ((rows + 7) / 8) << plan_.tiles_shift;
      int const fragments = min(all - first, plan_.share);
      if (fragments <= 0) return;
      int bytes = fragments * plan_.parts * tuning::FewRows::fragment_bytes;
      if (squares) {
        int const begin = (first >> plan_.tiles_shift) * 8;
        int const end = ((first + plan_.share - 1) >> plan_.tiles_shift) * 8 + 8;
        bytes += (min(end, rows) - begin) * tuning::FewRows::most_parts * static_cast<int>(sizeof(float));
      }
      expect_stores(barrier(), bytes);
    }
  }

  /// By one thread for each of a row's parts: its sum of squares, to where the row is finished.
  __device__ __forceinline__ void give_squares(int part, int row, float sum) const {
    float* const own = squares() + part * 8 * plan_.row_tiles + row;
    if constexpr (Cluster) {
      if (clustered()) {
        int const fragment = (row / 8) << plan_.tiles_shift;
        int const first = fragment >> plan_.share_shift;
        int const last = (fragment + plan_.weight_tiles - 1) >> plan_.share_shift;
#pragma unroll 1
        for (int rank = first; rank <= last; ++rank) {
          store_counted(address_of_block(shared_address(own), rank), sum, address_of_block(barrier(), rank));
        }
        return;
      }
    }
    *own = sum;
  }

  /// By every thread: the warp's sums, to where they are finished.
  template <int RowTiles>
  __device__ __forceinline__ void give(float const (&sums)[RowTiles][4], int rows) const {
    if constexpr (Cluster) {
      if (clustered()) return send(sums, rows);
    }
    __syncwarp();  // the sums may take the place of the weights
#pragma unroll
    for (int j = 0; j < RowTiles; ++j) {
      sums_of(place_.warp)[j * kWarpSize] = make_float4(sums[j][0], sums[j][1], sums[j][2], sums[j][3]);
    }
  }

  /// What was given in this round is there; in a cluster only for warps that finish something, which alone may ask.
  __device__ __forceinline__ void meet(int round, bool finishes) const {
    if constexpr (Cluster) {
      if (clustered()) {
        if (finishes) wait_for_stores(barrier(), static_cast<std::uint32_t>(round & 1));
        return;
      }
    }
    meet_in_block();
  }
  /// Before another round: everybody has read what was given in this one.
  __device__ __forceinline__ void part() const {
    if constexpr (Cluster) {
      if (clustered()) return meet_in_cluster();
    }
    meet_in_block();
  }

  /// The sum of all parts, in their order, of the `slot`-th fragment of the block, which is that of 8 rows `row_tile`.
  [[nodiscard]] __device__ __forceinline__ float4 total(int slot, int row_tile) const {
    float4 const* from;
    int step = kWarpSize;
    if (clustered()) {
      from = reinterpret_cast<float4 const*>(shared_ + plan_.sums_at) + threadIdx.x % kWarpSize +
             (computed_here(slot) << plan_.parts_shift) * kWarpSize;
    } else {
      from = sums_of(computed_here(place_.weight_tile)) + row_tile * kWarpSize;
      step = plan_.weight_tiles * sums_bytes() / static_cast<int>(sizeof(float4));
    }
    float4 parts[tuning::FewRows::most_parts];
#pragma unroll
    for (int p = 0; p < tuning::FewRows::most_parts; ++p) {
      parts[p] = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
      if (p < plan_.parts) parts[p] = *from;
      from += step;
    }
    float4 total = parts[0];
#pragma unroll
    for (int p = 1; p < tuning::FewRows::most_parts; ++p) {
      total.x += parts[p].x, total.y += parts[p].y, total.z += parts[p].z, total.w += parts[p].w;
    }
    return total;
  }
  /// Sums of squares of this thread's two rows of x.
  [[nodiscard]] __device__ __forceinline__ float2 total_squares(int row_tile) const {
    float const* from = squares() + computed_here(row_tile * 8 + place_.pair);
    float2 parts[tuning::FewRows::most_parts];
#pragma unroll
    for (float2& part : parts) {
      part = *reinterpret_cast<float2 const*>(from);
      from += 8 * plan_.row_tiles;
    }
    float2 total = parts[0];
#pragma unroll
    for (int p = 1; p < tuning::FewRows::most_parts; ++p) total.x += parts[p].x, total.y += parts[p].y;
    return total;
  }

 private:
  [[nodiscard]] __device__ __forceinline__ bool clustered() const { return Cluster && plan_.cluster > 1; }
  __device__ __forceinline__ void meet_in_block() const {
    if (plan_.parts > 1) {
      __syncthreads();
    } else {
      __syncwarp();
    }
  }
  /// Publishes nothing: values that were read before are in registers.
  __device__ __forceinline__ void meet_in_cluster() const {
    cluster_arrive();
    cluster_wait();
  }
  template <int RowTiles>
  __device__ __forceinline__ void send(float const (&sums)[RowTiles][4], int rows) const {
    if (!plan_.sums_apart) meet_in_cluster();  // they take the place of weights that every peer has used by then
    std::uint32_t const room = shared_address(shared_ + plan_.sums_at) + threadIdx.x % kWarpSize * 16U;
#pragma unroll
    for (int j = 0; j < RowTiles; ++j) {
      if (8 * j >= rows) continue;
      int const fragment = (j << plan_.tiles_shift) + place_.weight_tile, rank = fragment >> plan_.share_shift;
      int const slot = ((fragment & (plan_.share - 1)) << plan_.parts_shift) + place_.part;
      store_counted(address_of_block(room + static_cast<std::uint32_t>(slot * tuning::FewRows::fragment_bytes), rank),
                    make_float4(sums[j][0], sums[j][1], sums[j][2], sums[j][3]), address_of_block(barrier(), rank));
    }
  }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t barrier() const {
    return shared_address(shared_ + plan_.barrier_at);
  }
  [[nodiscard]] __device__ __forceinline__ float* squares() const {
    return reinterpret_cast<float*>(shared_ + plan_.squares_at);
  }
  /// Of a warp, without a cluster.
  [[nodiscard]] __device__ __forceinline__ int sums_bytes() const {
    return plan_.sums_apart ? plan_.row_tiles * tuning::FewRows::fragment_bytes : plan_.warp_bytes;
  }
  /// Where a warp of this block leaves what it has, without a cluster.
  [[nodiscard]] __device__ __forceinline__ float4* sums_of(int warp) const {
    return reinterpret_cast<float4*>(shared_ + plan_.sums_at + warp * sums_bytes()) + threadIdx.x % kWarpSize;
  }

  tuning::FewRowsPlan const& plan_;
  FewRowsPlace const& place_;
  unsigned char* shared_;
};

}  // namespace mor::cuda
