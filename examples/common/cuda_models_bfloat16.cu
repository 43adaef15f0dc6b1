// SPDX-License-Identifier: Apache-2.0
#include "common/cuda_holder.cuh"

namespace examples {

std::unique_ptr<AnyModel> make_cuda_bfloat16(mor::ModelConfig const& config, Purpose purpose) {
  return make_on_cuda<mor::bfloat16>(config, purpose);
}

}  // namespace examples
