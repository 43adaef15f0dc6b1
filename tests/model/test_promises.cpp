// SPDX-License-Identifier: Apache-2.0
// The promises of docs/design.md section 5 that concern the model: causal, incremental, sharing, reproducible.
#include "support/catch.hpp"
#include "zoo/zoo.hpp"

#include <algorithm>
#include <cmath>

using namespace mor;
using namespace mor::test;

namespace {

std::vector<RoutingMode> causal_modes(ModelConfig const& config) {
  std::vector<RoutingMode> modes{RoutingMode::Threshold, RoutingMode::FullDepth};
  if (config.recursion.sampling == RouterSampling::AuxRouter) modes.push_back(RoutingMode::AuxRouter);
  return modes;
}

std::vector<ModelConfig> routed_and_plain() {
  auto configs = all_configs();
  auto aux = tiny_config(RouterKind::ExpertChoice, CacheKind::RecursionWise, SharingKind::MiddleCycle);
  aux.recursion.sampling = RouterSampling::AuxRouter;
  configs.push_back(aux);
  auto random = tiny_config(RouterKind::ExpertChoice, CacheKind::Hybrid, SharingKind::MiddleCycle);
  random.recursion.random_router = true;
  configs.push_back(random);
  auto free = tiny_config(RouterKind::TokenChoice, CacheKind::Shared, SharingKind::MiddleCycle);
  free.recursion.balancing = Balancing::LossFree;
  configs.push_back(free);
  return configs;
}

double difference(Logits const& a, Index a_row, Logits const& b, Index b_row) {
  double worst = 0.0;
  for (Index v = 0; v < a.columns; ++v) worst = std::max(worst, std::abs(a.at(a_row, v) - b.at(b_row, v)));
  return worst;
}

/// Rows [first, last) of a one-sequence batch.
struct Chunk {
  std::vector<Token> tokens;
  std::vector<Row> positions, offsets;
  Chunk(OwnedBatch const& whole, Row first, Row last)
      : tokens(whole.tokens.begin() + first, whole.tokens.begin() + last),
        positions(whole.positions.begin() + first, whole.positions.begin() + last),
        offsets{0, static_cast<Row>(last - first)} {}
  [[nodiscard]] Batch view() const { return {tokens, positions, offsets}; }
};

}  // namespace

TEST_CASE("causal: logits of a prefix do not change when tokens are appended, in every causal mode") {
  for (auto const& config : routed_and_plain()) {
    for (auto const mode : causal_modes(config)) {
      INFO(describe(config) << ", mode " << static_cast<int>(mode));
      auto const model = make_zoo_model(config);
      model->initialize(5);
      auto batch = random_batch({17}, config.transformer.vocab_size, 5);
      auto const whole = model->forward(batch.view(), mode);
      auto const depths = model->depths();
      for (Row const length : {1, 2, 9, 16}) {
        Chunk const prefix(batch, 0, length);
        auto const part = model->forward(prefix.view(), mode);
        for (Row i = 0; i < length; ++i) CHECK(difference(part, i, whole, i) < 1e-12);
        auto const part_depths = model->depths();
        CHECK(std::equal(part_depths.begin(), part_depths.end(), depths.begin()));
      }
    }
  }
}

TEST_CASE("incremental: prefill, chunked prefill and one-token decode give the full forward's logits") {
  for (auto const& config : routed_and_plain()) {
    for (auto const mode : causal_modes(config)) {
      INFO(describe(config) << ", mode " << static_cast<int>(mode));
      auto const model = make_zoo_model(config);
      model->initialize(6);
      auto const batch = random_batch({19}, config.transformer.vocab_size, 6);
      auto const whole = model->forward(batch.view(), mode);
      auto const depths = model->depths();
      for (auto const& cuts : {std::vector<Row>{19}, {7, 8, 15, 19}, {12, 13, 14, 15, 16, 17, 18, 19}}) {
        model->start_cache(1, 19);
        Row first = 0;
        for (Row const last : cuts) {
          Chunk const chunk(batch, first, last);
          auto const part = model->advance(chunk.view(), mode);
          auto const part_depths = model->depths();
          for (Row i = first; i < last; ++i) {
            CHECK(difference(part, i - first, whole, i) < 1e-12);
            CHECK(part_depths[static_cast<std::size_t>(i - first)] == depths[static_cast<std::size_t>(i)]);
          }
          first = last;
        }
        for (Index r = 0; r < config.recursion.num_recursions; ++r) {
          auto const entered = std::count_if(depths.begin(), depths.end(), [r](Row d) { return d > r; });
          CHECK(model->cached(r, 0) == entered);
        }
      }
    }
  }
}

