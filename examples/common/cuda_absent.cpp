// SPDX-License-Identifier: Apache-2.0
#include "common/cuda_models.hpp"
#include "mor/core/error.hpp"

namespace examples {

namespace {

[[noreturn]] void refuse() {
  mor::fail(mor::ErrorCode::Unsupported, "this build has no CUDA backend", "--device", "auto or cpu", "cuda");
}

}  // namespace

bool cuda_available() {
  return false;
}

std::string cuda_device_name() {
  refuse();
}

std::unique_ptr<AnyModel> make_cuda_model(mor::ModelConfig const&, mor::DType, Purpose) {
  refuse();
}

}  // namespace examples
