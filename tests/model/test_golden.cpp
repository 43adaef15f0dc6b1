// SPDX-License-Identifier: Apache-2.0
// Every golden value of the specification's section 12 (made with the official implementation), on the host.
#include "support/catch.hpp"

#include "model/golden.hpp"

#include "mor/backend/host/backend.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/expert_choice.hpp"
#include "mor/policy/sharing.hpp"
#include "mor/policy/token_choice.hpp"

using namespace mor;
using namespace mor::test;

namespace {

using HostDouble = host::Backend<double>;

/// Copies the golden weights out of a model of the zoo into one whose policies are types.
template <class Model>
void set_weights(Model& model, ModelConfig const& config) {
  auto const source = make_zoo_model(config);
  GoldenWeights const weights(*source);
  for (auto const& info : source->layout().all()) model.parameters().write(info.name, source->read(info.name));
  model.parameters().publish();
}

}  // namespace

TEST_CASE("golden: logits, losses, routing and gradients of every router and cache") {
  check_every_golden_value(make_zoo_model, 1.0);
}

TEST_CASE("golden: router logits of expert choice") {
  HostDouble backend;
  auto const config = golden_config(RouterKind::ExpertChoice, CacheKind::RecursionWise);
  RecursiveTransformer<ExpertChoice<>, RecursionWiseCache, MiddleCycle, HostDouble> model(backend, config);
  set_weights(model, config);
  GoldenBatch const batch;
  static_cast<void>(model.forward(batch.view(), RoutingMode::TopK));
  std::array<std::vector<double>, 3> const logits{
      {{1.478995, 0.401490, -0.281007, 0.552651, 0.456108, 0.037570, 0.897767, -0.416083, 0.605111, -1.281837, 1.035797,
        -0.305006},
       {0.785699, 0.090583, -1.445293, 0.994362, -0.700809, 1.496552, -0.948436, 0.803422, 0.514013, 0.193151, 0.830816,
        -0.949258},
       {-1.904598, -0.441163, -0.900780, -0.432377, 0.248717, -0.883398, 1.304394, -1.380433}}};
  for (std::size_t r = 0; r < 3; ++r) {
    auto const& got = model.router_state().steps[r].logits;
    REQUIRE(got.rows == static_cast<Index>(logits[r].size()));
    for (Index i = 0; i < got.rows; ++i) CHECK(std::abs(got(i, 0) - logits[r][static_cast<std::size_t>(i)]) < 1e-6);
  }
}

TEST_CASE("golden: gates of token choice") {
  HostDouble backend;
  auto const config = golden_config(RouterKind::TokenChoice, CacheKind::RecursionWise);
  RecursiveTransformer<TokenChoice<>, RecursionWiseCache, MiddleCycle, HostDouble> model(backend, config);
  set_weights(model, config);
  GoldenBatch const batch;
  static_cast<void>(model.forward(batch.view(), RoutingMode::Threshold));
  std::array<double, 12> const gates{0.490896, 0.377789, 0.354345, 0.373214, 0.403015, 0.386573,
                                     0.461226, 0.411204, 0.390338, 0.482748, 0.436783, 0.348165};
  for (std::size_t i = 0; i < 12; ++i) CHECK(std::abs(model.router_state().gate[i] - gates[i]) < 1e-6);
}

TEST_CASE("golden: single precision stays within 2e-5 of the double run") {
  host::Backend<float> backend;
  auto const config = golden_config(RouterKind::ExpertChoice, CacheKind::RecursionWise);
  RecursiveTransformer<ExpertChoice<>, RecursionWiseCache, MiddleCycle, host::Backend<float>> model(backend, config);
  auto const source = make_zoo_model(config);
  GoldenWeights const weights(*source);
  for (auto const& info : source->layout().all()) {
    auto const values = source->read(info.name);
    model.parameters().write(info.name, std::vector<float>(values.begin(), values.end()));
  }
  model.parameters().publish();
  GoldenBatch const batch;
  auto const logits = model.forward(batch.view(), RoutingMode::TopK);
  auto const golden = golden_runs().front();
  for (Index v = 0; v < 4; ++v) {
    CHECK(std::abs(static_cast<double>(logits(0, v)) - golden.first[static_cast<std::size_t>(v)]) < 2e-5);
  }
  CHECK(model.active_rows(2) == golden.active[1]);
}
