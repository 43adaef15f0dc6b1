// SPDX-License-Identifier: Apache-2.0
/// @file
/// `AllTokens`: no routing. With `NoSharing` it is the vanilla Transformer, with a sharing strategy the recursive one.
#pragma once

#include "mor/contract/serving_router.hpp"

#include <limits>
#include <span>

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

  template <class B, class S>
  void serve_enter(RouterContext<B>&, S&, ServingRows const&, std::span<Row const>,
                   View<typename B::scalar_type const>, ServingBank<B> const&) const {}

  template <class B, class S>
  void serve_step(RouterContext<B>& context, S&, ServingRows const& rows, std::span<Row const>,
                  View<typename B::scalar_type const> y, ServingBank<B> const& bank,
                  std::span<typename B::real_type> scores) const {
    context.backend.scatter_rows(y, rows.cells, bank.hidden);
    context.backend.fill_values(std::numeric_limits<double>::infinity(), scores);
  }
};

}  // namespace mor
