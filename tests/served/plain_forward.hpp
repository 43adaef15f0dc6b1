// SPDX-License-Identifier: Apache-2.0
/// @file
/// A whole causal pass of a recursive model written out in double, token by token, from the weights and the depth knobs
/// alone (mor-spec sections 1 to 5): the oracle of what an engine serves. It shares no code with the library's passes.
#pragma once

#include "served/served.hpp"

#include <vector>

namespace mor::test {

/// What decides how deep tokens go.
struct PlainRules {
  infer::DepthKnobs knobs;
  RoutingMode mode = RoutingMode::Threshold;
};

struct PlainPass {
  std::vector<Row> depths;                             ///< [tokens]
  std::vector<std::vector<double>> log_probabilities;  ///< [tokens][V] of the token after each
  /// How far the nearest decision of all tokens was from the other way: smaller than rounding errors, it proves
  /// nothing.
  double closest_decision = 1e300;
};

PlainPass plain_forward(Served const& served, std::vector<Token> const& text, PlainRules const& rules);

}  // namespace mor::test
