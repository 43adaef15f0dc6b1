// SPDX-License-Identifier: Apache-2.0
/// @file
/// The scalar part of an update of the weights: whether it is made, the clipping factors, the bias corrections. Once
/// for the host and for a device.
#pragma once

#include "mor/core/finite.hpp"
#include "mor/core/types.hpp"
#include "mor/core/update.hpp"

#include <cmath>

namespace mor::math {

/// Whether a loss or a gradient norm may change weights.
[[nodiscard]] MOR_HOST_DEVICE inline bool acceptable(double value, double largest) {
  return is_finite(value) && value <= largest && -value <= largest;
}

/// Closes what a group has collected. @return whether its norm is acceptable
template <class Real>
[[nodiscard]] MOR_HOST_DEVICE inline bool close_group(AdamwSettings const& settings, Real learning_rate,
                                                      GroupUpdate<Real>& group) {
  using std::sqrt;
  double const norm = sqrt(group.squares);
  bool const clips = settings.clip_norm > 0.0 && norm > settings.clip_norm;
  group.norm = norm;
  group.squares = 0.0;
  group.gradient_scale = static_cast<Real>(clips ? settings.clip_norm / norm : 1.0);
  group.learning_rate = learning_rate;
  return acceptable(norm, settings.largest_accepted);
}

/// Decides on the update whose loss and squared gradients `record` has collected, and starts collecting anew. An update
/// that is not made leaves the count of updates as it is.
template <class Real>
MOR_HOST_DEVICE inline void decide_update(AdamwSettings const& settings, Real learning_rate,
                                          UpdateRecord<Real>& record) {
  using std::pow;
  double const aux_rate = static_cast<double>(learning_rate) * settings.aux_router_learning_rate;
  bool const main_fits = close_group(settings, learning_rate, record.main);
  bool const aux_fits = close_group(settings, static_cast<Real>(aux_rate), record.aux_router);
  record.loss = record.collected_loss;
  record.collected_loss = 0.0;
  bool const fits = main_fits && aux_fits && acceptable(record.loss, settings.largest_accepted);
  record.applied = fits ? 1 : 0;
  if (!fits) {
    ++record.skipped;
    return;
  }
  auto const count = static_cast<double>(++record.updates);
  record.first_correction = static_cast<Real>(1.0 / (1.0 - pow(settings.beta1, count)));
  record.second_correction = static_cast<Real>(1.0 / (1.0 - pow(settings.beta2, count)));
}

}  // namespace mor::math
