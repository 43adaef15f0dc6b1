// SPDX-License-Identifier: Apache-2.0
/// @file
/// The trace's verbs for the layers of a Transformer: dense products, pointwise layers, attention, head and loss.
#pragma once

#include "mor/backend/trace/row_verbs.hpp"
#include "mor/core/active_set.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <cmath>
#include <span>
#include <string_view>

namespace mor::trace {

/// Verbs of BackendLinear, BackendPointwise, BackendAttention and BackendHead; what each does is in the contract.
template <class Scalar, class Real>
class LayerVerbs : public RowVerbs<Scalar, Real> {
  using Base = RowVerbs<Scalar, Real>;

 public:
  using Base::Base;

  void linear(View<Scalar const> x, View<Scalar const> w, View<Scalar> out) {
    check_product("linear", x, w, out);
    log("linear", {shape(x), shape(w), shape(out)}, {bytes(x, w), bytes(out), product(x, w.rows), true});
  }
  void linear_residual(View<Scalar const> x, View<Scalar const> w, View<Scalar const> residual, View<Scalar> out) {
    check_product("linear_residual", x, w, out);
    check_same("linear_residual", residual, out);
    log("linear_residual", {shape(x), shape(w), shape(residual), shape(out)},
        {bytes(x, w, residual), bytes(out), product(x, w.rows), true});
  }
  void linear_backward_input(View<Scalar const> d_out, View<Scalar const> w, bool accumulate, View<Scalar> d_x) {
    check_product("linear_backward_input", d_x, w, d_out);
    log("linear_backward_input", {shape(d_out), shape(w), shape(d_x)},
        {bytes(d_out, w) + (accumulate ? bytes(d_x) : 0), bytes(d_x), product(d_out, w.cols), true});
  }
  void linear_backward_weight(View<Scalar const> d_out, View<Scalar const> x, View<Real> d_w) {
    check_product("linear_backward_weight", x, d_w, d_out);
    log("linear_backward_weight", {shape(d_out), shape(x), shape(d_w)},
        {bytes(d_out, x, d_w), bytes(d_w), product(d_out, x.cols), true});
  }
  void linear_logits(View<Scalar const> x, View<Scalar const> w, double, View<Real> out) {
    check_product("linear_logits", x, w, out);
    log("linear_logits", {shape(x), shape(w), shape(out)}, {bytes(x, w), bytes(out), product(x, w.rows), true});
  }
  void linear_logits_backward(View<Real const> d_out, View<Scalar const> x, View<Scalar const> w, double,
                              View<Scalar> d_x, View<Real> d_w) {
    check_product("linear_logits_backward", x, w, d_out);
    check_same("linear_logits_backward", w, d_w);
    if (!d_x.empty()) check_same("linear_logits_backward", x, d_x);
    log("linear_logits_backward", {shape(d_out), shape(x), shape(w), shape(d_x), shape(d_w)},
        {bytes(d_out) + bytes(x) + (d_x.empty() ? 0 : bytes(w, d_x)) + bytes(d_w), bytes(d_x) + bytes(d_w),
         (d_x.empty() ? 1 : 2) * product(x, w.rows), true},
        x.rows == 0);
  }

