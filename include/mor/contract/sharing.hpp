// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a sharing strategy is: a pure function from a configuration to a `LayerSchedule`.
#pragma once

#include "mor/core/config.hpp"
#include "mor/core/layer_schedule.hpp"

#include <concepts>

namespace mor {

/// Opt-in mark: `using policy_kind = mor::sharing_tag;`.
struct sharing_tag {};

template <class S>
concept SharingIsTagged = std::same_as<typename S::policy_kind, sharing_tag>;

/// `S::schedule(config)` gives the layer schedule; throws InvalidConfig when the layer counts do not fit.
template <class S>
concept SharingHasSchedule = requires(ModelConfig const& config) {
  { S::schedule(config) } -> std::same_as<LayerSchedule>;
};

/// `S::reuses_block`: every recursion runs the same block of layers, so a token can take any number of them.
/// `S::shares_layers`: some parameter set is used by more than one unrolled layer.
template <class S>
concept SharingSaysWhatItShares = requires {
  { S::reuses_block } -> std::convertible_to<bool>;
  { S::shares_layers } -> std::convertible_to<bool>;
};

/// A sharing strategy.
template <class S>
concept SharingStrategy = SharingIsTagged<S> && SharingHasSchedule<S> && SharingSaysWhatItShares<S>;

}  // namespace mor
