// SPDX-License-Identifier: Apache-2.0
/// @file
/// A sharing strategy by its name in the configuration.
#pragma once

#include "mor/policy/sharing.hpp"

namespace examples {

/// The schedule of the strategy that the configuration names.
[[nodiscard]] inline mor::LayerSchedule named_schedule(mor::ModelConfig const& config) {
  switch (config.recursion.sharing) {
    case mor::SharingKind::None: return mor::NoSharing::schedule(config);
    case mor::SharingKind::Cycle: return mor::Cycle::schedule(config);
    case mor::SharingKind::MiddleCycle: return mor::MiddleCycle::schedule(config);
    case mor::SharingKind::Sequence: return mor::Sequence::schedule(config);
    case mor::SharingKind::MiddleSequence: return mor::MiddleSequence::schedule(config);
  }
  mor::fail(mor::ErrorCode::InvalidConfig, "unknown sharing strategy", "sharing");
}

}  // namespace examples
