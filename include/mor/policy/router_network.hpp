// SPDX-License-Identifier: Apache-2.0
/// @file
/// The scoring network of a router, bias-free (mor-spec 3.1): `linear` z = w.x, `mlp` z = W2 gelu(W1 x) with 2D hidden
/// units, exact GELU. `wide_mlp` is the same as `mlp`: the paper says 4D, the released models have 2D.
#pragma once

#include "mor/contract/router.hpp"

namespace mor {

/// The network that `RecursionConfig::router_network` names.
struct ConfiguredNetwork {
  /// Parameter indices of one network.
  struct Weights {
    RouterNetwork kind = RouterNetwork::Linear;
    Index first = 0;   ///< linear map, or W1
    Index second = 0;  ///< W2
  };

  /// What the backward pass reads.
  template <class B>
  struct Activations {
    View<typename B::scalar_type> input;      ///< [N, D]
    View<typename B::scalar_type> hidden;     ///< [N, 2D] before GELU
    View<typename B::scalar_type> activated;  ///< [N, 2D]
  };

  /// Declares `{prefix}.router.weight` [outputs, D], or `.router.0.weight` [2D, D] and `.router.2.weight` [outputs, 2D].
  static Weights declare(ModelConfig const& config, std::string const& prefix, Index outputs, ParameterGroup group,
                         ParameterLayout& layout) {
    Index const width = config.transformer.hidden_size;
    RouterNetwork const kind = config.recursion.router_network;
    if (kind == RouterNetwork::Linear) {
      return {kind, layout.add_matrix(prefix + ".router.weight", outputs, width, group), 0};
    }
    Index const first = layout.add_matrix(prefix + ".router.0.weight", 2 * width, width, group);
    return {kind, first, layout.add_matrix(prefix + ".router.2.weight", outputs, 2 * width, group)};
  }

  /// logits [N, outputs] = network(input / temperature).
  template <class B>
  static Activations<B> forward(RouterContext<B>& context, Weights const& weights, View<typename B::scalar_type> input,
                                View<typename B::real_type> logits) {
    B& b = context.backend;
    double const scale = 1.0 / context.recursion.temperature;
    auto const first = context.parameters.weight(weights.first);
    if (weights.kind == RouterNetwork::Linear) {
      b.linear_logits(input, first, scale, logits);
      return {input, {}, {}};
    }
    using Scalar = typename B::scalar_type;
    Activations<B> saved{input, b.arena().template matrix<Scalar>(input.rows, first.rows),
                         b.arena().template matrix<Scalar>(input.rows, first.rows)};
    b.linear(input, first, saved.hidden);
    b.gelu(saved.hidden, scale, saved.activated);
    b.linear_logits(saved.activated, context.parameters.weight(weights.second), 1.0, logits);
    return saved;
  }

  /// Accumulates the weights' gradients and, where `d_input` is not empty, the input's.
  template <class B>
  static void backward(RouterContext<B>& context, Weights const& weights, Activations<B> const& saved,
                       View<typename B::real_type const> d_logits, View<typename B::scalar_type> d_input) {
    B& b = context.backend;
    double const scale = 1.0 / context.recursion.temperature;
    auto const& parameters = context.parameters;
    if (weights.kind == RouterNetwork::Linear) {
      b.linear_logits_backward(d_logits, saved.input, parameters.weight(weights.first), scale, d_input,
                               parameters.gradient(weights.first));
      return;
    }
    auto const mark = b.arena().mark();
    auto d_activated = b.arena().template matrix<typename B::scalar_type>(saved.hidden.rows, saved.hidden.cols);
    auto d_hidden = b.arena().template matrix<typename B::scalar_type>(saved.hidden.rows, saved.hidden.cols);
    b.fill(d_activated, 0.0);
    b.linear_logits_backward(d_logits, saved.activated, parameters.weight(weights.second), 1.0, d_activated,
                             parameters.gradient(weights.second));
    b.gelu_backward(d_activated, saved.hidden, scale, d_hidden);
    b.linear_backward_weight(d_hidden, saved.input, parameters.gradient(weights.first));
    if (!d_input.empty()) b.linear_backward_input(d_hidden, parameters.weight(weights.first), true, d_input);
    b.arena().release(mark);
  }
};

}  // namespace mor
