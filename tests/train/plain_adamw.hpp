// SPDX-License-Identifier: Apache-2.0
/// @file
/// Updates of the weights as plain loops in double, next to which the optimizer of every backend is tested.
#pragma once

#include "mor/core/parameter_layout.hpp"
#include "mor/core/types.hpp"
#include "mor/core/update.hpp"

#include <cmath>
#include <span>
#include <vector>

namespace mor::test {

/// Main tensors on both sides of an auxiliary router and of a frozen vector, of odd sizes.
inline ParameterLayout mixed_layout() {
  ParameterLayout layout;
  layout.add_matrix("first", 7, 13);
  layout.add_norm("norm", 5);
  layout.add_matrix("aux", 3, 11, ParameterGroup::AuxRouter);
  layout.add_frozen_vector("bias", 3);
  layout.add_matrix("last", 17, 3);
  return layout;
}

/// Weights and moments as plain loops give them.
struct PlainAdamw {
  ParameterLayout layout = mixed_layout();
  std::vector<double> w, m, v;

  explicit PlainAdamw(std::span<double const> weights) : w(weights.begin(), weights.end()), m(w.size()), v(w.size()) {}

  void step(std::vector<double> const& gradients, AdamwSettings const& settings, double rate, double t) {
    for (auto const group : {ParameterGroup::Main, ParameterGroup::AuxRouter}) {
      double squares = 0.0;
      for_each(group, [&](std::size_t i, bool) { squares += gradients[i] * gradients[i]; });
      double const norm = std::sqrt(squares), most = settings.clip_norm;
      double const scale = most > 0.0 && norm > most ? most / norm : 1.0;
      double const lr = rate * (group == ParameterGroup::Main ? 1.0 : settings.aux_router_learning_rate);
      for_each(group, [&](std::size_t i, bool decay) {
        double const g = scale * gradients[i];
        m[i] = settings.beta1 * m[i] + (1.0 - settings.beta1) * g;
        v[i] = settings.beta2 * v[i] + (1.0 - settings.beta2) * g * g;
        double const mean = m[i] / (1.0 - std::pow(settings.beta1, t));
        double const square = v[i] / (1.0 - std::pow(settings.beta2, t));
        w[i] -= lr * (mean / (std::sqrt(square) + settings.epsilon) + (decay ? settings.weight_decay : 0.0) * w[i]);
      });
    }
  }
  template <class F>
  void for_each(ParameterGroup group, F const& body) const {
    for (auto const& info : layout.all()) {
      if (info.group != group) continue;
      for (Index i = info.offset; i < info.offset + info.size(); ++i) body(static_cast<std::size_t>(i), info.decay);
    }
  }
};

}  // namespace mor::test
