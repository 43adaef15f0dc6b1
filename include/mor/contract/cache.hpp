// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a cache policy is: for each recursion, which keys and values its attention looks at (mor-spec section 5).
#pragma once

#include "mor/contract/backend.hpp"

#include <concepts>

namespace mor {

/// Opt-in mark: `using policy_kind = mor::cache_tag;`.
struct cache_tag {};

/// Where a layer's keys and values come from.
enum class KeySource {
  OwnRows,   ///< the rows active in this recursion, projected in this recursion
  FirstUse,  ///< all rows, as projected by the first layer that uses the same weights; no projection here
  Overlay    ///< all rows: active ones projected here, the others as in FirstUse
};

template <class C>
concept CacheIsTagged = std::same_as<typename C::policy_kind, cache_tag>;

/// `C::key_source(use)`, constexpr: `use` counts the earlier layers with the same weights, which in a cycle is the
/// 0-based recursion. Use 0 must be `OwnRows`.
template <class C>
concept CacheHasKeySource = requires(Index use) {
  { C::key_source(use) } -> std::same_as<KeySource>;
};

/// `C::shares_keys`: some recursion reads keys that another one projected.
template <class C>
concept CacheSaysWhetherItShares = requires {
  { C::shares_keys } -> std::convertible_to<bool>;
};

/// A cache policy that runs on backend B.
template <class C, class B>
concept CacheOn = CacheIsTagged<C> && CacheHasKeySource<C> && CacheSaysWhetherItShares<C> && Backend<B>;

}  // namespace mor
