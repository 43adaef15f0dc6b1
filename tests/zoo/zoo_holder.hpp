// SPDX-License-Identifier: Apache-2.0
/// @file
/// The one implementation of `ZooModel`, for any backend.
#pragma once

#include "zoo/zoo.hpp"

#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/sharing.hpp"

#include <optional>
#include <span>

namespace mor::test {

template <class Router, class Cache, class B>
class ZooHolder final : public ZooModel {
  using Real = typename B::real_type;

 public:
  explicit ZooHolder(ModelConfig const& config)
      : model_(backend_, config, Router(config.recursion), named_schedule(config)) {
    model_.parameters().enable_gradients();
  }
  ParameterLayout const& layout() const override { return model_.parameters().layout(); }
  ModelConfig const& config() const override { return model_.config(); }
  void initialize(std::uint64_t seed) override { model_.initialize(seed); }
  std::vector<double> read(std::string const& name) const override { return wide(model_.parameters().read(name)); }
  void write(std::string const& name, std::vector<double> const& values) override {
    model_.parameters().write(name, std::vector<Real>(values.begin(), values.end()));
    model_.parameters().publish();
  }
  std::vector<double> gradient(std::string const& name) const override {
    return wide(model_.parameters().read_gradient(name));
  }
  void set_recompute(Recompute level) override { model_.set_recompute(level); }
  void zero_gradients() override { model_.parameters().zero_gradients(); }
  Logits forward(Batch const& batch, RoutingMode mode) override { return copy(model_.forward(batch, mode)); }
  std::vector<double> loss(Batch const& batch, std::vector<Token> const& targets, RoutingMode mode) override {
    return download(model_.loss(batch, targets, mode));
  }
  LossReport train(Batch const& batch, std::vector<Token> const& targets, TrainingProgress const& progress,
                   LossWeights const& weights) override {
    model_.forward_backward(batch, targets, progress, weights);
    return model_.report();
  }
  std::vector<Row> depths() const override { return model_.depths(); }
  std::vector<Row> active_rows(Index step) const override { return model_.active_rows(step); }
  void finish_step(std::vector<double> const& load) override { model_.finish_step(load); }
  void start_cache(Index sequences, Index capacity) override { cache_.emplace(model_.make_cache(sequences, capacity)); }
  Logits advance(Batch const& batch, RoutingMode mode) override {
    return copy(model_.advance_all(batch, *cache_, mode));
  }
  Row cached(Index step, Index sequence) const override { return cache_->active_length(step, sequence); }
  Index arena_allocations() const override { return model_.backend().arena().allocations(); }
  Index arena_peak_bytes() const override { return model_.backend().arena().peak_bytes(); }

 private:
  static std::vector<double> wide(std::vector<Real> const& values) { return {values.begin(), values.end()}; }
  std::vector<double> download(std::span<Real const> values) {
    std::vector<Real> host(values.size());
    backend_.download(values, host);
    return wide(host);
  }
  Logits copy(View<Real const> view) {
    return {view.rows, view.cols, download({view.data, static_cast<std::size_t>(view.size())})};
  }

  B backend_;
  RecursiveModel<Router, Cache, B> model_;
  std::optional<KvCache<B>> cache_;
};

template <class Router, class B>
std::unique_ptr<ZooModel> make_with_router(ModelConfig const& config) {
  switch (config.recursion.cache) {
    case CacheKind::RecursionWise: return std::make_unique<ZooHolder<Router, RecursionWiseCache, B>>(config);
    case CacheKind::Shared: return std::make_unique<ZooHolder<Router, SharedCache, B>>(config);
    case CacheKind::Hybrid: return std::make_unique<ZooHolder<Router, HybridCache, B>>(config);
  }
  return nullptr;
}

}  // namespace mor::test
