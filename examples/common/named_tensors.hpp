// SPDX-License-Identifier: Apache-2.0
/// @file
/// The tensors of the model that a configuration names, without the model.
#pragma once

#include "mor/model/model_tensors.hpp"

namespace examples {

/// @throws mor::error InvalidConfig as `mor::check` does
[[nodiscard]] mor::ModelTensors named_tensors(mor::ModelConfig const& config);

}  // namespace examples
