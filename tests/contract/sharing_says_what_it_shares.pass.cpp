// SPDX-License-Identifier: Apache-2.0
// A sharing strategy of one's own says whether layers share weights.
#include "mor/backend/trace/backend.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/all_tokens.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/expert_choice.hpp"
#include "mor/policy/sharing.hpp"
#include "mor/policy/token_choice.hpp"

using Trace = mor::trace::Backend<float, float>;
struct MySharing {
  using policy_kind = mor::sharing_tag;
  static constexpr bool reuses_block = true;
  static constexpr bool shares_layers = true;
  static mor::LayerSchedule schedule(mor::ModelConfig const& config) { return mor::Cycle::schedule(config); }
};
using Net = mor::RecursiveTransformer<mor::AllTokens, mor::RecursionWiseCache, MySharing, Trace>;

void run(Trace& backend) { Net net(backend, mor::ModelConfig{}); }
