// SPDX-License-Identifier: Apache-2.0
/// @file
/// One pre-norm Llama decoder layer on rows: x += Attention(RMSNorm(x)); x += SwiGLU(RMSNorm(x)) (mor-spec section 1).
#pragma once

#include "mor/contract/backend.hpp"
#include "mor/core/parameter_views.hpp"
#include "mor/model/recompute.hpp"

#include <cmath>
#include <string>

namespace mor {

/// Indices of one layer's tensors in the layout. q, k, v are adjacent, and so are gate, up: fused matrices.
struct LayerParameters {
  Index input_norm, q, k, v, o, post_attention_norm, gate, up, down;

  /// Declares the nine tensors under `prefix`, e.g. "model.layers.0.".
  static LayerParameters declare(TransformerConfig const& config, std::string const& prefix, ParameterLayout& layout) {
    LayerParameters p{};
    p.input_norm = layout.add_norm(prefix + "input_layernorm.weight", config.hidden_size);
    p.q = layout.add_matrix(prefix + "self_attn.q_proj.weight", config.query_size(), config.hidden_size);
    p.k = layout.add_matrix(prefix + "self_attn.k_proj.weight", config.key_value_size(), config.hidden_size);
    p.v = layout.add_matrix(prefix + "self_attn.v_proj.weight", config.key_value_size(), config.hidden_size);
    p.o = layout.add_matrix(prefix + "self_attn.o_proj.weight", config.hidden_size, config.query_size());
    p.post_attention_norm = layout.add_norm(prefix + "post_attention_layernorm.weight", config.hidden_size);
    p.gate = layout.add_matrix(prefix + "mlp.gate_proj.weight", config.intermediate_size, config.hidden_size);
    p.up = layout.add_matrix(prefix + "mlp.up_proj.weight", config.intermediate_size, config.hidden_size);
    p.down = layout.add_matrix(prefix + "mlp.down_proj.weight", config.hidden_size, config.intermediate_size);
    return p;
  }
};

/// Which keys a layer's attention reads, and whether the layer projects keys of its own.
template <class B>
struct LayerKeys {
  using Scalar = typename B::scalar_type;
  KeyList list;
  bool project = true;         ///< compute keys and values of these rows
  View<Scalar> plane_k, plane_v;  ///< (plane rows, K*E) storage to append to and read from; empty: own rows in place
};

/// What the backward pass reads; n rows. Empty where it is computed again.
template <class B>
struct LayerActivations {
  using Scalar = typename B::scalar_type;
  using Real = typename B::real_type;
  View<Scalar> x;          // (n, D) input
  View<Scalar> normed;     // (n, D) kept at Recompute::None
  View<Scalar> qkv;        // (n, (H + 2K) E) after RoPE; (n, H E) where keys are not projected
  View<Scalar> attended;   // (n, H E)
  View<Scalar> mid;        // (n, D) after attention
  View<Scalar> normed2;    // (n, D) kept at Recompute::None
  View<Scalar> gate_up;    // (n, 2F) kept below Recompute::Mlp
  View<Scalar> activated;  // (n, F) kept at Recompute::None
  std::span<Real> rstd, rstd2;  // (n)
  View<Real> lse;          // (n, H)
};

/// Gradient storage of keys and values that other rows or recursions read.
template <class B>
struct KeyGradients {
  using Scalar = typename B::scalar_type;
  View<Scalar> shared;                 ///< (batch rows, 2 K E): accumulates over the recursions that read these keys
  bool owner = false;                  ///< this layer projected them: `shared` joins its own gradient
  std::span<Row const> overlay_rows;   ///< active rows of an overlay layer; the others' gradient goes to `shared`
};

/// The layer's arithmetic. Stateless: weights come from the parameter views, memory from the backend's arena.
template <class B>
struct DecoderLayer {
  using Scalar = typename B::scalar_type;
  using Real = typename B::real_type;
  using Views = ParameterViews<Scalar, Real>;

  static AttentionShape shape(TransformerConfig const& config) {
    return {config.num_attention_heads, config.num_key_value_heads, config.head_dim,
            1.0 / std::sqrt(static_cast<double>(config.head_dim))};
  }

