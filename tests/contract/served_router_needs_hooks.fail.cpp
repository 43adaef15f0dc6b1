// SPDX-License-Identifier: Apache-2.0
// A router of one's own can be trained with select alone; to be served it needs its row-by-row form too.
// expected-error: this router has no serve_enter and serve_step for rows of mixed depth
#include "mor/backend/host/backend.hpp"
#include "mor/infer/engine.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/all_tokens.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/sharing.hpp"

struct MyRouter : mor::RouterBase {
  template <class B, class S>
  mor::ActiveSet<typename B::real_type> select(mor::RouterContext<B>&, S&, mor::Index,
                                               mor::ActiveSet<typename B::real_type> const& candidates) const {
    return candidates;
  }
};
using Net = mor::RecursiveTransformer<MyRouter, mor::RecursionWiseCache, mor::Cycle, mor::host::Backend<float>>;
using Engine = mor::infer::Engine<Net>;

bool run(Engine const& engine) {
  return engine.idle();
}
