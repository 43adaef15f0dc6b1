// SPDX-License-Identifier: Apache-2.0
/// @file
/// The shipped cache policies: which keys and values each recursion's attention reads (mor-spec section 5.1).
#pragma once

#include "mor/contract/cache.hpp"

namespace mor {

/// Each recursion attends among its own active tokens, with keys and values of that recursion. Throughput winner.
struct RecursionWiseCache {
  using policy_kind = cache_tag;
  static constexpr CacheKind kind = CacheKind::RecursionWise;
  static constexpr bool shares_keys = false;
  static constexpr KeySource key_source(Index /*use*/) { return KeySource::OwnRows; }
};

/// Every recursion attends to all tokens through the first recursion's keys and values; deeper recursions project
/// queries only. Memory winner.
struct SharedCache {
  using policy_kind = cache_tag;
  static constexpr CacheKind kind = CacheKind::Shared;
  static constexpr bool shares_keys = true;
  static constexpr KeySource key_source(Index use) {
    return use == 0 ? KeySource::OwnRows : KeySource::FirstUse;
  }
};

/// Every recursion attends to all tokens: active ones with fresh keys and values, the others with the first recursion's.
/// An ablation of the paper.
struct HybridCache {
  using policy_kind = cache_tag;
  static constexpr CacheKind kind = CacheKind::Hybrid;
  static constexpr bool shares_keys = true;
  static constexpr KeySource key_source(Index use) {
    return use == 0 ? KeySource::OwnRows : KeySource::Overlay;
  }
};

}  // namespace mor
