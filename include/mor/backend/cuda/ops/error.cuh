// SPDX-License-Identifier: Apache-2.0
/// @file
/// CUDA status codes as `mor::error`, with the operation and the shape it ran on.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"

#include <cuda_runtime_api.h>

#include <string>

namespace mor::cuda {

namespace detail {
[[noreturn]] inline void fail_status(cudaError_t status, char const* operation, std::string const& shape) {
  ErrorCode code = ErrorCode::DeviceFailure;
  if (status == cudaErrorMemoryAllocation) code = ErrorCode::OutOfMemory;
  if (status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver || status == cudaErrorNoKernelImageForDevice) {
    code = ErrorCode::Unsupported;
  }
  fail(code, std::string(cudaGetErrorName(status)) + ": " + cudaGetErrorString(status),
       shape.empty() ? std::string(operation) : std::string(operation) + " " + shape);
}

/// "[3, 4, 5]"
template <class... Sizes>
[[nodiscard]] std::string shape_text(Sizes... sizes) {
  std::string text;
  ((text += (text.empty() ? "[" : ", ") + std::to_string(sizes)), ...);
  return text.empty() ? text : text + "]";
}
}  // namespace detail

/// Throws where `status` is an error. `operation` is the verb or the CUDA function, `sizes` the shape it was called with.
template <class... Sizes>
inline void check(cudaError_t status, char const* operation, Sizes... sizes) {
  if (status != cudaSuccess) [[unlikely]] detail::fail_status(status, operation, detail::shape_text(sizes...));
}

}  // namespace mor::cuda
