// SPDX-License-Identifier: Apache-2.0
/// @file
/// `LayerSchedule`: which parameter set each unrolled layer uses. A sharing strategy is a pure function to it, and it
/// is all that the model knows of sharing (mor-spec section 2).
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"

#include <algorithm>
#include <vector>

namespace mor {

/// Prelude layers run once on all tokens, then the recursion block `Nr` times, then the coda layers once.
/// Numbers are indices of parameter sets ("unique layers"), 0-based and dense in order of first use.
struct LayerSchedule {
  std::vector<Index> prelude;               ///< parameter set of each prelude layer
  std::vector<std::vector<Index>> recursions;  ///< [Nr][B]: parameter set of inner layer j in recursion r
  std::vector<Index> coda;                  ///< parameter set of each coda layer

  [[nodiscard]] Index num_recursions() const { return static_cast<Index>(recursions.size()); }
  [[nodiscard]] Index block_layers() const {
    return recursions.empty() ? 0 : static_cast<Index>(recursions.front().size());
  }
  /// Unrolled layers L.
  [[nodiscard]] Index num_layers() const {
    return static_cast<Index>(prelude.size() + coda.size()) + num_recursions() * block_layers();
  }
  /// Distinct parameter sets.
  [[nodiscard]] Index num_parameter_sets() const {
    Index largest = -1;
    for (Index const set : unrolled()) largest = std::max(largest, set);
    return largest + 1;
  }
  /// Parameter set of each unrolled layer in execution order.
  [[nodiscard]] std::vector<Index> unrolled() const {
    std::vector<Index> sets = prelude;
    for (auto const& recursion : recursions) sets.insert(sets.end(), recursion.begin(), recursion.end());
    sets.insert(sets.end(), coda.begin(), coda.end());
    return sets;
  }
  /// For inner layer j of recursion r: the first (r', j') in execution order that uses the same parameter set.
  /// A shared cache keeps its keys and values there.
  struct Place {
    Index recursion = 0;
    Index layer = 0;
    bool operator==(Place const&) const = default;
  };
  [[nodiscard]] Place first_use(Index recursion, Index layer) const {
    Index const set = recursions[static_cast<std::size_t>(recursion)][static_cast<std::size_t>(layer)];
    for (Index r = 0; r < num_recursions(); ++r) {
      for (Index j = 0; j < block_layers(); ++j) {
        if (recursions[static_cast<std::size_t>(r)][static_cast<std::size_t>(j)] == set) return {r, j};
      }
    }
    return {recursion, layer};
  }
  /// How many earlier layers of the recursions use the same parameter set: 0 at its first use. In cycles this is the
  /// recursion itself.
  [[nodiscard]] Index use_index(Index recursion, Index layer) const {
    Index const set = recursions[static_cast<std::size_t>(recursion)][static_cast<std::size_t>(layer)];
    Index uses = 0;
    for (Index r = 0; r <= recursion; ++r) {
      for (Index j = 0; j < (r == recursion ? layer : block_layers()); ++j) {
        uses += recursions[static_cast<std::size_t>(r)][static_cast<std::size_t>(j)] == set ? 1 : 0;
      }
    }
    return uses;
  }
  bool operator==(LayerSchedule const&) const = default;
};

}  // namespace mor
