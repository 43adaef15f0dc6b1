// SPDX-License-Identifier: Apache-2.0
#include "common/cuda_holder.cuh"

namespace examples {

std::unique_ptr<AnyModel> make_cuda_float(mor::ModelConfig const& config, Purpose purpose) {
  return make_on_cuda<float>(config, purpose);
}

}  // namespace examples
