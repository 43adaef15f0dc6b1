// SPDX-License-Identifier: Apache-2.0
/// @file
/// `ModelHolder`: the one implementation of `AnyModel`, for a router, a cache and a backend; and the choice of the
/// cache by name. The sharing strategy is data (a `LayerSchedule`), so it adds no instantiation. No backend is included
/// here: nvcc cannot read the host's vector code.
#pragma once

#include "common/any_model.hpp"
#include "common/engine_holder.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/sharing.hpp"

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace examples {

/// A backend's name and what its constructor takes.
template <class Options>
struct BackendSettings {
  std::string name;
  Options options;
};
template <class Options>
BackendSettings(std::string, Options) -> BackendSettings<Options>;

/// What a backend needs to repeat a training step cheaply; empty where it offers nothing of the kind.
template <class B>
struct RepetitionOf {
  struct type {};
};
template <class B>
  requires requires { typename B::repetition_type; }
struct RepetitionOf<B> {
  using type = typename B::repetition_type;
};

template <class Router, class Cache, class B>
class ModelHolder final : public AnyModel {
  static_assert(std::is_same_v<typename B::real_type, float>, "AnyModel passes losses, logits and weights as float");

 public:
  template <class Options>
  ModelHolder(mor::ModelConfig const& config, BackendSettings<Options> const& settings)
      : backend_name_(settings.name),
        backend_(settings.options),
        model_(backend_, config, Router(config.recursion), mor::named_schedule(config)) {}

  mor::ModelConfig const& config() const override { return model_.config(); }
  mor::LayerSchedule const& schedule() const override { return model_.schedule(); }
  mor::LayerNaming naming() const override { return Router::naming; }
  mor::ParameterLayout const& layout() const override { return model_.parameters().layout(); }
  std::string backend_name() const override { return backend_name_; }

  void initialize(std::uint64_t seed) override { model_.initialize(seed); }
  std::vector<float> weights() const override { return host_copy(model_.parameters().values()); }
  void set_weights(Index offset, std::span<float const> values) override {
    auto const all = model_.parameters().values();
    check_size("set_weights", static_cast<Index>(all.size()) - offset, values);
    backend_.store(values, all.subspan(static_cast<std::size_t>(offset), values.size()));
  }
  void publish() override { model_.parameters().publish(); }

  void enable_training(mor::train::AdamwSettings const& settings) override {
    model_.parameters().enable_gradients();
    optimizer_.emplace(backend_, model_.parameters(), settings);
  }
  void set_recompute(mor::Recompute level) override { model_.set_recompute(level); }
  void zero_gradients() override { model_.parameters().zero_gradients(); }
  void forward_backward(mor::Batch const& batch, std::span<Token const> targets, mor::TrainingProgress const& progress,
                        mor::LossWeights const& weights) override {
    auto const work = [&] {
      model_.forward_backward(batch, targets, progress, weights);
      optimizer_.value().add_loss(model_.losses(), weights.language_model);
    };
    if constexpr (requires { backend_.repeat(repetition_, work); }) {
      backend_.repeat(repetition_, work);
    } else {
      work();
    }
  }
  void update(double learning_rate) override { optimizer_.value().step(learning_rate); }
  mor::train::UpdateReport last_update() const override { return optimizer_.value().last_update(); }
  void finish_step(std::span<double const> load) override { model_.finish_step(load); }
  std::vector<float> first_moment() const override { return host_copy(optimizer_.value().first_moment()); }
  std::vector<float> second_moment() const override { return host_copy(optimizer_.value().second_moment()); }
  void set_moments(std::span<float const> first, std::span<float const> second) override {
    check_size("set_moments", layout().total_size(), first);
    check_size("set_moments", layout().total_size(), second);
    backend_.store(first, optimizer_.value().first_moment().first(first.size()));
    backend_.store(second, optimizer_.value().second_moment().first(second.size()));
  }
  void set_optimizer_steps(Index steps) override { optimizer_.value().set_steps(steps); }

  void loss(mor::Batch const& batch, std::span<Token const> targets, mor::RoutingMode mode) override {
    static_cast<void>(model_.loss(batch, targets, mode));
  }
  std::vector<float> losses(mor::Batch const& batch, std::span<Token const> targets, mor::RoutingMode mode,
                            std::span<Row const> rows) override {
    return host_copy(model_.loss(batch, targets, mode, rows));
  }
  mor::View<float const> forward(mor::Batch const& batch, mor::RoutingMode mode) override {
    return host_view(model_.forward(batch, mode));
  }
  mor::View<float const> forward(mor::Batch const& batch, mor::RoutingMode mode, std::span<Row const> rows) override {
    return host_view(model_.forward(batch, mode, rows));
  }
  mor::LossReport report() override { return model_.report(); }
  std::vector<Row> depths() const override { return model_.depths(); }
  mor::infer::FinishReason generate(mor::infer::GenerationRequest const& request, OnToken const& on_token) override {
    return mor::infer::generate(model_, request, on_token);
  }
  std::unique_ptr<AnyEngine> make_engine(mor::infer::EngineOptions const& options) override {
    return std::make_unique<EngineHolder<mor::RecursiveModel<Router, Cache, B>>>(model_, options);
  }

  void reserve_activations(Index bytes) override {
    backend_.arena().reset();
    backend_.arena().reserve(bytes);
  }
  Index activation_bytes() const override { return model_.backend().arena().capacity_bytes(); }

 private:
  [[nodiscard]] std::vector<float> host_copy(std::span<float const> values) const {
    std::vector<float> host(values.size());
    model_.backend().download(values, host);
    return host;
  }
  [[nodiscard]] mor::View<float const> host_view(mor::View<float const> logits) {
    if (backend_.memory().addressable) return logits;
    logits_ = host_copy({logits.data, static_cast<std::size_t>(logits.size())});
    return {logits_.data(), logits.rows, logits.cols};
  }
  static void check_size(char const* where, Index room, std::span<float const> values) {
    if (static_cast<Index>(values.size()) <= room) return;
    mor::fail(mor::ErrorCode::ShapeMismatch, "more values than the model has", where, mor::text_of(room),
              mor::text_of(values.size()));
  }

  std::string backend_name_;
  B backend_;
  mor::RecursiveModel<Router, Cache, B> model_;
  std::optional<mor::train::Adamw<B>> optimizer_;
  typename RepetitionOf<B>::type repetition_;
  std::vector<float> logits_;  ///< of the last `forward`, where the backend's memory is not the host's
};

/// A model of this router on this backend, with the cache that the configuration names.
template <class Router, class B, class Options>
[[nodiscard]] std::unique_ptr<AnyModel> make_with_cache(mor::ModelConfig const& config,
                                                        BackendSettings<Options> const& settings) {
  switch (config.recursion.cache) {
    case mor::CacheKind::RecursionWise:
      return std::make_unique<ModelHolder<Router, mor::RecursionWiseCache, B>>(config, settings);
    case mor::CacheKind::Shared: return std::make_unique<ModelHolder<Router, mor::SharedCache, B>>(config, settings);
    case mor::CacheKind::Hybrid: return std::make_unique<ModelHolder<Router, mor::HybridCache, B>>(config, settings);
  }
  mor::fail(mor::ErrorCode::InvalidConfig, "unknown cache", "cache");
}

}  // namespace examples
