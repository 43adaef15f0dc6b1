// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a router adds so that an engine can serve it: the same decisions as in `select`, made row by row where rows stand
/// at different depths.
#pragma once

#include "mor/contract/router.hpp"
#include "mor/contract/serving.hpp"

#include <concepts>
#include <span>

namespace mor {

/// What stays of every cell between ticks.
template <class B>
struct ServingBank {
  View<typename B::scalar_type> hidden;        ///< [cells, D] the residual stream
  View<typename B::scalar_type> entry;         ///< [cells, D] the stream at the first recursion's entry, where kept
  std::span<typename B::real_type> gate;       ///< [cells] weight of the next update
  std::span<typename B::real_type> choice;     ///< [cells] for routers that choose before the first recursion
};

/// `R::passes_all`, where it is there and true: the block's output is the new stream, and every token takes every recursion that
/// its request allows. Then neither function of `ServedRouter` is called or needed, and the layers write the stream themselves.
/// A router that derives from such a one and decides something sets it to false.
template <class R>
concept PassesAll = requires { requires R::passes_all; };

/// `R::keeps_entry`: the router reads `ServingBank::entry`.
/// `serve_enter(context, state, rows, order, x, bank)`: rows [N] come from the prelude with the stream x [N, D], which is already in
/// the bank: prepare their first recursion.
/// `serve_step(context, state, rows, order, y, bank, scores)`: joins the block's output y [N, D] to the bank, each row at its
/// own depth rows.depths[i], and says in scores [N] who goes on: a token takes recursion depths[i] + 1 where its score is
/// at least its request's threshold (0 unless set). `order` is 0, 1, 2, ... .
template <class R, class B>
concept ServedRouter =
    RouterOn<R, B> && requires {
      { R::keeps_entry } -> std::convertible_to<bool>;
    } && (PassesAll<R> || requires(R const router, RouterContext<B>& context, typename R::template State<B>& state,
                                   ServingRows const& rows, std::span<Row const> order, View<typename B::scalar_type> x,
                                   ServingBank<B> const& bank, std::span<typename B::real_type> scores) {
      router.serve_enter(context, state, rows, order, x, bank);
      router.serve_step(context, state, rows, order, x, bank, scores);
    });

}  // namespace mor
