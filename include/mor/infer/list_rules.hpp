// SPDX-License-Identifier: Apache-2.0
/// @file
/// How many lists of keys a served text has, and what they hold.
#pragma once

#include "mor/contract/cache.hpp"
#include "mor/core/layer_schedule.hpp"
#include "mor/core/types.hpp"

#include <algorithm>

namespace mor::infer {

/// How the lists of a model's recursions are kept, from its policies.
struct ListRules {
  Index lists = 1;    ///< recursions with key lists of their own
  bool dense = true;  ///< each of them holds every token
  bool shared = false;   ///< later uses of a layer read the first one's keys
  bool overlay = false;  ///< every list begins as a copy of the first one's

  template <class Router, class Cache>
  static ListRules of(LayerSchedule const& schedule) {
    ListRules rules;
    bool const reused = schedule.num_parameter_sets() < schedule.num_layers();
    auto const source = reused ? Cache::key_source(1) : KeySource::OwnRows;
    rules.shared = source == KeySource::FirstUse;
    rules.overlay = source == KeySource::Overlay && Router::routes;
    bool const one_list = rules.shared && all_alike(schedule);
    rules.lists = one_list ? 1 : schedule.num_recursions();
    rules.dense = !Router::routes || source != KeySource::OwnRows;
    return rules;
  }
  /// Every recursion runs the same layers.
  [[nodiscard]] static bool all_alike(LayerSchedule const& schedule) {
    return std::all_of(schedule.recursions.begin(), schedule.recursions.end(),
                       [&](auto const& sets) { return sets == schedule.recursions.front(); });
  }
};

}  // namespace mor::infer
