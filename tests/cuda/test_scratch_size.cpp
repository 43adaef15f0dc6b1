// SPDX-License-Identifier: Apache-2.0
// The trace predicts the arena that a step on the CUDA backend needs, to the byte.
#include "support/catch.hpp"

#include "cuda/cuda_zoo.hpp"
#include "cuda/device_present.hpp"

#include <vector>

using namespace mor;
using namespace mor::test;

namespace {

/// A training step, then a forward pass and a chunk of prefill with a token after it, all at full depth, where nothing
/// depends on data. The arena's peak after each.
std::vector<Index> peaks(ZooModel& model, bool real, std::vector<Index> const& lengths) {
  if (real) model.initialize(3);
  model.zero_gradients();
  Index const vocabulary = model.config().transformer.vocab_size;
  auto const batch = random_batch(lengths, vocabulary, 3);
  TrainingProgress progress;
  progress.balance_warmup_calls = 1;  // token choice: everything to full depth, as the trace assumes
  std::vector<Index> result;
  // Smallest first: a peak never falls.
  auto const first = random_batch({20}, vocabulary, 4);
  auto const next = random_batch({1}, vocabulary, 5);
  model.start_cache(1, 40);
  model.advance(next.view(), RoutingMode::FullDepth);
  result.push_back(model.arena_peak_bytes());
  model.start_cache(1, 40);
  model.advance(first.view(), RoutingMode::FullDepth);
  result.push_back(model.arena_peak_bytes());
  model.loss(batch.view(), batch.targets(), RoutingMode::FullDepth);
  result.push_back(model.arena_peak_bytes());
  model.train(batch.view(), batch.targets(), progress, {0.1, 0.7});
  result.push_back(model.arena_peak_bytes());
  return result;
}

ModelConfig with_heads_of(ModelConfig config, Index head_dim) {
  config.transformer.hidden_size = 2 * head_dim;
  config.transformer.intermediate_size = 192;
  config.transformer.head_dim = head_dim;
  config.transformer.vocab_size = 200;
  return config;
}

}  // namespace

TEST_CASE("the arena of every policy combination in float is predicted to the byte", "[cuda]") {
  require_device();
  for (auto const& config : all_configs()) {
    CAPTURE(describe(config));
    REQUIRE(peaks(*make_traced_float(config), false, {9, 1, 33, 20}) == peaks(*make_cuda_float(config), true, {9, 1, 33, 20}));
  }
}

TEST_CASE("the arena of every policy combination in bf16 is predicted to the byte", "[cuda]") {
  require_device();
  for (auto const& small : all_configs()) {
    for (auto const& config : {small, with_heads_of(small, 64), with_heads_of(small, 128)}) {
      CAPTURE(describe(config), config.transformer.head_dim);
      REQUIRE(peaks(*make_traced_bfloat16(config), false, {150, 1, 70}) ==
              peaks(*make_cuda_bfloat16(config), true, {150, 1, 70}));
    }
  }
}

TEST_CASE("the arena with every router network and loss is predicted to the byte", "[cuda]") {
  require_device();
  for (auto config : all_configs()) {
    if (config.recursion.sharing != SharingKind::MiddleCycle) continue;
    config.recursion.z_coefficient = 0.01;
    for (auto const network : {RouterNetwork::Mlp, RouterNetwork::WideMlp}) {
      config.recursion.router_network = network;
      if (config.recursion.router == RouterKind::ExpertChoice) config.recursion.sampling = RouterSampling::AuxRouter;
      if (config.recursion.router == RouterKind::TokenChoice) config.recursion.balancing = Balancing::Loss;
      CAPTURE(describe(config));
      REQUIRE(peaks(*make_traced_float(config), false, {300, 17}) == peaks(*make_cuda_float(config), true, {300, 17}));
    }
  }
}
