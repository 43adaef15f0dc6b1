// SPDX-License-Identifier: Apache-2.0
// A scheduler of one's own says whether its rows go in step, whether they leave early, and by which rule they are taken.
// expected-error: the second argument is not a scheduler
// expected-error(gcc): the required expression 'scheduler\.rule\(\)' is invalid
// expected-error(clang): no member named 'rule' in 'MyScheduler'
#include "mor/backend/host/backend.hpp"
#include "mor/infer/engine.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/all_tokens.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/sharing.hpp"

struct MyScheduler {
  static constexpr bool lock_step = false;
  static constexpr bool full_depth = false;
};
using Net = mor::RecursiveTransformer<mor::AllTokens, mor::RecursionWiseCache, mor::Cycle, mor::host::Backend<float>>;
using Engine = mor::infer::Engine<Net, MyScheduler>;

bool run(Engine const& engine) {
  return engine.idle();
}
