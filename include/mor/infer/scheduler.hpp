// SPDX-License-Identifier: Apache-2.0
/// @file
/// The four ways to order the work of a serving engine: same rows, same kernels, so that they can be compared.
#pragma once

#include "mor/core/types.hpp"

#include <concepts>

namespace mor::infer {

/// What a scheduler knows before a tick.
struct TickCounts {
  Index ready = 0;     ///< rows that wait for a recursion
  Index finished = 0;  ///< rows that wait for the coda
  Index entering = 0;  ///< rows of prompts that wait for the prelude
};

/// What a tick does. `finish` is decided after the recursion (`Scheduler::finish`).
struct RecursionPlan {
  bool run = true;         ///< take a recursion with the rows that are ready
  bool one_depth = false;  ///< only with those of one depth
};

/// `S::lock_step`: all rows take the same recursion, and new ones start when all are done. `S::full_depth`: every token takes
/// every recursion. `S::exact`: the scheduler is asked in every tick, and the host waits for exact counts to ask it with:
/// `recursion(counts)` before the block, `finish(counts)` after it, whether coda and prelude run. Otherwise every tick runs every
/// stage with all rows that are ready for it, and nobody is asked, so such a scheduler cannot be in lock step.
template <class S>
concept Scheduler = requires {
  { S::lock_step } -> std::convertible_to<bool>;
  { S::exact } -> std::convertible_to<bool>;
  { S::full_depth } -> std::convertible_to<bool>;
} && ((!S::exact && !S::lock_step) || requires(S scheduler, TickCounts const& counts) {
  requires S::exact;
  { scheduler.recursion(counts) } -> std::same_as<RecursionPlan>;
  { scheduler.finish(counts) } -> std::same_as<bool>;
});

/// Whether all recursions of a model run the same layers, so that rows of different depths can share a launch.
template <class Model>
[[nodiscard]] constexpr bool model_reuses_block() {
  if constexpr (requires { Model::sharing_type::reuses_block; }) {
    return Model::sharing_type::reuses_block || !Model::sharing_type::shares_layers;  // without sharing: one recursion
  }
  return true;  // a model whose strategy is data: looked at when the engine is made
}

/// Continuous depth-wise batching: every tick takes all ready rows, whatever their depth, once round the block, and those
/// that are done through coda and prelude, so an exited token's place is filled at once.
struct TickScheduler {
  static constexpr bool lock_step = false;
  static constexpr bool exact = false;
  static constexpr bool full_depth = false;
};

/// The same with a lazy coda: it waits for `minimum` finished rows, or until nothing else is left to do.
struct LazyTickScheduler {
  static constexpr bool lock_step = false;
  static constexpr bool exact = true;
  static constexpr bool full_depth = false;
  Index minimum = 1;
  [[nodiscard]] RecursionPlan recursion(TickCounts const&) const { return {}; }
  [[nodiscard]] bool finish(TickCounts const& counts) const {
    return counts.ready == 0 || counts.finished >= minimum || counts.entering > 0;
  }
};

/// Every token takes every recursion, all in step: what a server without early exit does.
struct FullDepthScheduler {
  static constexpr bool lock_step = true;
  static constexpr bool exact = true;
  static constexpr bool full_depth = true;
  [[nodiscard]] RecursionPlan recursion(TickCounts const&) const { return {}; }
  [[nodiscard]] bool finish(TickCounts const& counts) const { return counts.ready == 0; }
};

/// Tokens leave early, but their places stay empty until all have left: batches shrink.
struct NoRefillScheduler {
  static constexpr bool lock_step = true;
  static constexpr bool exact = true;
  static constexpr bool full_depth = false;
  [[nodiscard]] RecursionPlan recursion(TickCounts const&) const { return {}; }
  [[nodiscard]] bool finish(TickCounts const& counts) const { return counts.ready == 0; }
};

/// Places are filled at once, but a launch holds rows of one depth only: the depth that most rows wait for, and now and
/// then one that has waited long (`math::depth_of_launch`), so that no row is left behind. A baseline for measurements.
struct HomogeneousScheduler {
  static constexpr bool lock_step = false;
  static constexpr bool exact = true;
  static constexpr bool full_depth = false;
  [[nodiscard]] RecursionPlan recursion(TickCounts const&) const { return {true, true}; }
  [[nodiscard]] bool finish(TickCounts const&) const { return true; }
};

static_assert(Scheduler<TickScheduler> && Scheduler<LazyTickScheduler> && Scheduler<FullDepthScheduler> &&
              Scheduler<NoRefillScheduler> && Scheduler<HomogeneousScheduler>);

}  // namespace mor::infer
