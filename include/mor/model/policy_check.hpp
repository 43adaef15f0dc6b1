// SPDX-License-Identifier: Apache-2.0
/// @file
/// The compile-time checks of a list of policies, with a sentence for each way it can be wrong.
#pragma once

#include "mor/contract/cache.hpp"
#include "mor/contract/router.hpp"
#include "mor/contract/sharing.hpp"
#include "mor/model/recursive_model.hpp"

namespace mor::detail {

/// One sentence for each way a list of policies can be wrong. A base class of its own, so that the sentence comes before
/// anything that would follow from the mistake.
template <class Router, class Cache, class Sharing, class B>
struct PolicyCheck {
  static constexpr bool routes() {
    if constexpr (RouterHasTraits<Router>) return Router::routes;
    return false;
  }
  static constexpr bool reuses_block() {
    if constexpr (SharingSaysWhatItShares<Sharing>) return Sharing::reuses_block;
    return true;
  }
  static constexpr bool shares_keys() {
    if constexpr (CacheSaysWhetherItShares<Cache>) return Cache::shares_keys;
    return false;
  }
  static constexpr bool shares_layers() {
    if constexpr (SharingSaysWhatItShares<Sharing>) return Sharing::shares_layers;
    return true;
  }
  static constexpr bool first_use_projects() {
    if constexpr (CacheHasKeySource<Cache>) return Cache::key_source(0) == KeySource::OwnRows;
    return true;
  }
  static_assert(Backend<B>, "RecursiveTransformer: the fourth argument is not a backend (contract/backend.hpp).");
  static_assert(RouterOn<Router, B>,
                "RecursiveTransformer: the first argument is not a router on this backend. Derive it from mor::RouterBase "
                "and give it select(context, state, step, candidates) (docs/adding_a_router.md).");
  static_assert(CacheOn<Cache, B>,
                "RecursiveTransformer: the second argument is not a cache policy. It needs policy_kind = cache_tag, "
                "shares_keys and a constexpr key_source(use) (contract/cache.hpp).");
  static_assert(first_use_projects(),
                "RecursiveTransformer: a layer's first use must project its own keys: key_source(0) is KeySource::OwnRows.");
  static_assert(SharingStrategy<Sharing>,
                "RecursiveTransformer: the third argument is not a sharing strategy. It needs policy_kind = sharing_tag, "
                "schedule(config), reuses_block and shares_layers (contract/sharing.hpp).");
  static_assert(!routes() || reuses_block(),
                "RecursiveTransformer: a router decides how often a token runs one block, so it needs a sharing strategy "
                "that reuses one: Cycle or MiddleCycle. NoSharing, Sequence and MiddleSequence go with AllTokens.");
  static_assert(!shares_keys() || shares_layers(),
                "RecursiveTransformer: a cache that shares keys between layers needs layers that share weights. Use "
                "RecursionWiseCache with NoSharing.");
};

/// Keeps the compiler from instantiating a model after a failed `PolicyCheck`.
template <class Router, class Cache, class Sharing, class B>
struct ModelBase {
  struct Invalid {};
  using type = Invalid;
};
template <class Router, class Cache, class Sharing, class B>
  requires RouterOn<Router, B> && CacheOn<Cache, B> && SharingStrategy<Sharing>
struct ModelBase<Router, Cache, Sharing, B> {
  using type = RecursiveModel<Router, Cache, B>;
};

}  // namespace mor::detail
