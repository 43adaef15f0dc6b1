// SPDX-License-Identifier: Apache-2.0
// A router of one's own can be trained with select alone; to be served it needs its row-by-row form too, or says that it lets
// all tokens pass.
#include "mor/backend/host/backend.hpp"
#include "mor/infer/engine.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/all_tokens.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/sharing.hpp"

struct MyOpenRouter : mor::RouterBase {
  template <class B, class S>
  mor::ActiveSet<typename B::real_type> select(mor::RouterContext<B>&, S&, mor::Index,
                                               mor::ActiveSet<typename B::real_type> const& candidates) const {
    return candidates;
  }
  static constexpr bool keeps_entry = false;
  static constexpr bool passes_all = true;
};
struct MyRouter : MyOpenRouter {
  static constexpr bool passes_all = false;
  template <class B, class S>
  void serve_enter(mor::RouterContext<B>&, S&, mor::ServingRows const&, std::span<mor::Row const>,
                   mor::View<typename B::scalar_type const>, mor::ServingBank<B> const&) const {}
  template <class B, class S>
  void serve_step(mor::RouterContext<B>& context, S&, mor::ServingRows const& rows, std::span<mor::Row const>,
                  mor::View<typename B::scalar_type const> y, mor::ServingBank<B> const& bank,
                  std::span<typename B::real_type> scores) const {
    context.backend.scatter_rows(y, rows.cells, bank.hidden);
    context.backend.fill_values(1.0, scores);
  }
};
template <class Router>
using Net = mor::RecursiveTransformer<Router, mor::RecursionWiseCache, mor::Cycle, mor::host::Backend<float>>;

bool run(mor::infer::Engine<Net<MyRouter>> const& engine, mor::infer::Engine<Net<MyOpenRouter>> const& open_engine) {
  return engine.idle() && open_engine.idle();
}
