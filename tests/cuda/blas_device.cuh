// SPDX-License-Identifier: Apache-2.0
/// @file
/// A device for tests of operations that multiply matrices.
#pragma once

#include "cuda/device.cuh"

#include "mor/backend/cuda/ops/blas.cuh"

namespace mor::test {

class BlasDevice : public Device {
 public:
  BlasDevice() : blas_(memory(), facts(), {}) {}
  /// `context()` with matrix products.
  [[nodiscard]] cuda::Context blas_context() {
    cuda::Context context = this->context();
    context.blas = &blas_;
    return context;
  }

 private:
  cuda::Blas blas_;
};

}  // namespace mor::test
