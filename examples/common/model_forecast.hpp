// SPDX-License-Identifier: Apache-2.0
/// @file
/// The forecast of a training run for a router and a cache: one micro-batch and one validation batch on the trace
/// backend.
#pragma once

#include "common/forecast.hpp"
#include "mor/backend/cuda/scratch_size.hpp"
#include "mor/backend/cuda/tuning/blas.hpp"
#include "mor/backend/host/parallel.hpp"
#include "mor/backend/host/scratch_size.hpp"
#include "mor/backend/trace/backend.hpp"
#include "mor/core/batch.hpp"
#include "mor/core/dtype.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/sharing.hpp"
#include "mor/train/adamw.hpp"

#include <vector>

namespace examples {

/// Rows of equal length; what the tokens are does not matter to a trace.
class ForecastBatch {
 public:
  explicit ForecastBatch(ForecastOptions const& options)
      : tokens_(static_cast<std::size_t>(options.sequences * options.context), 0) {
    for (mor::Index i = 0; i < rows(); ++i) positions_.push_back(static_cast<mor::Row>(i % options.context));
    for (mor::Index s = 0; s <= options.sequences; ++s) offsets_.push_back(static_cast<mor::Row>(s * options.context));
  }
  [[nodiscard]] mor::Index rows() const { return static_cast<mor::Index>(tokens_.size()); }
  [[nodiscard]] mor::Batch batch() const { return {tokens_, positions_, offsets_}; }
  [[nodiscard]] std::vector<mor::Token> const& targets() const { return tokens_; }

 private:
  std::vector<mor::Token> tokens_;
  std::vector<mor::Row> positions_, offsets_;
};

/// Of one micro-batch.
struct TracedStep {
  double flops = 0.0;  ///< matrix products a token
  double depth = 0.0;  ///< recursions a token
};

/// A micro-batch of training.
template <class Model>
TracedStep trace_step(Model& model, ForecastBatch const& data, mor::TrainingProgress const& progress) {
  auto& backend = model.backend();
  backend.clear();
  model.forward_backward(data.batch(), data.targets(), progress, {});
  double const flops = static_cast<double>(backend.matrix_flops()) / static_cast<double>(data.rows());
  return {flops, model.report().mean_depth()};
}

/// The trace backend as a stand-in for the device that was chosen, computing in Scalar.
template <class Scalar>
[[nodiscard]] mor::trace::Options trace_options(DeviceChoice const& device) {
  mor::trace::Options options;
  if (device.cuda) {
    options.upload_uses_arena = true;
    options.scratch_bytes = mor::cuda::ScratchSize<Scalar>();
  } else {
    options.scratch_bytes = mor::host::ScratchSize<float>(mor::host::resolve_threads(device.threads));
  }
  return options;
}

/// Two points of a line: where tokens leave on their way, and where fewer do. For a router of constant depth they are
/// one.
template <class Router, class Cache, class B>
void forecast_depths(mor::ModelConfig const& config, ForecastBatch const& data, TracedStep const& deepest,
                     Forecast& forecast) {
  mor::trace::Options options;
  options.assumed_depth = mor::trace::AssumedDepth::Uniform;
  B backend(options);
  mor::RecursiveModel<Router, Cache, B> model(backend, config, Router(config.recursion), mor::named_schedule(config));
  model.parameters().enable_gradients();
  TracedStep const usual = trace_step(model, data, {});
  // Expert choice keeps its shares whatever is assumed; the beginning of a capacity warm-up keeps all.
  mor::TrainingProgress beginning;
  beginning.forward_calls = 0;
  beginning.capacity_warmup_calls = 1;
  TracedStep const deep = deepest.depth > usual.depth ? deepest : trace_step(model, data, beginning);
  forecast.known_flops = usual.flops;
  forecast.known_depth = usual.depth;
  if (deep.depth > usual.depth) forecast.recursion_flops = (deep.flops - usual.flops) / (deep.depth - usual.depth);
}

template <class Router, class Cache, class Scalar>
[[nodiscard]] Forecast forecast_of(mor::ModelConfig const& config, ForecastOptions const& options) {
  using B = mor::trace::Backend<Scalar, float>;
  B backend(trace_options<Scalar>(options.device));
  mor::RecursiveModel<Router, Cache, B> model(backend, config, Router(config.recursion), mor::named_schedule(config));
  Forecast forecast;
  forecast.parameters = model.parameters().layout().total_size();
  forecast.weight_bytes = backend.persistent_bytes();
  if (options.device.cuda) forecast.workspace_bytes = mor::cuda::tuning::kBlasWorkspaceBytes;
  model.parameters().enable_gradients();
  forecast.gradient_bytes = backend.persistent_bytes() - forecast.weight_bytes;
  mor::train::Adamw<B> optimizer(backend, model.parameters(), {});
  forecast.optimizer_bytes = backend.persistent_bytes() - forecast.weight_bytes - forecast.gradient_bytes;

  ForecastBatch const data(options);
  model.set_recompute(options.recompute);
  trace_step(model, data, {});
  mor::TrainingProgress first;
  first.capacity_warmup_calls = options.capacity_warmup_calls;
  if (options.capacity_warmup_calls > 0) trace_step(model, data, first);  // lets nearly every token through
  optimizer.add_loss(model.losses(), 1.0);
  optimizer.step(0.0);
  static_cast<void>(model.loss(data.batch(), data.targets(), mor::RoutingMode::FullDepth));
  forecast.activation_bytes = backend.arena().peak_bytes();
  model.set_recompute(mor::Recompute::None);
  TracedStep const deepest = trace_step(model, data, {});
  forecast.training_flops = deepest.flops;
  forecast_depths<Router, Cache, B>(config, data, deepest, forecast);
  return forecast;
}

template <class Router, class Cache>
[[nodiscard]] Forecast forecast_with_type(mor::ModelConfig const& config, ForecastOptions const& options) {
  if (options.device.dtype == mor::DType::BF16) return forecast_of<Router, Cache, mor::bfloat16>(config, options);
  return forecast_of<Router, Cache, float>(config, options);
}

/// The forecast for the cache that the configuration names.
template <class Router>
[[nodiscard]] Forecast forecast_with_cache(mor::ModelConfig const& config, ForecastOptions const& options) {
  switch (config.recursion.cache) {
    case mor::CacheKind::RecursionWise: return forecast_with_type<Router, mor::RecursionWiseCache>(config, options);
    case mor::CacheKind::Shared: return forecast_with_type<Router, mor::SharedCache>(config, options);
    case mor::CacheKind::Hybrid: return forecast_with_type<Router, mor::HybridCache>(config, options);
  }
  mor::fail(mor::ErrorCode::InvalidConfig, "unknown cache", "cache");
}

}  // namespace examples
