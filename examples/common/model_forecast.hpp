// SPDX-License-Identifier: Apache-2.0
/// @file
/// The forecast of a training run for a router and a cache: one micro-batch and one validation batch on the trace
/// backend.
#pragma once

#include "common/any_model.hpp"
#include "common/named_schedule.hpp"
#include "mor/backend/host/parallel.hpp"
#include "mor/backend/host/scratch_size.hpp"
#include "mor/backend/trace/backend.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/cache.hpp"

#include <algorithm>

namespace examples {

template <class Router, class Cache>
[[nodiscard]] Forecast forecast_of(mor::ModelConfig const& config, ForecastOptions const& options) {
  using B = mor::trace::Backend<float, float>;
  mor::trace::Options trace_options;
  trace_options.scratch_bytes = mor::host::ScratchSize<float>(mor::host::resolve_threads(options.threads));
  B backend(trace_options);
  mor::RecursiveModel<Router, Cache, B> model(backend, config, Router(config.recursion), named_schedule(config));
  Forecast forecast;
  forecast.parameters = model.parameters().layout().total_size();
  forecast.weight_bytes = backend.persistent_bytes();
  model.parameters().enable_gradients();
  forecast.gradient_bytes = backend.persistent_bytes() - forecast.weight_bytes;
  mor::train::Adamw<B> const optimizer(backend, model.parameters(), {});
  forecast.optimizer_bytes = backend.persistent_bytes() - forecast.weight_bytes - forecast.gradient_bytes;

  Index const rows = options.sequences * options.context;
  std::vector<Token> const tokens(static_cast<std::size_t>(rows), 0);
  std::vector<Row> positions, offsets;
  for (Index i = 0; i < rows; ++i) positions.push_back(static_cast<Row>(i % options.context));
  for (Index s = 0; s <= options.sequences; ++s) offsets.push_back(static_cast<Row>(s * options.context));
  mor::Batch const batch{tokens, positions, offsets};

  backend.clear();
  mor::TrainingProgress progress;
  model.forward_backward(batch, tokens, progress, {});
  forecast.training_flops = static_cast<double>(backend.matrix_flops()) / static_cast<double>(rows);
  if (options.capacity_warmup_calls > 0) {  // the first call of a warm-up lets every token through
    progress.capacity_warmup_calls = options.capacity_warmup_calls;
    model.forward_backward(batch, tokens, progress, {});
  }
  static_cast<void>(model.loss(batch, tokens, mor::RoutingMode::FullDepth));
  forecast.activation_bytes = backend.arena().peak_bytes();
  return forecast;
}

/// The forecast for the cache that the configuration names.
template <class Router>
[[nodiscard]] Forecast forecast_with_cache(mor::ModelConfig const& config, ForecastOptions const& options) {
  switch (config.recursion.cache) {
    case mor::CacheKind::RecursionWise: return forecast_of<Router, mor::RecursionWiseCache>(config, options);
    case mor::CacheKind::Shared: return forecast_of<Router, mor::SharedCache>(config, options);
    case mor::CacheKind::Hybrid: return forecast_of<Router, mor::HybridCache>(config, options);
  }
  mor::fail(mor::ErrorCode::InvalidConfig, "unknown cache", "cache");
}

}  // namespace examples
