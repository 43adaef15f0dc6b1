// SPDX-License-Identifier: Apache-2.0
// With Sequence sharing every recursion runs layers of its own: only a scheduler that keeps rows in step can serve it.
// expected-error: every recursion runs layers of its own, so rows of different depths cannot share a launch
// expected-error: Use FullDepthScheduler, or a model with Cycle or MiddleCycle
#include "mor/backend/host/backend.hpp"
#include "mor/infer/engine.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/all_tokens.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/sharing.hpp"

using Net =
    mor::RecursiveTransformer<mor::AllTokens, mor::RecursionWiseCache, mor::Sequence, mor::host::Backend<float>>;
using Engine = mor::infer::Engine<Net, mor::infer::TickScheduler>;

bool run(Engine const& engine) {
  return engine.idle();
}