TEST_CASE("ragged: several sequences in one call give what each gives alone, cached or not, in any order") {
  for (auto const& config : routed_and_plain()) {
    INFO(describe(config));
    auto const model = make_zoo_model(config);
    model->initialize(7);
    auto const batch = random_batch({4, 1, 9}, config.transformer.vocab_size, 7);
    auto const whole = model->forward(batch.view(), RoutingMode::TopK);
    auto const causal = model->forward(batch.view(), RoutingMode::Threshold);
    model->start_cache(3, 9);
    auto const cached = model->advance(batch.view(), RoutingMode::Threshold);
    for (std::size_t s = 0; s < 3; ++s) {
      OwnedBatch alone;
      alone.tokens.assign(batch.tokens.begin() + batch.offsets[s], batch.tokens.begin() + batch.offsets[s + 1]);
      alone.positions.assign(batch.positions.begin() + batch.offsets[s], batch.positions.begin() + batch.offsets[s + 1]);
      alone.offsets = {0, static_cast<Row>(alone.tokens.size())};
      auto const top_k = model->forward(alone.view(), RoutingMode::TopK);
      auto const threshold = model->forward(alone.view(), RoutingMode::Threshold);
      for (Index i = 0; i < top_k.rows; ++i) {
        CHECK(difference(top_k, i, whole, batch.offsets[s] + i) < 1e-12);
        CHECK(difference(threshold, i, causal, batch.offsets[s] + i) < 1e-12);
        CHECK(difference(threshold, i, cached, batch.offsets[s] + i) < 1e-12);
      }
    }
  }
}

TEST_CASE("an empty sequence in a batch changes nothing for the others") {
  for (auto const& config : all_configs()) {
    INFO(describe(config));
    auto const model = make_zoo_model(config);
    model->initialize(8);
    auto batch = random_batch({4, 6}, config.transformer.vocab_size, 8);
    auto const without = model->forward(batch.view(), RoutingMode::TopK);
    batch.offsets = {0, 0, 4, 4, 10};
    auto const with = model->forward(batch.view(), RoutingMode::TopK);
    CHECK(without.values == with.values);
  }
}

TEST_CASE("sharing: with one recursion and no gate every sharing strategy is the vanilla model, bit for bit") {
  auto const vanilla_config = tiny_config(RouterKind::AllTokens, CacheKind::RecursionWise, SharingKind::None);
  auto const batch = random_batch({6, 3}, 13, 9);
  auto const vanilla = make_zoo_model(vanilla_config);
  vanilla->initialize(9);
  auto const expected = vanilla->forward(batch.view(), RoutingMode::TopK);
  for (auto const sharing : {SharingKind::Cycle, SharingKind::MiddleCycle, SharingKind::Sequence, SharingKind::MiddleSequence}) {
    for (auto const cache : {CacheKind::RecursionWise, CacheKind::Shared, CacheKind::Hybrid}) {
      auto config = tiny_config(RouterKind::AllTokens, cache, sharing, 1);
      config.num_hidden_layers = 3;
      INFO(describe(config));
      auto const model = make_zoo_model(config);
      for (auto const& info : vanilla->layout().all()) model->write(info.name, vanilla->read(info.name));
      CHECK(model->forward(batch.view(), RoutingMode::TopK).values == expected.values);
    }
  }
}

