// SPDX-License-Identifier: Apache-2.0
/// @file
/// What work needs to know of the loop that it is captured in.
#pragma once

#include <cuda_runtime_api.h>

namespace mor::cuda {

/// Work that is captured as the body of a loop goes round again if its last kernel sets the condition.
struct Loop {
  cudaGraphConditionalHandle condition = 0;
  bool looped = false;  ///< false: the work runs once
};

}  // namespace mor::cuda
