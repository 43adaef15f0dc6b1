// SPDX-License-Identifier: Apache-2.0
/// @file
/// What every operation is given: the stream it runs on, scratch memory, and the facts of the device.
#pragma once

#include "mor/backend/cuda/ops/error.cuh"
#include "mor/backend/cuda/ops/work_log.cuh"
#include "mor/core/memory.hpp"
#include "mor/core/types.hpp"

#include <algorithm>
#include <string>
#include <type_traits>

namespace mor::cuda {

/// Properties that launches depend on.
struct DeviceFacts {
  int ordinal = 0;
  std::string name;
  int multiprocessors = 0;
  int max_shared_bytes = 0;  ///< of one block, after opting in
  int l2_bytes = 0;
  int capability = 0;  ///< 10 * major + minor: 90 for Hopper
  Index memory_bytes = 0;

  [[nodiscard]] static DeviceFacts read(int ordinal) {
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, ordinal), "cudaGetDeviceProperties", ordinal);
    DeviceFacts facts;
    facts.ordinal = ordinal;
    facts.name = properties.name;
    facts.multiprocessors = properties.multiProcessorCount;
    facts.max_shared_bytes = static_cast<int>(properties.sharedMemPerBlockOptin);
    facts.l2_bytes = properties.l2CacheSize;
    facts.capability = 10 * properties.major + properties.minor;
    facts.memory_bytes = static_cast<Index>(properties.totalGlobalMem);
    return facts;
  }
};

class Blas;  // ops/blas.cuh

/// Passed by value to every operation. Operations enqueue work on `stream` and return at once unless they say otherwise.
struct Context {
  cudaStream_t stream = nullptr;
  Arena* arena = nullptr;  ///< device memory
  DeviceFacts const* device = nullptr;
  Blas* blas = nullptr;    ///< matrix products; only operations that multiply need it
  WorkLog* log = nullptr;  ///< told of everything that is enqueued; may be absent
  bool overlaps = true;    ///< kernels that can do so start before the one ahead of them has ended
};

/// Device memory for the duration of one operation. It is given back when the host leaves the scope; the stream's order
/// keeps the kernels that use it ahead of those that get it next.
class Scratch {
 public:
  explicit Scratch(Context const& context) : arena_(*context.arena), mark_(arena_.mark()) {}
  Scratch(Scratch const&) = delete;
  Scratch& operator=(Scratch const&) = delete;
  ~Scratch() { arena_.release(mark_); }

  template <class T>
  [[nodiscard]] T* take(Index count) {
    return arena_.template allocate<T>(count).data();
  }

 private:
  Arena& arena_;
  Arena::Mark mark_;
};

/// Blocks, threads of a block, bytes of dynamic shared memory, and blocks of a cluster of one launch.
struct LaunchShape {
  dim3 blocks{1};
  int threads = 1;
  Index shared_bytes = 0;
  int cluster = 1;  ///< above 1 from compute capability 9.0 on; divides blocks.x
  bool overlaps = false;  ///< may start before the kernel ahead of it has ended: calls `wait_for_earlier_kernels`
  bool cooperative = false;  ///< blocks wait for one another: all run at the same time, or the launch fails
};

[[nodiscard]] MOR_HOST_DEVICE constexpr Index divide_up(Index a, Index b) { return (a + b - 1) / b; }

[[nodiscard]] inline cudaLaunchAttribute cluster_attribute(LaunchShape const& shape) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = static_cast<unsigned>(shape.cluster);
  attribute.val.clusterDim.y = 1;
  attribute.val.clusterDim.z = 1;
  return attribute;
}

/// Launches `kernel` on the context's stream; arguments convert to the kernel's parameter types. A launch of no blocks
/// does nothing. `verb` names the operation in errors.
template <class... Parameters>
inline void launch(Context const& context, char const* verb, LaunchShape const& shape, void (*kernel)(Parameters...),
                   std::type_identity_t<Parameters>... arguments) {
  if (shape.blocks.x == 0 || shape.blocks.y == 0 || shape.blocks.z == 0) return;
  if (WorkLog* const log = context.log) {
    log->note(reinterpret_cast<void const*>(kernel));
    log->note(shape.blocks.x);
    log->note(shape.blocks.y);
    log->note(shape.blocks.z);
    log->note(shape.threads);
    log->note(shape.cluster);
    (log->note(arguments), ...);
    if (log->compares()) return;
  }
  if (shape.shared_bytes > 48 * 1024) {
    check(cudaFuncSetAttribute(reinterpret_cast<void const*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shape.shared_bytes)),
          verb, shape.shared_bytes);
  }
  cudaLaunchConfig_t config{};
  config.gridDim = shape.blocks;
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shape.shared_bytes);
  config.stream = context.stream;
  cudaLaunchAttribute attributes[3]{};
  config.attrs = attributes;
  if (shape.cluster > 1) attributes[config.numAttrs++] = cluster_attribute(shape);
  if (shape.overlaps && context.overlaps) {
    // Kernels can share a multiprocessor only where it is cut into cache and shared memory the same way for both.
    check(cudaFuncSetAttribute(reinterpret_cast<void const*>(kernel), cudaFuncAttributePreferredSharedMemoryCarveout,
                               cudaSharedmemCarveoutMaxShared),
          verb);
    cudaLaunchAttribute& attribute = attributes[config.numAttrs++];
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.cooperative) {
    cudaLaunchAttribute& attribute = attributes[config.numAttrs++];
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
  }
  check(cudaLaunchKernelEx(&config, kernel, arguments...), verb, shape.blocks.x, shape.blocks.y, shape.blocks.z,
        shape.threads, shape.shared_bytes);
}

/// Blocks for `items` pieces of work, at most one full load of the device (for kernels that stride over the rest).
[[nodiscard]] inline unsigned persistent_blocks(Context const& context, Index items, int blocks_per_multiprocessor) {
  Index const most = Index{context.device->multiprocessors} * blocks_per_multiprocessor;
  return static_cast<unsigned>(std::clamp<Index>(items, 0, most));
}

}  // namespace mor::cuda