TEST_CASE("sharing: a recursive model is the vanilla model with its weights written out, bit for bit") {
  for (auto const sharing : {SharingKind::Cycle, SharingKind::MiddleCycle, SharingKind::Sequence, SharingKind::MiddleSequence}) {
    auto const config = tiny_config(RouterKind::AllTokens, CacheKind::RecursionWise, sharing);
    INFO(describe(config));
    auto const recursive = make_zoo_model(config);
    recursive->initialize(10);
    auto unrolled_config = config;
    unrolled_config.recursion = {};
    auto const unrolled = make_zoo_model(unrolled_config);
    // The first unrolled layer that uses a set names it; later copies are written from it.
    Index const recursions = config.recursion.num_recursions;
    Index const ends = config.recursion.num_prelude_layers;
    auto const source = [&](Index layer) {
      if (layer < ends || layer >= config.num_hidden_layers - ends) return layer;
      Index const inner = layer - ends;
      bool const cycle = sharing == SharingKind::Cycle || sharing == SharingKind::MiddleCycle;
      return ends + (cycle ? inner % config.block_layers() : inner / recursions * recursions);
    };
    for (auto const& info : unrolled->layout().all()) {
      auto name = info.name;
      if (name.rfind("model.layers.", 0) == 0) {
        auto const dot = name.find('.', 13);
        name = "model.layers." + std::to_string(source(std::stoll(name.substr(13, dot - 13)))) + name.substr(dot);
      }
      unrolled->write(info.name, recursive->read(name));
    }
    auto const batch = random_batch({6, 3}, 13, 10);
    CHECK(recursive->forward(batch.view(), RoutingMode::TopK).values ==
          unrolled->forward(batch.view(), RoutingMode::TopK).values);
  }
}

TEST_CASE("sharing: full depth makes the hybrid cache equal to the recursion-wise one") {
  auto const batch = random_batch({8}, 13, 11);
  for (auto const router : {RouterKind::ExpertChoice, RouterKind::TokenChoice, RouterKind::AllTokens}) {
    std::vector<std::vector<double>> logits;
    for (auto const cache : {CacheKind::RecursionWise, CacheKind::Hybrid}) {
      auto const model = make_zoo_model(tiny_config(router, cache, SharingKind::MiddleCycle));
      model->initialize(11);
      logits.push_back(model->forward(batch.view(), RoutingMode::FullDepth).values);
    }
    CHECK(logits[0] == logits[1]);
  }
}

TEST_CASE("ties: with equal router logits the lowest positions are kept") {
  auto const config = tiny_config(RouterKind::ExpertChoice, CacheKind::RecursionWise, SharingKind::MiddleCycle);
  auto const model = make_zoo_model(config);
  model->initialize(12);
  for (auto const& info : model->layout().all()) {
    if (info.name.find("router") != std::string::npos) {
      model->write(info.name, std::vector<double>(static_cast<std::size_t>(info.size()), 0.0));
    }
  }
  auto const batch = random_batch({9, 3}, 13, 12);
  model->forward(batch.view(), RoutingMode::TopK);
  CHECK(model->active_rows(1) == std::vector<Row>{0, 1, 2, 3, 4, 5, 9, 10});
  CHECK(model->active_rows(2) == std::vector<Row>{0, 1, 2, 9});
}

TEST_CASE("capacities: k comes from each sequence's own length and never falls under one") {
  auto const config = tiny_config(RouterKind::ExpertChoice, CacheKind::RecursionWise, SharingKind::MiddleCycle, 4);
  auto const model = make_zoo_model(config);
  model->initialize(13);
  auto const batch = random_batch({1, 2, 3, 10}, 13, 13);
  model->forward(batch.view(), RoutingMode::TopK);
  CHECK(model->active_rows(0).size() == 16);
  CHECK(model->active_rows(1).size() == 1 + 1 + 2 + 7);
  CHECK(model->active_rows(2).size() == 1 + 1 + 1 + 5);
  CHECK(model->active_rows(3).size() == 1 + 1 + 1 + 2);
}

TEST_CASE("threshold mode with no survivors skips the recursion, and decode still agrees") {
  for (auto const cache : {CacheKind::RecursionWise, CacheKind::Shared, CacheKind::Hybrid}) {
    auto config = tiny_config(RouterKind::ExpertChoice, cache, SharingKind::MiddleCycle);
    config.recursion.router_network = RouterNetwork::Linear;
    auto const model = make_zoo_model(config);
    model->initialize(14);
    auto const batch = random_batch({5}, 13, 14);
    // A router far against one direction and its opposite: scan seeds until some token of recursion 2 fails for all.
    bool found = false;
    for (std::uint64_t seed = 1; seed < 200 && !found; ++seed) {
      model->initialize(seed);
      auto const whole = model->forward(batch.view(), RoutingMode::Threshold);
      if (!model->active_rows(1).empty()) continue;
      found = true;
      model->start_cache(1, 5);
      for (Row i = 0; i < 5; ++i) {
        Chunk const chunk(batch, i, static_cast<Row>(i + 1));
        CHECK(difference(model->advance(chunk.view(), RoutingMode::Threshold), 0, whole, i) < 1e-12);
      }
    }
    CHECK(found);
  }
}

