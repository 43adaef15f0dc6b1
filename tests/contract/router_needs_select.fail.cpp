// SPDX-License-Identifier: Apache-2.0
// A router of one's own needs one function: select.
// expected-error: the first argument is not a router on this backend
// expected-error: select\(context, state, step, candidates\)
// expected-error(gcc): the required expression 'router.select
// expected-error(clang): RouterSelects
#include "mor/backend/trace/backend.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/all_tokens.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/expert_choice.hpp"
#include "mor/policy/sharing.hpp"
#include "mor/policy/token_choice.hpp"

using Trace = mor::trace::Backend<float, float>;
struct MyRouter : mor::RouterBase {
  template <class B, class S>
  mor::ActiveSet<typename B::real_type> choose(mor::RouterContext<B>&, S&, mor::Index,
                                              mor::ActiveSet<typename B::real_type> const& candidates) const {
    return candidates;
  }
};
using Net = mor::RecursiveTransformer<MyRouter, mor::RecursionWiseCache, mor::Cycle, Trace>;

void run(Trace& backend) { Net net(backend, mor::ModelConfig{}); }
