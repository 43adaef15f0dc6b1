// SPDX-License-Identifier: Apache-2.0
// A cache policy of one's own says where each recursion's keys come from.
#include "mor/backend/trace/backend.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/all_tokens.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/expert_choice.hpp"
#include "mor/policy/sharing.hpp"
#include "mor/policy/token_choice.hpp"

using Trace = mor::trace::Backend<float, float>;
struct MyCache {
  using policy_kind = mor::cache_tag;
  static constexpr bool shares_keys = false;
  static constexpr mor::KeySource key_source(mor::Index) { return mor::KeySource::OwnRows; }
};
using Net = mor::RecursiveTransformer<mor::AllTokens, MyCache, mor::Cycle, Trace>;

void run(Trace& backend) { Net net(backend, mor::ModelConfig{}); }
