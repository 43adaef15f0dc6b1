// SPDX-License-Identifier: Apache-2.0
#include "cuda/cuda_zoo.cuh"

namespace mor::test {
std::unique_ptr<ZooModel> make_cuda_bfloat16(ModelConfig const& config) {
  return make_on_cuda<cuda::Backend<bfloat16>>(config);
}
}  // namespace mor::test
