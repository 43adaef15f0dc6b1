// SPDX-License-Identifier: Apache-2.0
/// @file
/// The shipped sharing strategies: which unrolled layers use the same weights (mor-spec section 2).
///
/// With L unrolled layers, Nr recursions and B layers in a block:
///
///     NoSharing       0 1 2 3 ...                one pass over unique layers; prelude and coda are part of the count
///     Cycle           012 012 012                layer l uses set l mod B
///     Sequence        000 111 222                layer l uses set l / Nr
///     MiddleCycle     0 | 12 12 12 | 3           unique layers around a cycle
///     MiddleSequence  0 | 111 222 | 3            unique layers around a sequence
#pragma once

#include "mor/contract/sharing.hpp"

#include <string>

namespace mor {

namespace detail {

/// Layers of one recursion, after checking L = prelude + Nr * B + coda.
inline Index block_layers_of(ModelConfig const& config, char const* strategy) {
  auto const& recursion = config.recursion;
  Index const inner = config.num_hidden_layers - recursion.num_prelude_layers - recursion.num_coda_layers;
  if (recursion.num_recursions < 1 || inner < recursion.num_recursions || inner % recursion.num_recursions != 0) {
    fail(ErrorCode::InvalidConfig, "the layers do not divide into recursions", std::string(strategy) + ", num_hidden_layers",
         "prelude + num_recursions * block + coda with a block of at least one layer",
         text_of(config.num_hidden_layers) + " = " + text_of(recursion.num_prelude_layers) + " + " +
             text_of(recursion.num_recursions) + " * block + " + text_of(recursion.num_coda_layers));
  }
  return inner / recursion.num_recursions;
}

/// Prelude and coda around a block whose layer l uses the set `set_of(l)`, l counted inside the recursions.
template <class SetOf>
LayerSchedule build_schedule(ModelConfig const& config, Index block, SetOf set_of) {
  auto const& recursion = config.recursion;
  LayerSchedule schedule;
  for (Index l = 0; l < recursion.num_prelude_layers; ++l) schedule.prelude.push_back(l);
  Index last_set = recursion.num_prelude_layers - 1;
  for (Index r = 0; r < recursion.num_recursions; ++r) {
    auto& layers = schedule.recursions.emplace_back();
    for (Index j = 0; j < block; ++j) {
      layers.push_back(recursion.num_prelude_layers + set_of(r * block + j));
      last_set = std::max(last_set, layers.back());
    }
  }
  for (Index l = 0; l < recursion.num_coda_layers; ++l) schedule.coda.push_back(last_set + 1 + l);
  return schedule;
}

inline void require_no_ends(ModelConfig const& config, char const* strategy, char const* with_ends) {
  if (config.recursion.num_prelude_layers != 0 || config.recursion.num_coda_layers != 0) {
    fail(ErrorCode::InvalidConfig, "this strategy has no prelude and no coda layers", strategy,
         std::string("0 and 0 (use ") + with_ends + " for unique layers at the ends)",
         text_of(config.recursion.num_prelude_layers) + " and " + text_of(config.recursion.num_coda_layers));
  }
}

inline void require_ends(ModelConfig const& config, char const* strategy, char const* without_ends) {
  if (config.recursion.num_prelude_layers < 1 || config.recursion.num_coda_layers < 1) {
    fail(ErrorCode::InvalidConfig, "this strategy needs unique layers at both ends", strategy,
         std::string("num_prelude_layers and num_coda_layers of at least 1 (use ") + without_ends + " for none)",
         text_of(config.recursion.num_prelude_layers) + " and " + text_of(config.recursion.num_coda_layers));
  }
}

}  // namespace detail

/// A vanilla Transformer: every layer has its own weights and runs once.
struct NoSharing {
  using policy_kind = sharing_tag;
  static constexpr SharingKind kind = SharingKind::None;
  static constexpr bool reuses_block = false;
  static constexpr bool shares_layers = false;

  static LayerSchedule schedule(ModelConfig const& config) {
    if (config.recursion.num_recursions != 1) {
      fail(ErrorCode::InvalidConfig, "a model without sharing has no recursions", "NoSharing, num_recursions", "1",
           text_of(config.recursion.num_recursions));
    }
    Index const block = detail::block_layers_of(config, "NoSharing");
    return detail::build_schedule(config, block, [](Index l) { return l; });
  }
};

/// The whole stack is one block that runs Nr times.
struct Cycle {
  using policy_kind = sharing_tag;
  static constexpr SharingKind kind = SharingKind::Cycle;
  static constexpr bool reuses_block = true;
  static constexpr bool shares_layers = true;

  static LayerSchedule schedule(ModelConfig const& config) {
    detail::require_no_ends(config, "Cycle", "MiddleCycle");
    Index const block = detail::block_layers_of(config, "Cycle");
    return detail::build_schedule(config, block, [block](Index l) { return l % block; });
  }
};

/// Unique first and last layers around a block that runs Nr times: the form of every published MoR result.
struct MiddleCycle {
  using policy_kind = sharing_tag;
  static constexpr SharingKind kind = SharingKind::MiddleCycle;
  static constexpr bool reuses_block = true;
  static constexpr bool shares_layers = true;

  static LayerSchedule schedule(ModelConfig const& config) {
    detail::require_ends(config, "MiddleCycle", "Cycle");
    Index const block = detail::block_layers_of(config, "MiddleCycle");
    return detail::build_schedule(config, block, [block](Index l) { return l % block; });
  }
};

/// Each layer repeats Nr times before the next one.
struct Sequence {
  using policy_kind = sharing_tag;
  static constexpr SharingKind kind = SharingKind::Sequence;
  static constexpr bool reuses_block = false;
  static constexpr bool shares_layers = true;

  static LayerSchedule schedule(ModelConfig const& config) {
    detail::require_no_ends(config, "Sequence", "MiddleSequence");
    Index const repeats = config.recursion.num_recursions;
    Index const block = detail::block_layers_of(config, "Sequence");
    return detail::build_schedule(config, block, [repeats](Index l) { return l / repeats; });
  }
};

/// Unique first and last layers around layers that each repeat Nr times.
struct MiddleSequence {
  using policy_kind = sharing_tag;
  static constexpr SharingKind kind = SharingKind::MiddleSequence;
  static constexpr bool reuses_block = false;
  static constexpr bool shares_layers = true;

  static LayerSchedule schedule(ModelConfig const& config) {
    detail::require_ends(config, "MiddleSequence", "Sequence");
    Index const repeats = config.recursion.num_recursions;
    Index const block = detail::block_layers_of(config, "MiddleSequence");
    return detail::build_schedule(config, block, [repeats](Index l) { return l / repeats; });
  }
};

/// The schedule of the strategy that the configuration names.
[[nodiscard]] inline LayerSchedule named_schedule(ModelConfig const& config) {
  switch (config.recursion.sharing) {
    case SharingKind::None: return NoSharing::schedule(config);
    case SharingKind::Cycle: return Cycle::schedule(config);
    case SharingKind::MiddleCycle: return MiddleCycle::schedule(config);
    case SharingKind::Sequence: return Sequence::schedule(config);
    case SharingKind::MiddleSequence: return MiddleSequence::schedule(config);
  }
  fail(ErrorCode::InvalidConfig, "unknown sharing strategy", "named_schedule");
}

static_assert(SharingStrategy<NoSharing> && SharingStrategy<Cycle> && SharingStrategy<MiddleCycle> &&
              SharingStrategy<Sequence> && SharingStrategy<MiddleSequence>);

}  // namespace mor
