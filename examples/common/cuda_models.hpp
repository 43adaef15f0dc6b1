// SPDX-License-Identifier: Apache-2.0
/// @file
/// The CUDA backend as the programs see it. Defined in cuda_present.cpp and cuda_models_*.cu, or, in a build without
/// CUDA, in cuda_absent.cpp; no CUDA header is needed here.
#pragma once

#include "common/any_model.hpp"
#include "mor/core/dtype.hpp"

#include <memory>
#include <string>

namespace examples {

/// Whether there is a GPU that this build has kernels for.
[[nodiscard]] bool cuda_available();

/// The GPU's name.
/// @throws mor::error Unsupported where this build has no CUDA backend or this machine no GPU
[[nodiscard]] std::string cuda_device_name();

/// A model of the policies that the configuration names, on the first GPU.
/// @param dtype  F32 or BF16
/// @throws mor::error Unsupported as above, and for a GPU of another architecture or another type
[[nodiscard]] std::unique_ptr<AnyModel> make_cuda_model(mor::ModelConfig const& config, mor::DType dtype,
                                                        Purpose purpose);

/// @name One factory for each type, each in a source file of its own: a kernel is compiled once for each type
/// The configuration has been checked.
/// @{
[[nodiscard]] std::unique_ptr<AnyModel> make_cuda_float(mor::ModelConfig const& config, Purpose purpose);
[[nodiscard]] std::unique_ptr<AnyModel> make_cuda_bfloat16(mor::ModelConfig const& config, Purpose purpose);
/// @}

}  // namespace examples
