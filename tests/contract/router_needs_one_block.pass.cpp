// SPDX-License-Identifier: Apache-2.0
// A router decides how often a token runs one block, so the block must be the same every time.
#include "mor/backend/trace/backend.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/all_tokens.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/expert_choice.hpp"
#include "mor/policy/sharing.hpp"
#include "mor/policy/token_choice.hpp"

using Trace = mor::trace::Backend<float, float>;
using Net = mor::RecursiveTransformer<mor::ExpertChoice<>, mor::RecursionWiseCache, mor::MiddleCycle, Trace>;

void run(Trace& backend) { Net net(backend, mor::ModelConfig{}); }
