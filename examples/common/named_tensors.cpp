// SPDX-License-Identifier: Apache-2.0
#include "common/named_tensors.hpp"

#include "mor/core/config_check.hpp"
#include "mor/model/declare_tensors.hpp"
#include "mor/policy/all_tokens.hpp"
#include "mor/policy/expert_choice.hpp"
#include "mor/policy/sharing.hpp"
#include "mor/policy/token_choice.hpp"

namespace examples {

mor::ModelTensors named_tensors(mor::ModelConfig const& config) {
  mor::check(config, "model");
  auto const& recursion = config.recursion;
  switch (config.recursion.router) {
    case mor::RouterKind::AllTokens:
      return mor::declare_tensors(config, mor::named_schedule(config), mor::AllTokens(recursion));
    case mor::RouterKind::ExpertChoice:
      return mor::declare_tensors(config, mor::named_schedule(config), mor::ExpertChoice<>(recursion));
    case mor::RouterKind::TokenChoice:
      return mor::declare_tensors(config, mor::named_schedule(config), mor::TokenChoice<>(recursion));
  }
  mor::fail(mor::ErrorCode::InvalidConfig, "unknown router", "router");
}

}  // namespace examples
