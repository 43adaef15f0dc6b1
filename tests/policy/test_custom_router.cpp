// SPDX-License-Identifier: Apache-2.0
// Routers written outside the library (CoinFlip as docs/adding_a_router.md shows it) train and decode like the shipped ones.
#include "support/catch.hpp"
#include "support/tiny_models.hpp"

#include "mor/backend/host/backend.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/select_rows.hpp"
#include "mor/policy/sharing.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace acme {

/// Keeps every second token of those still active.
struct EveryOther : mor::RouterBase {
  template <class B>
  struct State {                                 // buffers and weights live here, not in the policy
    std::vector<std::vector<mor::Row>> offsets;  // one list a recursion, in host memory
  };

  template <class B, class S>
  mor::ActiveSet<typename B::real_type> select(mor::RouterContext<B>& context, S& state, mor::Index step,
                                               mor::ActiveSet<typename B::real_type> const& candidates) const {
    if (step == 0) return mor::keep_all(context, candidates);
    using Real = typename B::real_type;
    state.offsets.resize(static_cast<std::size_t>(context.recursion.num_recursions));
    auto& counts = state.offsets[static_cast<std::size_t>(step)];
    counts.assign(static_cast<std::size_t>(candidates.num_sequences) + 1, 0);
    for (std::size_t s = 0; s + 1 < counts.size(); ++s) {
      counts[s + 1] = (candidates.host_offsets[s + 1] - candidates.host_offsets[s] + 1) / 2;
    }
    auto scores = context.backend.arena().template matrix<Real>(candidates.num_rows, 1);
    context.backend.random_scores(7, static_cast<std::uint64_t>(step), candidates.positions, scores);
    return mor::keep_top_k(context, std::span<Real const>(mor::values(scores)), candidates, counts);
  }
};

/// Causal, with a threshold instead of a count: the token's own random number decides.
struct CoinFlip : mor::RouterBase {
  template <class B>
  struct State {
    std::vector<std::vector<mor::Row>> offsets;
  };

  template <class B, class S>
  mor::ActiveSet<typename B::real_type> select(mor::RouterContext<B>& context, S& state, mor::Index step,
                                               mor::ActiveSet<typename B::real_type> const& candidates) const {
    if (step == 0) return mor::keep_all(context, candidates);
    using Real = typename B::real_type;
    state.offsets.resize(static_cast<std::size_t>(context.recursion.num_recursions));
    auto scores = context.backend.arena().template matrix<Real>(candidates.num_rows, 1);
    context.backend.random_scores(11, static_cast<std::uint64_t>(step), candidates.positions, scores);
    return mor::keep_at_least(context, std::span<Real const>(mor::values(scores)), 0.5, candidates,
                              state.offsets[static_cast<std::size_t>(step)]);
  }
};

using Backend = mor::host::Backend<double>;
static_assert(mor::RouterOn<EveryOther, Backend>);
static_assert(mor::RouterOn<CoinFlip, Backend>);

}  // namespace acme

using namespace mor;

namespace {

ModelConfig config() {
  auto config = test::tiny_config(RouterKind::AllTokens, CacheKind::RecursionWise, SharingKind::MiddleCycle, 3, 1);
  config.transformer.vocab_size = 11;
  return config;
}

template <class Router, class Cache>
using Net = RecursiveTransformer<Router, Cache, MiddleCycle, acme::Backend>;

struct Text {
  std::vector<Token> tokens{3, 1, 4, 1, 5, 9, 2, 6};
  std::vector<Row> positions{0, 1, 2, 3, 4, 5, 6, 7}, offsets{0, 8};
  [[nodiscard]] Batch batch() const { return {tokens, positions, offsets}; }
};

}  // namespace

TEST_CASE("a router from outside halves the active tokens and its gradients agree with central differences") {
  acme::Backend backend;
  Net<acme::EveryOther, HybridCache> net(backend, config());
  net.initialize(1);
  net.parameters().enable_gradients();
  Text const text;
  std::vector<Token> const targets{1, 4, 1, 5, 9, 2, 6, -1};
  auto const objective = [&] {
    net.forward_backward(text.batch(), targets, {}, {});
    return net.report().loss_sum;
  };
  (void)objective();
  CHECK(net.active_rows(1).size() == 4);
  CHECK(net.active_rows(2).size() == 2);
  for (char const* name : {"model.layers.1.block.0.self_attn.k_proj.weight", "model.layers.0.mlp.up_proj.weight"}) {
    net.parameters().zero_gradients();
    (void)objective();
    double const analytic = net.parameters().read_gradient(name)[5];
    auto const original = net.parameters().read(name);
    auto const at = [&](double shift) {
      auto moved = original;
      moved[5] += shift;
      net.parameters().write(name, moved);
      return objective();
    };
    double const h = 1e-4;
    double const numeric = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h);
    net.parameters().write(name, original);
    CHECK(std::abs(analytic - numeric) < 1e-6 * std::max(std::abs(numeric), 1e-3));
  }
}

TEST_CASE("a causal router from outside decodes with a cache as its full forward does") {
  acme::Backend backend;
  Net<acme::CoinFlip, RecursionWiseCache> net(backend, config());
  net.initialize(2);
  Text const text;
  auto const view = net.forward(text.batch(), RoutingMode::Threshold);
  std::vector<double> const whole(view.data, view.data + view.size());
  auto const depths = net.depths();
  auto cache = net.make_cache(1, 8);
  for (Row i = 0; i < 8; ++i) {
    std::vector<Row> const position{i}, offsets{0, 1};
    Batch const one{std::span(text.tokens).subspan(static_cast<std::size_t>(i), 1), position, offsets};
    auto const logits = net.advance(one, cache, RoutingMode::Threshold);
    for (Index v = 0; v < 11; ++v) CHECK(std::abs(logits(0, v) - whole[static_cast<std::size_t>(i * 11 + v)]) < 1e-12);
    CHECK(net.depths().front() == depths[static_cast<std::size_t>(i)]);
  }
}
