// SPDX-License-Identifier: Apache-2.0
/// @file
/// One decoder layer on rows of many requests: the arithmetic of `DecoderLayer::forward`, in verbs that read each weight
/// once for a few rows.
#pragma once

#include "mor/contract/serving.hpp"
#include "mor/model/decoder_layer.hpp"

#include <span>

namespace mor::infer {

/// Keys of one layer: what the rows see, and where their own keys go.
template <class B>
struct ServedKeys {
  KeyList read;
  bool project = true;              ///< some rows write keys
  KeyList write;                    ///< rows with limit 0 do not
  std::span<KeyList const> copies;  ///< further lists of the same storage that get the keys too
  View<typename B::scalar_type> plane_k, plane_v;
};

/// out [N, D] = layer(x). Memory from the arena, given back.
template <class B>
void serve_layer(B& b, TransformerConfig const& config,
                 ParameterViews<typename B::scalar_type, typename B::real_type> const& views, LayerParameters const& p,
                 View<typename B::scalar_type> x, std::span<Row const> positions, ServedKeys<B> const& keys,
                 View<typename B::scalar_type> out) {
  using Scalar = typename B::scalar_type;
  using Real = typename B::real_type;
  Arena& arena = b.arena();
  auto const mark = arena.mark();
  Index const queries = config.query_size(), kv = config.key_value_size();
  auto const norm = views.weight_vector(p.input_norm);
  auto q = arena.matrix<Scalar>(x.rows, queries);
  if (!keys.project) {
    b.norm_linear(x, norm, config.rms_norm_eps, views.weight(p.q), q);
    b.rope(positions, config.head_dim, config.rope_theta, Rotation::Forward, q);
  } else if (keys.copies.empty()) {
    b.project_keys(x, norm, config.rms_norm_eps, views.fused_weight(p.q, 3), positions, config.head_dim, config.rope_theta,
                   keys.write, q, keys.plane_k, keys.plane_v);
  } else {
    auto const qkv = arena.matrix<Scalar>(x.rows, queries + 2 * kv);
    b.norm_linear(x, norm, config.rms_norm_eps, views.fused_weight(p.q, 3), qkv);
    b.rope(positions, config.head_dim, config.rope_theta, Rotation::Forward, qkv.columns(0, queries + kv));
    auto const write = [&](KeyList const& list) {
      b.write_keys(qkv.columns(queries, kv), list, keys.plane_k);
      b.write_keys(qkv.columns(queries + kv, kv), list, keys.plane_v);
    };
    write(keys.write);
    for (KeyList const& list : keys.copies) write(list);
    q = qkv.columns(0, queries);
  }
  auto const attended = arena.matrix<Scalar>(x.rows, queries);
  auto const lse = arena.matrix<Real>(x.rows, config.num_attention_heads);
  b.attention(q, keys.plane_k, keys.plane_v, keys.read, DecoderLayer<B>::shape(config), attended, lse);
  auto const mid = arena.matrix<Scalar>(x.rows, config.hidden_size);
  b.linear_residual(attended, views.weight(p.o), x, mid);
  auto const activated = arena.matrix<Scalar>(x.rows, config.intermediate_size);
  b.norm_swiglu(mid, views.weight_vector(p.post_attention_norm), config.rms_norm_eps, views.fused_weight(p.gate, 2), activated);
  b.linear_residual(activated, views.weight(p.down), mid, out);
  arena.release(mark);
}

}  // namespace mor::infer