  /// out = layer(x). `saved` keeps what `recompute` does not leave to the backward pass; where its `qkv` is given, that
  /// memory is used.
  static void forward(B& b, TransformerConfig const& config, Views const& views, LayerParameters const& p,
                      View<Scalar> x, std::span<Row const> positions, LayerKeys<B> const& keys, Recompute recompute,
                      View<Scalar> out, LayerActivations<B>& saved) {
    Arena& arena = b.arena();
    Index const n = x.rows;
    Index const queries = config.query_size();
    Index const kv = config.key_value_size();
    saved.x = x;
    keep(arena, config, keys.project, recompute, saved);
    auto const mark = arena.mark();  // what is only passed on lies above what is kept
    auto const normed = kept_or_new(arena, saved.normed, n, config.hidden_size);
    b.rms_norm(x, views.weight_vector(p.input_norm), config.rms_norm_eps, normed, saved.rstd);
    b.linear(normed, views.fused_weight(p.q, keys.project ? 3 : 1), saved.qkv);
    arena.release(mark);
    auto const q = saved.qkv.columns(0, queries);
    // Queries and keys turn by the same angles, so one call covers both.
    b.rope(positions, config.head_dim, config.rope_theta, Rotation::Forward,
           saved.qkv.columns(0, queries + (keys.project ? kv : 0)));
    View<Scalar> k = keys.plane_k;
    View<Scalar> v = keys.plane_v;
    if (keys.project) {
      auto const own_k = saved.qkv.columns(queries, kv);
      auto const own_v = saved.qkv.columns(queries + kv, kv);
      if (k.data == nullptr) {
        k = own_k;
        v = own_v;
      } else {
        b.write_keys(own_k, keys.list, k);
        b.write_keys(own_v, keys.list, v);
      }
    }
    b.attention(q, k, v, keys.list, shape(config), saved.attended, saved.lse);
    b.linear_residual(saved.attended, views.weight(p.o), x, saved.mid);
    auto const normed2 = kept_or_new(arena, saved.normed2, n, config.hidden_size);
    auto const gate_up = kept_or_new(arena, saved.gate_up, n, 2 * config.intermediate_size);
    auto const activated = kept_or_new(arena, saved.activated, n, config.intermediate_size);
    b.rms_norm(saved.mid, views.weight_vector(p.post_attention_norm), config.rms_norm_eps, normed2, saved.rstd2);
    b.linear(normed2, views.fused_weight(p.gate, 2), gate_up);
    b.swiglu(gate_up, activated);
    b.linear_residual(activated, views.weight(p.down), saved.mid, out);
    arena.release(mark);
  }

  /// Turns `d` (n, D) from the gradient of the layer's output into that of its input; accumulates weight gradients.
  static void backward(B& b, TransformerConfig const& config, Views const& views, LayerParameters const& p,
                       std::span<Row const> positions, LayerKeys<B> const& keys, LayerActivations<B> const& saved,
                       KeyGradients<B> const& key_gradients, View<Scalar> d) {
    Arena& arena = b.arena();
    auto const mark = arena.mark();
    Index const n = d.rows;
    auto d_normed = arena.matrix<Scalar>(n, config.hidden_size);
    backward_mlp(b, config, views, p, saved, d_normed, d);

    Index const queries = config.query_size();
    Index const kv = config.key_value_size();
    auto d_attended = arena.matrix<Scalar>(n, queries);
    b.linear_backward_input(d, views.weight(p.o), false, d_attended);
    b.linear_backward_weight(d, saved.attended, views.gradient(p.o));
    auto d_qkv = arena.matrix<Scalar>(n, saved.qkv.cols);
    backward_attention(b, config, keys, saved, key_gradients, d_attended, d_qkv);
    b.rope(positions, config.head_dim, config.rope_theta, Rotation::Backward,
           d_qkv.columns(0, queries + (keys.project ? kv : 0)));
    Index const fused = keys.project ? 3 : 1;
    auto const normed = norm_again(b, config, saved.x, views.weight_vector(p.input_norm), saved.normed);
    b.linear_backward_weight(d_qkv, normed, views.fused_gradient(p.q, fused));
    b.linear_backward_input(d_qkv, views.fused_weight(p.q, fused), false, d_normed);
    b.rms_norm_backward(d_normed, saved.x, views.weight_vector(p.input_norm), saved.rstd, d,
                        views.gradient_vector(p.input_norm));
    arena.release(mark);
  }

 private:
  /// Memory for what the backward pass will read.
  static void keep(Arena& arena, TransformerConfig const& config, bool project, Recompute recompute,
                   LayerActivations<B>& saved) {
    Index const n = saved.x.rows;
    auto const matrix = [&](Index columns) { return arena.matrix<Scalar>(n, columns); };
    saved.rstd = arena.allocate<Real>(n);
    if (saved.qkv.empty()) saved.qkv = matrix(config.query_size() + (project ? 2 * config.key_value_size() : 0));
    saved.attended = matrix(config.query_size());
    saved.lse = arena.matrix<Real>(n, config.num_attention_heads);
    saved.mid = matrix(config.hidden_size);
    saved.rstd2 = arena.allocate<Real>(n);
    if (recompute != Recompute::Mlp) saved.gate_up = matrix(2 * config.intermediate_size);
    if (recompute != Recompute::None) return;
    saved.normed = matrix(config.hidden_size);
    saved.normed2 = matrix(config.hidden_size);
    saved.activated = matrix(config.intermediate_size);
  }

