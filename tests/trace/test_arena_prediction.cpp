// SPDX-License-Identifier: Apache-2.0
// The trace predicts the arena that the host backend needs: to the byte where nothing depends on data.
#include "mor/backend/host/backend.hpp"
#include "mor/backend/trace/backend.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/all_tokens.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/expert_choice.hpp"
#include "mor/policy/sharing.hpp"
#include "mor/policy/token_choice.hpp"
#include "mor/train/adamw.hpp"

#include "support/catch.hpp"
#include "trace/host_scratch.hpp"
#include "trace/model_cases.hpp"

namespace trace = mor::trace;
using mor::Index;
using mor::ModelConfig;
using mor::MiddleCycle, mor::RecursionWiseCache, mor::SharedCache, mor::ExpertChoice, mor::TokenChoice;
using Trace = trace::Backend<float, float>;
using Host = mor::host::Backend<float>;

namespace {
/// Peaks of one step that `work` does with a model, traced and run; the run has exactly the predicted arena.
struct Peaks {
  Index predicted = 0, measured = 0, allocations = 0;
};

template <class Router, class Cache, class Sharing, class Work>
Peaks compare(ModelConfig const& config, Work const& work) {
  Peaks peaks;
  Host host(2);
  trace::Options options;
  options.scratch_bytes = mor::test::HostScratch<float>(host.threads());
  Trace traced(options);
  {
    mor::RecursiveTransformer<Router, Cache, Sharing, Trace> model(traced, config);
    work(model);
    peaks.predicted = traced.arena().peak_bytes();
  }
  mor::RecursiveTransformer<Router, Cache, Sharing, Host> model(host, config);
  model.initialize(7);
  host.arena().reserve(peaks.predicted);
  work(model);
  peaks.measured = host.arena().peak_bytes();
  peaks.allocations = host.arena().allocations();
  return peaks;
}

void check_exact(Peaks const& peaks) {
  CHECK(peaks.predicted > 0);
  CHECK(peaks.predicted == peaks.measured);
  CHECK(peaks.allocations == 1);
}

template <class Router, class Cache, class Sharing>
void check_all_work(ModelConfig const& config) {
  mor::test::Rows const rows({40, 75, 1}, config.transformer.vocab_size);
  mor::TrainingProgress progress;
  progress.balance_warmup_calls = 1;  // token choice: everything to full depth, as the trace assumes
  SECTION("training step") {
    check_exact(compare<Router, Cache, Sharing>(config, [&](auto& model) {
      model.parameters().enable_gradients();
      model.forward_backward(rows.batch(), rows.tokens, progress, {});
    }));
  }
  SECTION("forward") {
    check_exact(compare<Router, Cache, Sharing>(
        config, [&](auto& model) { model.loss(rows.batch(), rows.tokens, mor::RoutingMode::FullDepth); }));
  }
  SECTION("prefill and decode") {
    check_exact(compare<Router, Cache, Sharing>(config, [&](auto& model) {
      auto cache = model.make_cache(3, 100);
      model.advance(rows.batch(), cache, mor::RoutingMode::FullDepth);
      mor::test::Rows next({1, 1, 1}, config.transformer.vocab_size);
      next.positions = {40, 75, 1};
      model.advance(next.batch(), cache, mor::RoutingMode::FullDepth);
    }));
  }
}
}  // namespace

TEST_CASE("arena of vanilla and recursive models is predicted to the byte") {
  check_all_work<mor::AllTokens, RecursionWiseCache, MiddleCycle>(mor::test::small_recursive(3));
}

TEST_CASE("arena of expert-choice models is predicted to the byte") {
  auto config = mor::test::small_recursive(3);
  SECTION("recursion-wise cache") { check_all_work<ExpertChoice<>, RecursionWiseCache, MiddleCycle>(config); }
  SECTION("shared cache") { check_all_work<ExpertChoice<>, SharedCache, MiddleCycle>(config); }
  SECTION("hybrid cache, wide router, auxiliary router, z-loss") {
    config.recursion.router_network = mor::RouterNetwork::Mlp;
    config.recursion.sampling = mor::RouterSampling::AuxRouter;
    config.recursion.z_coefficient = 0.01;
    check_all_work<ExpertChoice<>, mor::HybridCache, MiddleCycle>(config);
  }
}

TEST_CASE("arena of token-choice models is predicted to the byte at full depth") {
  auto const config = mor::test::small_recursive(3);
  SECTION("recursion-wise cache") { check_all_work<TokenChoice<>, RecursionWiseCache, MiddleCycle>(config); }
  SECTION("shared cache") { check_all_work<TokenChoice<>, SharedCache, MiddleCycle>(config); }
}

TEST_CASE("the arena that the trace predicts for full depth holds what tokens choose") {
  auto const config = mor::test::small_recursive(3);
  mor::test::Rows const rows({40, 75, 1}, config.transformer.vocab_size);
  auto const training = compare<TokenChoice<>, RecursionWiseCache, MiddleCycle>(config, [&](auto& model) {
    model.parameters().enable_gradients();
    model.forward_backward(rows.batch(), rows.tokens, {}, {});
  });
  CHECK(training.measured <= training.predicted);
  CHECK(training.allocations == 1);
  auto const threshold = compare<ExpertChoice<>, SharedCache, MiddleCycle>(
      config, [&](auto& model) { model.loss(rows.batch(), rows.tokens, mor::RoutingMode::Threshold); });
  CHECK(threshold.measured <= threshold.predicted);
  CHECK(threshold.allocations == 1);
}

TEST_CASE("arena prediction covers scratch of large products and heads") {
  // More rows than one group of the head, more than one block of a product, more than one part of a sum.
  auto config = mor::test::small_vanilla(1);
  config.transformer.vocab_size = 12000;
  mor::test::Rows const rows({300}, config.transformer.vocab_size);
  check_exact(compare<mor::AllTokens, RecursionWiseCache, mor::NoSharing>(config, [&](auto& model) {
    model.parameters().enable_gradients();
    model.forward_backward(rows.batch(), rows.tokens, {}, {});
    static_cast<void>(model.report());
    mor::train::Adamw optimizer(model.backend(), model.parameters(), {});
    optimizer.add_loss(model.losses(), 1.0);
    optimizer.step(1e-3);
  }));
}
