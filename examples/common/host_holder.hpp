// SPDX-License-Identifier: Apache-2.0
/// @file
/// A model of a router on the host backend in float.
#pragma once

#include "common/device_choice.hpp"
#include "common/model_holder.hpp"
#include "mor/backend/host/backend.hpp"

#include <memory>

namespace examples {

/// @param threads  of every operation; 0 for all of the machine's
template <class Router>
[[nodiscard]] std::unique_ptr<AnyModel> make_on_host(mor::ModelConfig const& config, int threads) {
  return make_with_cache<Router, mor::host::Backend<float>>(
      config, BackendSettings{backend_name(false, mor::DType::F32), threads});
}

}  // namespace examples