TEST_CASE("reproducible: the same training call gives the same bits, and the arena stops growing after the first step") {
  for (auto const& config : all_configs()) {
    INFO(describe(config));
    auto const batch = random_batch({5, 7}, 13, 15);
    std::vector<std::vector<double>> runs;
    for (int run = 0; run < 2; ++run) {
      auto const model = make_zoo_model(config);
      model->initialize(15);
      model->zero_gradients();
      model->train(batch.view(), batch.targets(), {}, {});
      model->train(batch.view(), batch.targets(), {}, {});
      auto const allocations = model->arena_allocations();
      model->train(batch.view(), batch.targets(), {}, {});
      CHECK(model->arena_allocations() == allocations);
      runs.push_back(all_gradients(*model));
    }
    CHECK(runs[0] == runs[1]);
  }
}

TEST_CASE("recompute: every level gives the gradients of none bit for bit, and keeps less") {
  for (auto const& config : all_configs()) {
    INFO(describe(config));
    auto const batch = random_batch({5, 0, 7}, 13, 21);
    std::vector<std::vector<double>> gradients;
    std::vector<Index> peaks;
    for (Recompute const level : {Recompute::None, Recompute::Pointwise, Recompute::Mlp}) {
      auto const model = make_zoo_model(config);
      model->initialize(21);
      model->set_recompute(level);
      model->zero_gradients();
      model->train(batch.view(), batch.targets(), {}, {});
      gradients.push_back(all_gradients(*model));
      peaks.push_back(model->arena_peak_bytes());
    }
    CHECK(gradients[1] == gradients[0]);
    CHECK(gradients[2] == gradients[0]);
    CHECK(peaks[1] < peaks[0]);
    CHECK(peaks[2] < peaks[1]);
  }
}

TEST_CASE("loss-free balancing moves the bias against the load") {
  auto config = tiny_config(RouterKind::TokenChoice, CacheKind::RecursionWise, SharingKind::MiddleCycle);
  config.recursion.balancing = Balancing::LossFree;
  config.recursion.bias_update_rate = 0.01;
  auto const model = make_zoo_model(config);
  model->initialize(16);
  model->finish_step({0.7, 0.2, 1.0 / 3.0});
  CHECK(model->read("model.layers.1.router_bias") == std::vector<double>{-0.01, 0.01, 0.01});
}

TEST_CASE("capacity warm-up starts with every token and shrinks to the capacity") {
  auto const config = tiny_config(RouterKind::ExpertChoice, CacheKind::RecursionWise, SharingKind::MiddleCycle);
  auto const model = make_zoo_model(config);
  model->initialize(17);
  auto const batch = random_batch({30}, 13, 17);
  std::vector<std::size_t> kept;
  for (Index const call : {1, 5, 10, 11}) {
    TrainingProgress progress;
    progress.forward_calls = call;
    progress.capacity_warmup_calls = 10;
    model->train(batch.view(), batch.targets(), progress, {});
    kept.push_back(model->active_rows(2).size());
  }
  CHECK(kept.front() > 28);
  CHECK(kept[1] == 20);
  CHECK(kept[2] == 10);
  CHECK(kept[3] == 10);
}

TEST_CASE("the balance warm-up of token choice sends every token to full depth") {
  auto const config = tiny_config(RouterKind::TokenChoice, CacheKind::RecursionWise, SharingKind::MiddleCycle);
  auto const model = make_zoo_model(config);
  model->initialize(18);
  auto const batch = random_batch({20}, 13, 18);
  TrainingProgress progress;
  progress.balance_warmup_calls = 1;
  model->train(batch.view(), batch.targets(), progress, {});
  CHECK(model->active_rows(2).size() == 20);
  progress.forward_calls = 2;
  model->train(batch.view(), batch.targets(), progress, {});
  CHECK(model->active_rows(2).size() < 20);
}