  void rms_norm(View<Scalar const> x, std::span<Scalar const> w, double, View<Scalar> out, std::span<Real> rstd) {
    check_same("rms_norm", x, out);
    check_norm("rms_norm", x, w, count(rstd));
    // An element: square and add 2, two multiplications. A row: mean, epsilon, root, reciprocal.
    log("rms_norm", {shape(x), shape(w), shape(out), shape(rstd)},
        {bytes(x) + bytes(w), bytes(out) + bytes(rstd), 4 * x.size() + 4 * x.rows}, x.empty());
  }
  void rms_norm_backward(View<Scalar const> d_out, View<Scalar const> x, std::span<Scalar const> w,
                         std::span<Real const> rstd, View<Scalar> d_x, std::span<Real> d_w) {
    check_same("rms_norm_backward", x, d_out);
    check_same("rms_norm_backward", x, d_x);
    check_norm("rms_norm_backward", x, w, count(rstd));
    check("rms_norm_backward", "the lengths of w and d_w", count(w), count(d_w));
    // An element: normalised x 1, weighted gradient 1, their dot product 2, d_w 2, d_x 4.
    log("rms_norm_backward", {shape(d_out), shape(x), shape(w), shape(rstd), shape(d_x), shape(d_w)},
        {bytes(d_out, x) + bytes(w) + bytes(rstd) + bytes(d_x) + bytes(d_w), bytes(d_x) + bytes(d_w),
         10 * x.size() + x.rows});
  }
  void rope(std::span<Row const> positions, Index head_dim, double, Rotation, View<Scalar> x) {
    check("rope", "the rows of positions and x", x.rows, count(positions));
    check("rope", "the columns of x and a multiple of head_dim", head_dim > 0 ? x.cols / head_dim * head_dim : -1,
          x.cols);
    // Four products and two sums a pair; the angles are a table.
    log("rope", {shape(positions), shape(x)}, {bytes(positions) + bytes(x), bytes(x), 3 * x.size()});
  }
  void swiglu(View<Scalar const> gate_up, View<Scalar> out) {
    check_rows("swiglu", out.rows, 2 * out.cols, gate_up);
    // exp, add, divide, times gate, times up.
    log("swiglu", {shape(gate_up), shape(out)}, {bytes(gate_up), bytes(out), 5 * out.size()});
  }
  void swiglu_backward(View<Scalar const> d_out, View<Scalar const> gate_up, View<Scalar> d_gate_up, View<Scalar> out) {
    check_rows("swiglu_backward", d_out.rows, 2 * d_out.cols, gate_up);
    check_same("swiglu_backward", gate_up, d_gate_up);
    if (!out.empty()) check_same("swiglu_backward", d_out, out);
    // Sigmoid 3, silu 1, its derivative 4, d_up 1, d_gate 2.
    log("swiglu_backward", {shape(d_out), shape(gate_up), shape(d_gate_up), shape(out)},
        {bytes(d_out, gate_up), bytes(d_gate_up, out), 11 * d_out.size() + out.size()});
  }
  void gelu(View<Scalar const> x, double, View<Scalar> out) {
    check_same("gelu", x, out);
    // Scale, divide by the root of two, erf, add, halve, multiply.
    log("gelu", {shape(x), shape(out)}, {bytes(x), bytes(out), 6 * out.size()});
  }
  void gelu_backward(View<Scalar const> d_out, View<Scalar const> x, double, View<Scalar> d_x) {
    check_same("gelu_backward", x, d_out);
    check_same("gelu_backward", x, d_x);
    // Distribution 5, density 4, derivative 2, chain rule 2.
    log("gelu_backward", {shape(d_out), shape(x), shape(d_x)}, {bytes(d_out, x), bytes(d_x), 13 * d_x.size()});
  }

  void attention(View<Scalar const> q, View<Scalar const> k, View<Scalar const> v, KeyList const& keys,
                 AttentionShape const& shape_of_heads, View<Scalar> out, View<Real> lse) {
    check_attention("attention", q, k, v, keys, shape_of_heads);
    check_same("attention", q, out);
    check_rows("attention", q.rows, shape_of_heads.num_heads, lse);
    auto const visible = known().visible(keys);
    Index const read = bytes(q) + key_bytes(visible, k) + key_bytes(visible, v) + list_bytes(keys);
    log("attention", {shape(q), shape(k), shape(v), {keys.num_sequences, keys.max_limit}, shape(out), shape(lse)},
        {read, bytes(out) + bytes(lse), flops_of(visible, q), true}, q.empty(), keys);
  }
  void attention_backward(View<Scalar const> q, View<Scalar const> k, View<Scalar const> v, KeyList const& keys,
                          AttentionShape const& shape_of_heads, View<Scalar const> out, View<Real const> lse,
                          View<Scalar const> d_out, View<Scalar> d_q, View<Scalar> d_k, View<Scalar> d_v) {
    check_attention("attention_backward", q, k, v, keys, shape_of_heads);
    check_rows("attention_backward", q.rows, shape_of_heads.num_heads, lse);
    check_same("attention_backward", q, out);
    check_same("attention_backward", q, d_out);
    check_same("attention_backward", q, d_q);
    check_same("attention_backward", k, d_k);
    check_same("attention_backward", v, d_v);
    auto const visible = known().visible(keys);
    Index const key_traffic = key_bytes(visible, k) + key_bytes(visible, v);
    log("attention_backward",
        {shape(q), shape(k), shape(v), {keys.num_sequences, keys.max_limit}, shape(out), shape(lse), shape(d_out),
         shape(d_q), shape(d_k), shape(d_v)},
        {bytes(q, out, d_out) + bytes(lse) + 2 * key_traffic + list_bytes(keys), bytes(d_q) + key_traffic,
         5 * flops_of(visible, q) / 2, true},
        q.empty(), keys);
  }
  void causal_limits(std::span<Row const> set_offsets, std::span<Row const> rows, std::span<Row const> batch_offsets,
                     std::span<Row const> base, std::span<Row> limits) {
    check_optional("causal_limits", "the lengths of rows and limits", count(limits), count(rows));
    if (!rows.empty()) {
      check("causal_limits", "the lengths of set_offsets and batch_offsets", count(set_offsets), count(batch_offsets));
    }
    check_optional("causal_limits", "the lengths of base and set_offsets less one", count(set_offsets) - 1,
                   count(base));
    if (auto const offsets = known().upload(set_offsets)) {
      check("causal_limits", "the length of limits and the last offset", offsets->back(), count(limits));
    }
    known().set_limits(set_offsets, rows, batch_offsets, base, limits);
    Index const read = bytes(set_offsets, rows, base) + (rows.empty() ? 0 : bytes(batch_offsets));
    log("causal_limits", {shape(set_offsets), shape(rows), shape(batch_offsets), shape(base), shape(limits)},
        {read, bytes(limits), 0}, limits.empty());
  }
  void write_keys(View<Scalar const> x, KeyList const& keys, View<Scalar> storage) {
    check("write_keys", "the rows of x and the queries", keys.num_queries, x.rows);
    check("write_keys", "the columns of x and storage", storage.cols, x.cols);
    log("write_keys", {shape(x), {keys.num_sequences, keys.max_limit}, shape(storage)},
        {bytes(x) + list_bytes(keys), bytes(x), 0}, x.empty());
  }

