// SPDX-License-Identifier: Apache-2.0
/// @file
/// Chooses the policies of a model on the CUDA backend by name.
#pragma once

#include "common/cuda_models.hpp"
#include "common/device_choice.hpp"
#include "common/model_holder.hpp"
#include "mor/mor.cuh"

#include <memory>

namespace examples {

/// How matrix kernels are chosen. A search is worth its seconds in training, and only where its result can be kept:
/// without a record the next run might choose others, and its bits would differ.
[[nodiscard]] inline mor::cuda::BackendOptions backend_options(Purpose purpose) {
  mor::cuda::BackendOptions options;
  if (purpose != Purpose::Training) return options;
  options.blas.record_path = gemm_record_path();
  options.blas.search = !options.blas.record_path.empty();
  return options;
}

/// A model on the CUDA backend that computes in T.
template <class T>
[[nodiscard]] std::unique_ptr<AnyModel> make_on_cuda(mor::ModelConfig const& config, Purpose purpose) {
  using B = mor::cuda::Backend<T>;
  BackendSettings const settings{backend_name(true, mor::dtype_of<T>), backend_options(purpose)};
  switch (config.recursion.router) {
    case mor::RouterKind::AllTokens: return make_with_cache<mor::AllTokens, B>(config, settings);
    case mor::RouterKind::ExpertChoice: return make_with_cache<mor::ExpertChoice<>, B>(config, settings);
    case mor::RouterKind::TokenChoice: return make_with_cache<mor::TokenChoice<>, B>(config, settings);
  }
  mor::fail(mor::ErrorCode::InvalidConfig, "unknown router", "router");
}

}  // namespace examples
