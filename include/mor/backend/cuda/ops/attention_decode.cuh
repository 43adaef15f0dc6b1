// SPDX-License-Identifier: Apache-2.0
/// @file
/// Forward attention over keys in pages on Hopper.
#pragma once

#include "mor/backend/cuda/kernels/attention_decode.cuh"
#include "mor/backend/cuda/ops/attention_problem.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/error.cuh"
#include "mor/backend/cuda/tuning/attention.hpp"
#include "mor/core/dtype.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <cstddef>

#include <type_traits>

namespace mor::cuda {

namespace detail {

/// Whether a cluster of this many blocks finds room on this device; above the portable size a device may say no.
template <class Kernel>
[[nodiscard]] bool cluster_fits(Kernel* kernel, LaunchShape const& shape) {
  if (shape.cluster <= tuning::AttentionDecodeCluster::portable_blocks) return true;
  auto const* const function = reinterpret_cast<void const*>(kernel);
  check(cudaFuncSetAttribute(function, cudaFuncAttributeNonPortableClusterSizeAllowed, 1), "attention", shape.cluster);
  check(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes)),
        "attention", shape.shared_bytes);
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = static_cast<unsigned>(shape.cluster);
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = shape.blocks;
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shape.shared_bytes);
  config.attrs = &attribute;
  config.numAttrs = 1;
  int clusters = 0;
  check(cudaOccupancyMaxActiveClusters(&clusters, function, &config), "attention", shape.cluster);
  return clusters > 0;
}

template <int HeadDim, int HeadTiles>
void attention_decode_launch(Context const& context, PagedArguments<bfloat16> const& paged, Index max_limit,
                             View<bfloat16> out, View<float> lse) {
  using Layout = sm90::DecodeLayout<HeadDim, HeadTiles>;
  auto const& arguments = paged.attention;
  Index const items = arguments.q.rows * arguments.num_kv_heads * divide_up(arguments.group, Layout::kHeads);
  Index const parts = divide_up(max_limit, Layout::kPartKeys);
  int blocks =
      tuning::attention_decode_blocks(items, parts, Index{context.device->multiprocessors} * Layout::kResidentBlocks);
  auto const shape = [&] {
    LaunchShape result;
    result.blocks = attention_grid(items * blocks, "attention");
    result.threads = Layout::kThreads;
    result.shared_bytes = Layout::bytes(Layout::pairs(arguments.group), blocks);
    result.cluster = blocks;
    result.overlaps = true;
    return result;
  };
  auto* const kernel = &sm90::attention_decode<HeadDim, HeadTiles>;
  if (!cluster_fits(kernel, shape())) blocks = tuning::AttentionDecodeCluster::portable_blocks;
  launch(context, "attention", shape(), kernel, paged, blocks, out, lse);
}

template <int HeadDim>
void attention_decode(Context const& context, PagedArguments<bfloat16> const& paged, Index max_limit, View<bfloat16> out,
                      View<float> lse) {
  if (paged.attention.group <= 8) return attention_decode_launch<HeadDim, 1>(context, paged, max_limit, out, lse);
  attention_decode_launch<HeadDim, 2>(context, paged, max_limit, out, lse);
}

}  // namespace detail

/// out and lse of attention over pages in bf16, where `tuning::attention_decodes`; see kernels/attention_decode.cuh. Floor:
/// each visible key and value of a row once.
/// @tparam T  bfloat16; a parameter, so that a program for older devices does not compile Hopper's instructions
template <class T>
void attention_decode(Context const& context, PagedArguments<T> const& paged, Index max_limit, View<T> out,
                      View<float> lse) {
  static_assert(std::is_same_v<T, bfloat16>);
  if (paged.attention.head_dim == 64) return detail::attention_decode<64>(context, paged, max_limit, out, lse);
  detail::attention_decode<128>(context, paged, max_limit, out, lse);
}

}  // namespace mor::cuda
