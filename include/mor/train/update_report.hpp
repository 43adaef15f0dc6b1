// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a host reads of an update of the weights once it has been made, or not.
#pragma once

#include "mor/core/finite.hpp"
#include "mor/core/types.hpp"
#include "mor/core/update.hpp"

namespace mor::train {

/// L2 norms of the accumulated gradient, before clipping. NaN and infinity are kept as they are.
struct GradientNorms {
  double main = 0.0;
  double aux_router = 0.0;
  [[nodiscard]] bool finite() const { return is_finite(main) && is_finite(aux_router); }
  /// The larger one; not finite unless both are.
  [[nodiscard]] double worst() const {
    if (!finite()) return main + aux_router;
    return main > aux_router ? main : aux_router;
  }
};

/// The last update of an optimizer.
struct UpdateReport {
  GradientNorms norms;
  double loss = 0.0;     ///< what the optimizer was given of it; 0 where nothing
  bool applied = false;  ///< false: weights, moments and the number of updates are as they were
  Index updates = 0;     ///< made so far
  Index skipped = 0;     ///< not made so far, since the optimizer began or was restored
  double largest_accepted = AdamwSettings{}.largest_accepted;  ///< by the rule that decided
};

}  // namespace mor::train