  static View<Scalar> kept_or_new(Arena& arena, View<Scalar> kept, Index rows, Index columns) {
    return kept.empty() ? arena.matrix<Scalar>(rows, columns) : kept;
  }

  /// The output of a norm: kept, or computed from `x` again.
  static View<Scalar> norm_again(B& b, TransformerConfig const& config, View<Scalar const> x,
                                 std::span<Scalar const> weights, View<Scalar> kept) {
    if (!kept.empty()) return kept;
    auto const normed = b.arena().template matrix<Scalar>(x.rows, x.cols);
    auto const again = b.arena().template allocate<Real>(x.rows);
    b.rms_norm(x, weights, config.rms_norm_eps, normed, again);
    return normed;
  }

  static void backward_mlp(B& b, TransformerConfig const& config, Views const& views, LayerParameters const& p,
                           LayerActivations<B> const& saved, View<Scalar> d_normed, View<Scalar> d) {
    Arena& arena = b.arena();
    auto const mark = arena.mark();
    Index const n = d.rows;
    auto const normed2 = norm_again(b, config, saved.mid, views.weight_vector(p.post_attention_norm), saved.normed2);
    auto const gate_up = kept_or_new(arena, saved.gate_up, n, 2 * config.intermediate_size);
    if (saved.gate_up.empty()) b.linear(normed2, views.fused_weight(p.gate, 2), gate_up);
    auto const d_activated = arena.matrix<Scalar>(n, config.intermediate_size);
    b.linear_backward_input(d, views.weight(p.down), false, d_activated);
    // What is read for the last time gives its memory to what follows from it.
    bool const again = saved.activated.empty();
    auto const d_gate_up = gate_up;
    b.swiglu_backward(d_activated, gate_up, d_gate_up, again ? d_activated : View<Scalar>{});
    b.linear_backward_weight(d, again ? d_activated : saved.activated, views.gradient(p.down));
    b.linear_backward_weight(d_gate_up, normed2, views.fused_gradient(p.gate, 2));
    b.linear_backward_input(d_gate_up, views.fused_weight(p.gate, 2), false, d_normed);
    b.rms_norm_backward(d_normed, saved.mid, views.weight_vector(p.post_attention_norm), saved.rstd2, d,
                        views.gradient_vector(p.post_attention_norm));
    arena.release(mark);
  }

  /// Gradients of queries, and of keys and values wherever they live.
  static void backward_attention(B& b, TransformerConfig const& config, LayerKeys<B> const& keys,
                                 LayerActivations<B> const& saved, KeyGradients<B> const& key_gradients,
                                 View<Scalar const> d_attended, View<Scalar> d_qkv) {
    Index const queries = config.query_size();
    Index const kv = config.key_value_size();
    auto const q = saved.qkv.columns(0, queries);
    auto const d_q = d_qkv.columns(0, queries);
    View<Scalar> const shared = key_gradients.shared;
    auto const run = [&](View<Scalar const> k, View<Scalar const> v, View<Scalar> d_k, View<Scalar> d_v) {
      b.attention_backward(q, k, v, keys.list, shape(config), saved.attended, saved.lse, d_attended, d_q, d_k, d_v);
    };
    if (!keys.project) {  // keys of another recursion
      run(keys.plane_k, keys.plane_v, shared.columns(0, kv), shared.columns(kv, kv));
      return;
    }
    auto const own = d_qkv.columns(queries, 2 * kv);
    if (keys.plane_k.data == nullptr) {  // keys of these rows, in place
      if (key_gradients.owner) {
        b.copy(shared, own);
      } else {
        b.fill(own, 0.0);
      }
      run(saved.qkv.columns(queries, kv), saved.qkv.columns(queries + kv, kv), own.columns(0, kv), own.columns(kv, kv));
      return;
    }
    // Overlay: active rows were written over a copy of the first recursion's keys.
    auto const mark = b.arena().mark();
    auto d_plane = b.arena().template matrix<Scalar>(keys.plane_k.rows, 2 * kv);
    b.fill(d_plane, 0.0);
    run(keys.plane_k, keys.plane_v, d_plane.columns(0, kv), d_plane.columns(kv, kv));
    b.gather_rows(d_plane, key_gradients.overlay_rows, own);
    b.zero_rows(key_gradients.overlay_rows, d_plane);
    b.add(d_plane, shared);
    b.arena().release(mark);
  }
};

}  // namespace mor
