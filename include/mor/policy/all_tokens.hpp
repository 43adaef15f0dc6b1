// SPDX-License-Identifier: Apache-2.0
/// @file
/// `AllTokens`: no routing. With `NoSharing` it is the vanilla Transformer, with a sharing strategy the recursive one.
#pragma once

#include "mor/contract/serving_router.hpp"

namespace mor {

/// Every token takes every recursion; the block's output replaces the residual stream, ungated.
struct AllTokens : RouterBase {
  static constexpr RouterKind kind = RouterKind::AllTokens;
  static constexpr Horizon horizon = Horizon::Request;
  static constexpr LayerNaming naming = LayerNaming::Unrolled;
  static constexpr bool routes = false;

  AllTokens() = default;
  explicit AllTokens(RecursionConfig const&) {}

  template <class B, class S>
  ActiveSet<typename B::real_type> select(RouterContext<B>& context, S&, Index,
                                          ActiveSet<typename B::real_type> const&) const {
    return context.batch;
  }

  static constexpr bool keeps_entry = false;
  static constexpr bool passes_all = true;
};

}  // namespace mor
