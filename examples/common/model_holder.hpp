// SPDX-License-Identifier: Apache-2.0
/// @file
/// `ModelHolder`: the one implementation of `AnyModel`, for a router and a cache; and the choice of both by name. The
/// sharing strategy is data (a `LayerSchedule`), so it adds no instantiation.
#pragma once

#include "common/any_model.hpp"
#include "common/named_schedule.hpp"
#include "mor/backend/host/backend.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/cache.hpp"

#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace examples {

template <class Router, class Cache>
class ModelHolder final : public AnyModel {
 public:
  using B = mor::host::Backend<float>;

  ModelHolder(mor::ModelConfig const& config, int threads)
      : backend_(threads), model_(backend_, config, Router(config.recursion), named_schedule(config)) {}

  mor::ModelConfig const& config() const override { return model_.config(); }
  mor::LayerSchedule const& schedule() const override { return model_.schedule(); }
  mor::LayerNaming naming() const override { return Router::naming; }
  mor::ParameterLayout const& layout() const override { return model_.parameters().layout(); }
  int threads() const override { return backend_.threads(); }

  std::span<float> weights() override { return model_.parameters().values(); }
  void initialize(std::uint64_t seed) override { model_.initialize(seed); }

  void enable_training(mor::train::AdamwSettings const& settings) override {
    model_.parameters().enable_gradients();
    optimizer_.emplace(backend_, model_.parameters(), settings);
  }
  void zero_gradients() override { model_.parameters().zero_gradients(); }
  void forward_backward(mor::Batch const& batch, std::span<Token const> targets, mor::TrainingProgress const& progress,
                        mor::LossWeights const& weights) override {
    model_.forward_backward(batch, targets, progress, weights);
  }
  mor::train::GradientNorms gradient_norms() const override { return optimizer_.value().gradient_norms(); }
  void apply(double learning_rate, mor::train::GradientNorms const& norms) override {
    optimizer_.value().apply(learning_rate, norms);
  }
  void finish_step(std::span<double const> load) override { model_.finish_step(load); }
  std::span<float> first_moment() const override { return optimizer_.value().first_moment(); }
  std::span<float> second_moment() const override { return optimizer_.value().second_moment(); }
  void set_optimizer_steps(Index steps) override { optimizer_.value().set_steps(steps); }

  std::span<float const> loss(mor::Batch const& batch, std::span<Token const> targets, mor::RoutingMode mode) override {
    return model_.loss(batch, targets, mode);
  }
  mor::View<float const> forward(mor::Batch const& batch, mor::RoutingMode mode) override {
    return model_.forward(batch, mode);
  }
  mor::LossReport report() override { return model_.report(); }
  std::vector<Row> depths() const override { return model_.depths(); }
  mor::infer::FinishReason generate(mor::infer::GenerationRequest const& request, OnToken const& on_token) override {
    return mor::infer::generate(model_, request, on_token);
  }

  void reserve_activations(Index bytes) override {
    backend_.arena().reset();
    backend_.arena().reserve(bytes);
  }
  Index activation_bytes() const override { return model_.backend().arena().capacity_bytes(); }

 private:
  B backend_;
  mor::RecursiveModel<Router, Cache, B> model_;
  std::optional<mor::train::Adamw<B>> optimizer_;
};

/// A model of this router with the cache that the configuration names.
template <class Router>
[[nodiscard]] std::unique_ptr<AnyModel> make_with_cache(mor::ModelConfig const& config, int threads) {
  switch (config.recursion.cache) {
    case mor::CacheKind::RecursionWise:
      return std::make_unique<ModelHolder<Router, mor::RecursionWiseCache>>(config, threads);
    case mor::CacheKind::Shared: return std::make_unique<ModelHolder<Router, mor::SharedCache>>(config, threads);
    case mor::CacheKind::Hybrid: return std::make_unique<ModelHolder<Router, mor::HybridCache>>(config, threads);
  }
  mor::fail(mor::ErrorCode::InvalidConfig, "unknown cache", "cache");
}

}  // namespace examples
