// SPDX-License-Identifier: Apache-2.0
/// @file
/// What updates of the weights are made with: the hyper-parameters, and the record that a backend keeps of them in its
/// own memory, so that no host has to read a number before the next step.
#pragma once

#include "mor/core/parameter_layout.hpp"
#include "mor/core/types.hpp"

namespace mor {

/// Hyper-parameters of AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019), of clipping and of
/// the rule that rejects an update. They stay fixed during a run.
struct AdamwSettings {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
  double clip_norm = 1.0;                  ///< 0: no clipping
  double aux_router_learning_rate = 10.0;  ///< factor on the learning rate of `ParameterGroup::AuxRouter`
  /// A finite loss or gradient norm beyond this is rejected too: a value that a bit error or an overflow on the way
  /// made, not one that training reaches.
  double largest_accepted = 1e20;
};

/// What a record knows of the parameters that are clipped together.
template <class Real>
struct GroupUpdate {
  double squares = 0.0;            ///< of the gradients so far, for the decision to come
  double norm = 0.0;               ///< of the gradient before clipping, at the last decision; NaN and infinity are kept
  Real gradient_scale = Real(1);   ///< the factor that clips
  Real learning_rate = Real(0);
};

/// One in the backend's memory for an optimizer. Verbs collect a step's loss and squared gradients in it, decide from
/// them whether the update is made and with what numbers, and read those when they make it.
template <class Real>
struct UpdateRecord {
  GroupUpdate<Real> main, aux_router;
  double collected_loss = 0.0;        ///< so far, for the decision to come
  double loss = 0.0;                  ///< at the last decision; 0 where none was given
  Real first_correction = Real(1);    ///< 1 / (1 - beta1^t)
  Real second_correction = Real(1);   ///< 1 / (1 - beta2^t)
  Row applied = 0;                    ///< whether the last decision was to make the update
  Index updates = 0;                  ///< made so far: t. One that was not made does not count
  Index skipped = 0;                  ///< decided against so far

  /// The part of a group that is trained: `Main` or `AuxRouter`.
  [[nodiscard]] MOR_HOST_DEVICE GroupUpdate<Real>& group(ParameterGroup which) {
    return which == ParameterGroup::AuxRouter ? aux_router : main;
  }
  [[nodiscard]] MOR_HOST_DEVICE GroupUpdate<Real> const& group(ParameterGroup which) const {
    return which == ParameterGroup::AuxRouter ? aux_router : main;
  }
};

}  // namespace mor
