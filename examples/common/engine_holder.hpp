// SPDX-License-Identifier: Apache-2.0
/// @file
/// `EngineHolder`: the one implementation of `AnyEngine`, for a model whose types are known.
#pragma once

#include "common/any_engine.hpp"
#include "mor/infer/engine.hpp"

#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace examples {

/// The figures of an engine, with a word about each.
[[nodiscard]] std::vector<EngineFigure> figures_of(mor::infer::EngineStatistics const& statistics);

/// Where tokens leave early, their places are filled at once; where every token takes every recursion, all stay in
/// step, which every sharing strategy can be served with.
template <class Model>
class EngineHolder final : public AnyEngine {
 public:
  using Scheduler =
      std::conditional_t<Model::router_type::routes, mor::infer::TickScheduler, mor::infer::FullDepthScheduler>;

  EngineHolder(Model& model, mor::infer::EngineOptions const& options) : engine_(model, options) {}

  mor::infer::RequestId submit(mor::infer::Request request) override { return engine_.submit(std::move(request)); }
  bool cancel(mor::infer::RequestId id) override { return engine_.cancel(id); }
  std::span<mor::infer::Event const> step() override { return engine_.step(); }
  bool idle() const override { return engine_.idle(); }
  std::vector<EngineFigure> figures() const override { return figures_of(engine_.statistics()); }

 private:
  mor::infer::Engine<Model, Scheduler> engine_;
};

}  // namespace examples
