// SPDX-License-Identifier: Apache-2.0
/// @file
/// Who works when in a serving engine: same rows, same kernels, so that the ways can be compared.
#pragma once

#include "mor/core/serving_tables.hpp"
#include "mor/core/types.hpp"

#include <concepts>

namespace mor::infer {

/// A scheduler is a rule for which rows take part in a tick, decided on the device (`TickRule`); it is asked once, when the engine is
/// made. `S::lock_step`: its rule may be `in_step`, as recursions of different layers need. `S::full_depth`: every token takes
/// every recursion.
template <class S>
concept Scheduler = requires(S const& scheduler) {
  { S::lock_step } -> std::convertible_to<bool>;
  { S::full_depth } -> std::convertible_to<bool>;
  { scheduler.rule() } -> std::same_as<TickRule>;
};

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
  static constexpr bool full_depth = false;
  [[nodiscard]] TickRule rule() const { return {}; }
};

/// The same with a lazy coda (prompts enter meanwhile): it waits for `minimum` finished rows, or until nothing else is left to do.
struct LazyTickScheduler {
  static constexpr bool lock_step = false;
  static constexpr bool full_depth = false;
  Index minimum = 1;
  [[nodiscard]] TickRule rule() const { return {.least_finished = minimum}; }
};

/// Depth-wise batching as it was published (Bae et al., 2507.10524): recursions take full batches of `rows` rows, and
/// the coda comes when as many have finished. Texts that wait for their turn, or with a finished row for enough others, are beside
/// those: twice as many slots as rows keep the batches full. (More slots under `TickScheduler` make more of a GPU; this one is to
/// compare with what was published.)
struct FullBatchScheduler {
  static constexpr bool lock_step = false;
  static constexpr bool full_depth = false;
  Index rows = 32;
  [[nodiscard]] TickRule rule() const { return {.most_rows = rows, .least_finished = rows}; }
};

/// Every token takes every recursion, all in step: what a server without early exit does.
struct FullDepthScheduler {
  static constexpr bool lock_step = true;
  static constexpr bool full_depth = true;
  [[nodiscard]] TickRule rule() const { return {.in_step = true}; }
};

/// Tokens leave early, but their places stay empty until all have left: batches shrink.
struct NoRefillScheduler {
  static constexpr bool lock_step = true;
  static constexpr bool full_depth = false;
  [[nodiscard]] TickRule rule() const { return {.in_step = true}; }
};

/// Places are filled at once, but a launch holds rows of one depth only: the depth that most rows wait for, and now and
/// then one that has waited long (`math::depth_of_launch`), so that no row is left behind. A baseline for measurements.
struct HomogeneousScheduler {
  static constexpr bool lock_step = false;
  static constexpr bool full_depth = false;
  [[nodiscard]] TickRule rule() const { return {.one_depth = true}; }
};

static_assert(Scheduler<TickScheduler> && Scheduler<LazyTickScheduler> && Scheduler<FullBatchScheduler> &&
              Scheduler<FullDepthScheduler> && Scheduler<NoRefillScheduler> && Scheduler<HomogeneousScheduler>);

}  // namespace mor::infer
