// SPDX-License-Identifier: Apache-2.0
#include "common/cuda_models.hpp"
#include "mor/backend/cuda/ops/error.cuh"
#include "mor/backend/cuda/tuning/architecture.hpp"
#include "mor/core/error.hpp"

#include <cuda_runtime_api.h>

namespace examples {

namespace {

constexpr int ordinal = 0;

/// 10 * major + minor, or 0 where there is no GPU.
int capability() {
  int major = 0, minor = 0;
  bool const found = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal) == cudaSuccess &&
                     cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, ordinal) == cudaSuccess;
  if (!found) static_cast<void>(cudaGetLastError());  // no device is an answer, not an error for later calls
  return found ? 10 * major + minor : 0;
}

}  // namespace

bool cuda_available() {
  return capability() == mor::cuda::Sm90::capability;
}

std::string cuda_device_name() {
  if (capability() == 0) {
    mor::fail(mor::ErrorCode::Unsupported, "this machine has no CUDA device", "--device",
              "auto or cpu, or a GPU with its driver", "cuda");
  }
  cudaDeviceProp properties{};
  mor::cuda::check(cudaGetDeviceProperties(&properties, ordinal), "cudaGetDeviceProperties", ordinal);
  return properties.name;
}

std::unique_ptr<AnyModel> make_cuda_model(mor::ModelConfig const& config, mor::DType dtype, Purpose purpose) {
  switch (dtype) {
    case mor::DType::F32: return make_cuda_float(config, purpose);
    case mor::DType::BF16: return make_cuda_bfloat16(config, purpose);
    default: break;
  }
  mor::fail(mor::ErrorCode::Unsupported, "no kernels for this element type", "--dtype", "float32 or bfloat16",
            std::string(mor::to_text(dtype)));
}

}  // namespace examples
