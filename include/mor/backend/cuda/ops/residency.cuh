// SPDX-License-Identifier: Apache-2.0
/// @file
/// How much of a kernel the device runs at a time: what a cooperative launch asks before it.
#pragma once

#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/error.cuh"

namespace mor::cuda {

/// Clusters of `shape.cluster` blocks (their number does not count) that run at the same time on an empty device.
template <class... Parameters>
[[nodiscard]] inline int clusters_at_once(LaunchShape const& shape, void (*kernel)(Parameters...)) {
  auto const* const function = reinterpret_cast<void const*>(kernel);
  check(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes)),
        "clusters_at_once", shape.shared_bytes);
  cudaLaunchAttribute attribute = cluster_attribute(shape);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(shape.cluster));
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shape.shared_bytes);
  config.attrs = &attribute;
  config.numAttrs = 1;
  int count = 0;
  check(cudaOccupancyMaxActiveClusters(&count, function, &config), "clusters_at_once", shape.cluster, shape.threads, shape.shared_bytes);
  return count;
}

}  // namespace mor::cuda
