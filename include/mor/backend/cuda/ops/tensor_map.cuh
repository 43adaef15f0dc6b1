// SPDX-License-Identifier: Apache-2.0
/// @file
/// Descriptions of matrices for Hopper's copy engine. The driver makes them; its function is looked up at run time, so
/// that nothing has to be linked against the driver library.
#pragma once

#include "mor/backend/cuda/ops/error.cuh"
#include "mor/core/dtype.hpp"
#include "mor/core/error.hpp"
#include "mor/core/view.hpp"

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>

namespace mor::cuda {

namespace detail {
using EncodeTensorMap = decltype(&cuTensorMapEncodeTiled);

/// The driver's function, looked up once.
[[nodiscard]] inline EncodeTensorMap tensor_map_encoder() {
  static EncodeTensorMap const encoder = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found),
          "cudaGetDriverEntryPointByVersion");
    if (found != cudaDriverEntryPointSuccess || function == nullptr) {
      fail(ErrorCode::Unsupported, "the driver has no cuTensorMapEncodeTiled", "cuda::tensor_map",
           "a driver for CUDA 12 or later");
    }
    return reinterpret_cast<EncodeTensorMap>(function);
  }();
  return encoder;
}
}  // namespace detail

/// Whether the copy engine can read this matrix.
template <class T>
[[nodiscard]] inline bool is_copy_aligned(View<T> x) {
  return reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && x.stride * static_cast<Index>(sizeof(T)) % 16 == 0;
}

/// The first `rows` rows of a matrix, read in boxes of 64 x 64 with the 128-byte swizzle (see wgmma.cuh); rows and
/// columns beyond arrive as zeros. `x` is copy-aligned and not empty.
[[nodiscard]] inline CUtensorMap tensor_map(View<bfloat16 const> x, Index rows) {
  CUtensorMap map{};
  cuuint64_t const size[2] = {static_cast<cuuint64_t>(x.cols), static_cast<cuuint64_t>(rows)};
  cuuint64_t const stride[1] = {static_cast<cuuint64_t>(x.stride) * sizeof(bfloat16)};
  cuuint32_t const box[2] = {64, 64}, step[2] = {1, 1};
  CUresult const status =
      detail::tensor_map_encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<bfloat16*>(x.data), size,
                                   stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                   CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) {
    fail(ErrorCode::DeviceFailure, "cuTensorMapEncodeTiled refused a matrix", "cuda::tensor_map",
         "[rows, columns, stride] of bf16 at multiples of 16 bytes",
         detail::shape_text(rows, x.cols, x.stride) + ", status " + std::to_string(static_cast<int>(status)));
  }
  return map;
}

}  // namespace mor::cuda
