// SPDX-License-Identifier: Apache-2.0
/// @file
/// Where a program's model runs and in which type: what `--device`, `--dtype` and `--threads` come to.
#pragma once

#include "mor/core/dtype.hpp"

#include <optional>
#include <string>

namespace examples {

/// A processor or a GPU, and the type of weights and activations.
struct DeviceChoice {
  bool cuda = false;
  mor::DType dtype = mor::DType::F32;  ///< F32 or BF16; losses, gradients and moments are float on every device
  int threads = 0;                     ///< of the processor; 0 for all
  std::string gpu;                     ///< its name; empty on the processor
};

/// What a run has to stay on for its bits to be the same: "host float", "cuda float", "cuda bfloat16".
[[nodiscard]] std::string backend_name(bool cuda, mor::DType dtype);

/// @param device  auto: a GPU where this build and this machine have one, else the processor; or cpu, or cuda
/// @param dtype   float32 or bfloat16; nothing: bfloat16 on a GPU, float32 on the processor
/// @throws mor::error Unsupported where the device or the type cannot be had, InvalidConfig for an unknown device,
///         InvalidArgument for an unknown type
[[nodiscard]] DeviceChoice choose_device(std::string const& device, std::optional<std::string> const& dtype,
                                         int threads);

/// Products of bfloat16 matrices a second that the makers promise for a GPU of this name, without sparsity; nothing
/// where that is not known here.
[[nodiscard]] std::optional<double> peak_flops(std::string const& gpu);

/// The file in which choices of matrix kernels are kept from run to run, its folder created; empty where neither
/// XDG_CACHE_HOME nor HOME says where such files belong.
[[nodiscard]] std::string gemm_record_path();

}  // namespace examples
