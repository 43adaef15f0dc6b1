// SPDX-License-Identifier: Apache-2.0
/// @file
/// Arena bytes that a verb of the host backend takes while it runs, from the shapes of a traced operation: given as
/// `trace::Options::scratch_bytes`, the trace predicts the host's arena exactly.
#pragma once

#include "mor/backend/host/attention.hpp"
#include "mor/backend/host/attention_backward.hpp"
#include "mor/backend/host/context.hpp"
#include "mor/backend/host/gemm.hpp"
#include "mor/backend/host/head.hpp"
#include "mor/backend/host/parallel.hpp"
#include "mor/backend/host/routing.hpp"
#include "mor/core/memory.hpp"
#include "mor/math/ordering.hpp"

#include <algorithm>
#include <string_view>

namespace mor::host {

/// For `Backend<T>` with this number of threads. An operation has a `name`, `shapes` with `rows` and `cols`, in the order
/// of the verb's arguments, and the `page_size` of an attention, as `trace::Operation` does.
template <class T>
class ScratchSize {
 public:
  explicit ScratchSize(int threads) : threads_(threads) {}

  template <class Operation>
  [[nodiscard]] Index operator()(Operation const& operation) const {
    std::string_view const name = operation.name;
    auto const& s = operation.shapes;
    if (s.empty() || s[0].rows == 0 || s[0].cols == 0) return 0;
    if (name == "linear" || name == "linear_residual") return product(s[0].rows, s[1].rows, s[0].cols);
    if (name == "linear_backward_input") return product(s[0].rows, s[1].cols, s[0].cols);
    if (name == "linear_backward_weight") return product(s[0].cols, s[1].cols, s[0].rows);
    if (name == "linear_logits") return s[1].rows > 4 ? product(s[0].rows, s[1].rows, s[0].cols) : 0;
    if (name == "linear_logits_backward") {
      Index const input = s[3].rows > 0 && s[2].rows > 4 ? product(s[0].rows, s[2].cols, s[2].rows) : 0;
      return std::max(product(s[0].cols, s[1].cols, s[0].rows), input);
    }
    if (name == "rms_norm_backward") return elements(divide_up(s[1].rows, 64) * round_up(s[1].cols, 64));
    if (name == "attention") {
      return room<Index>(s[3].rows + 1) +
             elements(detail::AttentionForward<T>::scratch_elements(sizes(s[0], s[1], s[5]), operation.page_size) *
                      threads_);
    }
    if (name == "attention_backward") {
      return elements(detail::AttentionBackward<T>::scratch_elements(sizes(s[0], s[1], s[5])) * threads_);
    }
    if (name == "head_loss" || name == "head_loss_backward") return head(s[0], s[1].rows, name == "head_loss_backward");
    if (name == "sum" || name == "add_squares" || name == "add_loss") return sum(s[0].rows);
    if (name == "router_bce" || name == "z_loss") return elements(s[0].rows) + sum(s[0].rows);
    if (name == "balance_loss") return sum(s[0].rows);
    if (name == "sample") {
      Index const rooms = std::min<Index>(threads_, s[0].rows);
      return elements(rooms * s[0].cols) + room<Token>(rooms * s[0].cols);
    }
    if (name == "select_top_k") return room<detail::Ranked<decltype(math::ordered_key(T(0)))>>(s[0].rows);
    return 0;
  }

 private:
  template <class U>
  [[nodiscard]] static Index room(Index count) {
    return ::mor::detail::aligned(count * static_cast<Index>(sizeof(U)));
  }
  [[nodiscard]] static Index elements(Index count) { return room<T>(count); }
  [[nodiscard]] static Index sum(Index count) {
    Index const parts = divide_up(count, 8192);
    return parts > 1 ? room<double>(parts) : 0;
  }
  /// [rows, depth] times [depth, cols].
  [[nodiscard]] Index product(Index rows, Index cols, Index depth) const {
    using Tile = TileShape<T>;
    if (rows == 0 || cols == 0 || depth == 0) return 0;
    if (rows <= 48) {
      return elements(round_up(rows, Tile::rows) * depth) + elements(Tile::cols * Tile::depth * threads_);
    }
    detail::Blocking<T> const block(rows, cols, depth, threads_);
    return elements(std::min(block.depth, depth) * block.cols) + elements(block.rows * Tile::depth * threads_);
  }
  template <class Shape>
  [[nodiscard]] static detail::AttentionSizes<T> sizes(Shape const& q, Shape const& k, Shape const& lse) {
    Index const head_dim = q.cols / lse.cols;
    return detail::AttentionSizes<T>(AttentionShape{lse.cols, k.cols / head_dim, head_dim, 1.0});
  }
  template <class Shape>
  [[nodiscard]] Index head(Shape const& x, Index vocabulary, bool backward) const {
    Index const group = detail::head_rows<T>(x.rows, vocabulary);
    Index most = 0;
    for (Index const count : {std::min(group, x.rows), x.rows % group}) {
      most = std::max(most, product(count, vocabulary, x.cols));
      if (!backward) continue;
      most = std::max({most, product(count, x.cols, vocabulary), product(vocabulary, x.cols, count)});
    }
    return elements(group * vocabulary) + most;
  }

  int threads_;
};

}  // namespace mor::host