  void head_loss(View<Scalar const> x, View<Scalar const> w, std::span<Token const> targets, std::span<Real> losses) {
    check_head("head_loss", x, w, targets, losses);
    log("head_loss", {shape(x), shape(w), shape(targets), shape(losses)},
        {bytes(x, w) + bytes(targets), bytes(losses), product(x, w.rows), true});
  }
  void head_loss_backward(View<Scalar const> x, View<Scalar const> w, std::span<Token const> targets, double,
                          std::span<Real> losses, View<Scalar> d_x, View<Real> d_w) {
    check_head("head_loss_backward", x, w, targets, losses);
    check_same("head_loss_backward", x, d_x);
    check_same("head_loss_backward", w, d_w);
    log("head_loss_backward", {shape(x), shape(w), shape(targets), shape(losses), shape(d_x), shape(d_w)},
        {bytes(x, w) + bytes(targets) + bytes(d_w), bytes(losses) + bytes(d_x) + bytes(d_w), 3 * product(x, w.rows),
         true});
  }
  /// Always 0.
  [[nodiscard]] double sum(std::span<Real const> x) {
    log("sum", {shape(x)}, {bytes(x), 0, count(x)});
    return 0.0;
  }

 protected:
  using Base::bytes;
  using Base::check;
  using Base::check_optional;
  using Base::check_rows;
  using Base::check_same;
  using Base::count;
  using Base::known;
  using Base::log;
  using Base::shape;

 private:
  /// FLOPs of x [N, K] times a matrix [K, columns].
  template <class T>
  [[nodiscard]] static Index product(View<T> x, Index columns) {
    return 2 * x.rows * x.cols * columns;
  }
  template <class T, class U, class V>
  static void check_product(std::string_view verb, View<T> x, View<U> w, View<V> out) {
    check(verb, "the columns of x and w", w.cols, x.cols);
    check_rows(verb, x.rows, w.rows, out);
  }
  static void check_norm(std::string_view verb, View<Scalar const> x, std::span<Scalar const> w, Index rstd) {
    check(verb, "the columns of x and the length of w", x.cols, count(w));
    check_optional(verb, "the rows of x and the length of rstd", x.rows, rstd);
  }
  static void check_head(std::string_view verb, View<Scalar const> x, View<Scalar const> w,
                         std::span<Token const> targets, std::span<Real const> losses) {
    check(verb, "the columns of x and w", w.cols, x.cols);
    check(verb, "the rows of x and the targets", x.rows, count(targets));
    check(verb, "the rows of x and the losses", x.rows, count(losses));
  }
  static void check_attention(std::string_view verb, View<Scalar const> q, View<Scalar const> k, View<Scalar const> v,
                              KeyList const& keys, AttentionShape const& heads) {
    check(verb, "the columns of q and heads times head_dim", heads.num_heads * heads.head_dim, q.cols);
    check(verb, "the columns of k and key/value heads times head_dim", heads.num_kv_heads * heads.head_dim, k.cols);
    check_same(verb, k, v);
    check(verb, "the rows of q and the queries", keys.num_queries, q.rows);
    check(verb, "the queries and the limits", keys.num_queries, count(keys.limits));
    if (q.empty()) return;
    check(verb, "the sequences and the query offsets less one", keys.num_sequences, count(keys.host_query_offsets) - 1);
    check(verb, "the queries and the last query offset", keys.num_queries, keys.host_query_offsets.back());
  }
  [[nodiscard]] static Index flops_of(VisibleKeys const& visible, View<Scalar const> q) {
    return static_cast<Index>(std::llround(4.0 * visible.scores * static_cast<double>(q.cols)));
  }
  template <class T>
  [[nodiscard]] static Index key_bytes(VisibleKeys const& visible, View<T> k) {
    return Base::row_bytes(static_cast<Index>(std::llround(visible.keys)), k);
  }
  [[nodiscard]] static Index list_bytes(KeyList const& keys) {
    return bytes(keys.query_offsets, keys.key_begin, keys.limits);
  }
};

}  // namespace mor::trace
