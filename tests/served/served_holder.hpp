// SPDX-License-Identifier: Apache-2.0
/// @file
/// The one implementation of `Served`.
#pragma once

#include "served/served.hpp"

#include "mor/infer/engine.hpp"
#include "mor/infer/generate.hpp"
#include "mor/model/recursive_model.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/sharing.hpp"

#include <utility>

namespace mor::test {

/// Does what any scheduler does. Full depth is a matter of the engine's options here.
struct AnyScheduler {
  static constexpr bool lock_step = true;  // may be
  static constexpr bool full_depth = false;
  TickRule held;
  [[nodiscard]] TickRule rule() const { return held; }

  static AnyScheduler of(ServedSetup const& setup) {
    switch (setup.scheduler) {
      case Schedulers::Tick: return {infer::TickScheduler{}.rule()};
      case Schedulers::LazyTick: return {infer::LazyTickScheduler{setup.scheduled_rows}.rule()};
      case Schedulers::FullBatch: return {infer::FullBatchScheduler{setup.scheduled_rows}.rule()};
      case Schedulers::FullDepth:
      case Schedulers::NoRefill: return {infer::NoRefillScheduler{}.rule()};
      case Schedulers::Homogeneous: return {infer::HomogeneousScheduler{}.rule()};
    }
    return {};
  }
};

template <class Router, class Cache, class B, class S>
class ServedHolder final : public Served {
  using Model = RecursiveModel<Router, Cache, B>;

 public:
  ServedHolder(ServedSetup const& setup, S scheduler)
      : backend_(1),
        model_(backend_, setup.model, Router(setup.model.recursion), named_schedule(setup.model)),
        mode_(setup.options.mode) {
    model_.initialize(setup.seed);
    auto options = setup.options;
    if (setup.scheduler == Schedulers::FullDepth) mode_ = options.mode = RoutingMode::FullDepth;
    engine_ = std::make_unique<infer::Engine<Model, S>>(model_, options, std::move(scheduler));
  }

  infer::RequestId submit(infer::Request request) override { return engine_->submit(std::move(request)); }
  bool cancel(infer::RequestId id) override { return engine_->cancel(id); }
  std::span<infer::Event const> step() override { return engine_->step(); }
  bool idle() const override { return engine_->idle(); }
  infer::EngineStatistics statistics() const override { return engine_->statistics(); }
  infer::EngineOptions const& options() const override { return engine_->options(); }
  Index cache_bytes() const override { return engine_->cache_bytes(); }
  void drop_prefixes() override { engine_->drop_prefixes(); }
  MemoryUse memory() override {
    auto const now = backend_.memory_statistics();
    return {now.current_bytes, now.allocations, backend_.arena().allocations()};
  }

  ModelConfig const& config() const override { return model_.config(); }
  LayerSchedule const& schedule() const override { return model_.schedule(); }
  std::map<std::string, std::vector<float>> weights() const override {
    std::map<std::string, std::vector<float>> all;
    for (auto const& info : model_.parameters().layout().all()) all[info.name] = model_.parameters().read(info.name);
    return all;
  }
  void write(std::string const& name, std::vector<float> const& values) override {
    model_.parameters().write(name, values);
    model_.parameters().publish();
  }
  OfflineText generate(infer::Request const& request) override {
    infer::GenerationRequest asked;
    asked.prompt = request.prompt;
    asked.max_new_tokens = request.max_new_tokens;
    asked.sampling = request.sampling;
    asked.end_token = request.end_token;
    asked.mode = mode_;
    asked.last_depth = false;
    OfflineText result;
    result.reason = infer::generate(model_, asked, [&](infer::GeneratedToken const& token) {
      result.text.push_back(token.token);
      if (!token.prompt) result.log_probabilities.push_back(token.log_probability);
      if (token.depth > 0) result.depths.push_back(token.depth);
      return true;
    });
    if (result.depths.size() == result.text.size()) result.depths.pop_back();  // ContextFull: the last one was read
    return result;
  }
  OfflinePass forward(std::vector<Token> const& text) override {
    infer::SingleSequence sequence;
    auto const logits = model_.forward(sequence(text, 0), mode_);
    return {logits.cols, {logits.data, logits.data + logits.size()}, model_.depths()};
  }

 private:
  B backend_;
  Model model_;
  RoutingMode mode_;
  std::unique_ptr<infer::Engine<Model, S>> engine_;
};

template <class Router, class B>
std::unique_ptr<Served> make_served_router(ServedSetup const& setup) {
  auto scheduler = AnyScheduler::of(setup);
  switch (setup.model.recursion.cache) {
    case CacheKind::RecursionWise:
      return std::make_unique<ServedHolder<Router, RecursionWiseCache, B, AnyScheduler>>(setup, scheduler);
    case CacheKind::Shared:
      return std::make_unique<ServedHolder<Router, SharedCache, B, AnyScheduler>>(setup, scheduler);
    case CacheKind::Hybrid:
      return std::make_unique<ServedHolder<Router, HybridCache, B, AnyScheduler>>(setup, scheduler);
  }
  return nullptr;
}

}  // namespace mor::test
