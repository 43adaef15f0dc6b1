// SPDX-License-Identifier: Apache-2.0
// Policies are named in the order router, cache, sharing, backend.
// expected-error: the first argument is not a router on this backend
#include "mor/backend/trace/backend.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/all_tokens.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/expert_choice.hpp"
#include "mor/policy/sharing.hpp"
#include "mor/policy/token_choice.hpp"

using Trace = mor::trace::Backend<float, float>;
using Net = mor::RecursiveTransformer<mor::RecursionWiseCache, mor::AllTokens, mor::Cycle, Trace>;

void run(Trace& backend) { Net net(backend, mor::ModelConfig{}); }
