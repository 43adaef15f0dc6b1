// SPDX-License-Identifier: Apache-2.0
/// @file
/// The tensors that a model of a router would have, declared without making the model.
#pragma once

#include "mor/model/model_parameters.hpp"
#include "mor/model/model_tensors.hpp"

#include <utility>

namespace mor {

namespace detail {

/// Stands in for a backend where parameters are only declared.
struct NoBackend {
  using scalar_type = float;
  using real_type = float;
};

}  // namespace detail

/// Declares what `RecursiveModel` declares, in its order.
/// @param schedule  of the sharing strategy that the configuration names
template <class Router>
[[nodiscard]] ModelTensors declare_tensors(ModelConfig const& config, LayerSchedule schedule, Router const& router) {
  ModelTensors tensors{config, std::move(schedule), Router::naming, {}};
  static_cast<void>(ModelParameters::declare(config, tensors.schedule, Router::naming, tensors.layout));
  typename Router::template State<detail::NoBackend> state;
  router.template declare<detail::NoBackend>(state, config, router_names(Router::naming, tensors.schedule),
                                             tensors.layout);
  return tensors;
}

}  // namespace mor
