// SPDX-License-Identifier: Apache-2.0
/// @file
/// Activation recompute: memory of a training step against arithmetic (Chen et al., "Training deep nets with sublinear
/// memory cost", 2016). Every level gives the same gradients, bit for bit: the same verbs run again on the same values.
#pragma once

#include "mor/core/config_text.hpp"

#include <array>
#include <string_view>

namespace mor {

/// What the backward pass computes again instead of reading it. Sizes are elements a token and layer: D hidden, F MLP width,
/// Q = H E queries, 2 K E keys and values.
enum class Recompute {
  None,       ///< nothing: keeps 4 D + 2 Q + 2 K E + 3 F
  Pointwise,  ///< norms and the activated MLP: keeps 2 D + 2 Q + 2 K E + 2 F; moves bytes, no matrix product
  Mlp         ///< the gate and up projections too: keeps 2 D + 2 Q + 2 K E; one more matrix product a layer
};

template <>
struct EnumNames<Recompute> {
  static constexpr std::string_view field = "recompute";
  static constexpr std::array<NamedValue<Recompute>, 3> values{
      {{Recompute::None, "none"}, {Recompute::Pointwise, "pointwise"}, {Recompute::Mlp, "mlp"}}};
};

}  // namespace mor
