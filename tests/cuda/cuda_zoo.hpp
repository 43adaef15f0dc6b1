// SPDX-License-Identifier: Apache-2.0
/// @file
/// Every valid (router, cache) pair on the CUDA backend, behind the same interface as on the host.
#pragma once

#include "zoo/zoo.hpp"

#include <memory>

namespace mor::test {

std::unique_ptr<ZooModel> make_cuda_float(ModelConfig const& config);
std::unique_ptr<ZooModel> make_cuda_bfloat16(ModelConfig const& config);

/// The same models on the trace backend, which knows the scratch of the CUDA backend's verbs: for forecasts of its arena.
/// Depths are those of full depth, and weights can be neither read nor written.
std::unique_ptr<ZooModel> make_traced_float(ModelConfig const& config);
std::unique_ptr<ZooModel> make_traced_bfloat16(ModelConfig const& config);

}  // namespace mor::test
