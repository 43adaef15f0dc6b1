// SPDX-License-Identifier: Apache-2.0
/// @file
/// The golden values of docs/mor-spec.md section 12 (made with the official implementation), for tests on any backend.
#pragma once

#include "support/catch.hpp"
#include "zoo/zoo.hpp"

#include <array>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

namespace mor::test {

inline ModelConfig golden_config(RouterKind router, CacheKind cache) {
  ModelConfig config;
  auto& t = config.transformer;
  t.vocab_size = 32;
  t.hidden_size = 16;
  t.intermediate_size = 24;
  t.num_attention_heads = 4;
  t.num_key_value_heads = 2;
  t.head_dim = 4;
  config.num_hidden_layers = 8;
  auto& r = config.recursion;
  r.num_recursions = 3;
  r.num_prelude_layers = 1;
  r.num_coda_layers = 1;
  r.router = router;
  r.cache = cache;
  r.sharing = SharingKind::MiddleCycle;
  return config;
}

/// Writes every weight of the golden models: element n of tensor c is amplitude * sin(0.37 (n + 1) + 1.7 c), rounded to float;
/// norms add 1.
class GoldenWeights {
 public:
  explicit GoldenWeights(ZooModel& model) : model_(model) {
    set("model.embed_tokens.weight", 1, 0.5);
    set("model.norm.weight", 100, 0.1, 1.0);
    set_layer("model.layers.0.", 2);
    if (model.config().recursion.router == RouterKind::ExpertChoice) {
      set_layer("model.layers.1.block.0.", 20);
      set_layer("model.layers.1.block.1.", 30);
      set_layer("model.layers.4.", 90);
      for (int r = 1; r <= 3; ++r) set("model.layers." + std::to_string(r) + ".mor_router.router.weight", 109 + r, 0.05);
    } else {
      set_layer("model.layers.1.block_list.0.0.", 20);
      set_layer("model.layers.1.block_list.0.1.", 30);
      set_layer("model.layers.2.", 90);
      set("model.layers.1.mor_router.router.weight", 135, 0.05);
    }
  }

 private:
  void set(std::string const& name, int id, double amplitude, double offset = 0.0) {
    std::vector<double> values(static_cast<std::size_t>(model_.layout().find(name).size()));
    for (std::size_t n = 0; n < values.size(); ++n) {
      double const wave = amplitude * std::sin(0.37 * static_cast<double>(n + 1) + 1.7 * id);
      values[n] = static_cast<double>(static_cast<float>(offset + wave));
    }
    model_.write(name, values);
  }

  void set_layer(std::string const& prefix, int base) {
    int id = base;
    for (char const* const matrix : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                     "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) {
      set(prefix + matrix + ".weight", id++, 0.25);
    }
    set(prefix + "input_layernorm.weight", id++, 0.1, 1.0);
    set(prefix + "post_attention_layernorm.weight", id, 0.1, 1.0);
  }

  ZooModel& model_;
};

struct GoldenBatch {
  std::vector<Token> tokens, targets;
  std::vector<Row> positions, offsets{0, 12};
  GoldenBatch() {
    for (int i = 0; i < 12; ++i) {
      tokens.push_back((7 * i + 3) % 32);
      positions.push_back(i);
    }
    targets.assign(tokens.begin() + 1, tokens.end());
    targets.push_back(-1);
  }
  [[nodiscard]] Batch view() const { return {tokens, positions, offsets}; }
};

/// One forward pass.
struct GoldenRun {
  RouterKind router;
  CacheKind cache;
  RoutingMode mode;
  double sum, squares;                        ///< over all logits
  std::array<double, 4> first, middle, last;  ///< logits of tokens 0..3 at positions 0, 5, 11
  double loss;
  std::vector<std::vector<Row>> active;       ///< of recursions 1, 2, ...; empty where the page does not tell
  std::vector<Row> depths;                    ///< the same
};

inline std::vector<GoldenRun> golden_runs() {
  using enum RouterKind;
  using enum CacheKind;
  using enum RoutingMode;
  return {
      {ExpertChoice, RecursionWise, TopK, 75.515552, 3063.454812, {-3.512217, -1.703231, 0.327958, 2.316362},
       {-1.125829, 0.679587, 2.396345, 3.800475}, {0.900487, 0.686854, 0.383614, 0.030327}, 8.031892,
       {{0, 1, 3, 5, 7, 8, 9, 10}, {1, 5, 7, 9}}, {}},
      {ExpertChoice, RecursionWise, Threshold, 76.033474, 3068.136857, {-3.512217, -1.703231, 0.327958, 2.316362},
       {-1.166298, 0.627192, 2.338859, 3.745398}, {0.910452, 0.697864, 0.394233, 0.039170}, 8.032791,
       {{0, 1, 3, 5, 7, 8, 9, 10}, {7, 9}}, {}},
      {ExpertChoice, Shared, TopK, 75.254580, 3079.857185, {-3.512513, -1.703669, 0.327437, 2.315825},
       {-1.106883, 0.700204, 2.415942, 3.816496}, {0.905701, 0.683564, 0.372250, 0.012371}, 8.047711, {}, {}},
      {ExpertChoice, Hybrid, TopK, 75.291910, 3080.874428, {-3.512217, -1.703231, 0.327958, 2.316362},
       {-1.107513, 0.699639, 2.415517, 3.816266}, {0.906032, 0.684026, 0.372782, 0.012905}, 8.049963, {}, {}},
      {TokenChoice, RecursionWise, Threshold, 70.941574, 2970.248755, {-3.528175, -1.768601, 0.221705, 2.183087},
       {-1.339371, 0.508626, 2.290267, 3.773120}, {0.420456, 0.184110, -0.076254, -0.326670}, 8.230382, {},
       {1, 1, 2, 1, 1, 3, 1, 3, 1, 3, 1, 2}},
      {TokenChoice, Shared, Threshold, 66.103213, 2901.091071, {-3.528175, -1.768601, 0.221705, 2.183087},
       {-0.599927, 1.112956, 2.680642, 3.898611}, {0.487777, 0.218410, -0.079451, -0.366947}, 8.029608, {}, {}}};
}

/// `slack` multiplies tolerances that are fit for a run in double.
inline void check_golden(ZooModel& model, GoldenRun const& golden, double slack) {
  GoldenWeights const weights(model);
  GoldenBatch const batch;
  auto const logits = model.forward(batch.view(), golden.mode);
  auto const& values = logits.values;
  double const squares = std::inner_product(values.begin(), values.end(), values.begin(), 0.0);
  CHECK(std::abs(std::accumulate(values.begin(), values.end(), 0.0) - golden.sum) < 5e-6 * slack);
  CHECK(std::abs(squares - golden.squares) < 2e-7 * golden.squares * slack);
  for (Index v = 0; v < 4; ++v) {
    CHECK(std::abs(logits.at(0, v) - golden.first[static_cast<std::size_t>(v)]) < 2e-6 * slack);
    CHECK(std::abs(logits.at(5, v) - golden.middle[static_cast<std::size_t>(v)]) < 2e-6 * slack);
    CHECK(std::abs(logits.at(11, v) - golden.last[static_cast<std::size_t>(v)]) < 2e-6 * slack);
  }
  for (std::size_t r = 0; r < golden.active.size(); ++r) {
    CHECK(model.active_rows(static_cast<Index>(r) + 1) == golden.active[r]);
  }
  if (!golden.depths.empty()) CHECK(model.depths() == golden.depths);
  auto const losses = model.loss(batch.view(), batch.targets, golden.mode);
  CHECK(std::abs(std::accumulate(losses.begin(), losses.end(), 0.0) / 11.0 - golden.loss) < 2e-6 * slack);
}

/// A scalar of the report after one micro-batch of training.
struct GoldenLoss {
  RouterKind router;
  CacheKind cache;
  double LossReport::*value;
  double expected;
};

inline std::vector<GoldenLoss> golden_losses() {
  return {{RouterKind::ExpertChoice, CacheKind::RecursionWise, &LossReport::aux_loss, 1.482215},
          {RouterKind::ExpertChoice, CacheKind::RecursionWise, &LossReport::sampling_accuracy, 0.805556},
          {RouterKind::ExpertChoice, CacheKind::Shared, &LossReport::aux_loss, 1.479741},
          {RouterKind::ExpertChoice, CacheKind::Hybrid, &LossReport::aux_loss, 1.479915},
          {RouterKind::TokenChoice, CacheKind::RecursionWise, &LossReport::balance_loss, 1.032562}};
}

inline void check_golden(ZooModel& model, GoldenLoss const& golden, double slack) {
  GoldenWeights const weights(model);
  GoldenBatch const batch;
  CHECK(std::abs(model.train(batch.view(), batch.targets, {}, {}).*golden.value - golden.expected) < 1e-6 * slack);
}

/// Of expert choice with the recursion-wise cache and an auxiliary coefficient of 1.
struct GoldenGradient {
  std::string name;
  double norm;
  std::vector<double> first;  ///< the first elements, where the page tells them
};

/// Of the mean loss over 11 targets.
inline std::vector<GoldenGradient> golden_language_model_gradients() {
  return {{"model.layers.1.mor_router.router.weight", 0.148373, {-0.0495729, -0.0020961, -0.0210290}},
          {"model.layers.2.mor_router.router.weight", 0.070125, {-0.0015613, 0.0299743, -0.0122147}},
          {"model.layers.3.mor_router.router.weight", 0.105470, {0.0184385, 0.0395344, 0.0017983}},
          {"model.layers.1.block.0.mlp.down_proj.weight", 0.140042, {0.0039787, 0.0036401, 0.0010114}},
          {"model.layers.1.block.1.self_attn.k_proj.weight", 0.181540, {-0.0003129, -0.0068990, 0.0013122}},
          {"model.embed_tokens.weight", 2.639992, {-0.0003124, 0.0136042, -0.0050744}}};
}

/// Of the auxiliary loss, which reaches the layers before its router.
inline std::vector<GoldenGradient> golden_auxiliary_gradients() {
  return {{"model.layers.1.mor_router.router.weight", 0.525020, {}},
          {"model.layers.2.mor_router.router.weight", 2.447300, {}},
          {"model.layers.1.block.0.mlp.down_proj.weight", 0.015870, {}}};
}

inline void check_golden(ZooModel& model, std::vector<GoldenGradient> const& golden, LossWeights const& loss, double slack) {
  GoldenWeights const weights(model);
  GoldenBatch const batch;
  model.zero_gradients();
  model.train(batch.view(), batch.targets, {}, loss);
  for (auto const& expected : golden) {
    CAPTURE(expected.name);
    auto const gradient = model.gradient(expected.name);
    double const squares = std::inner_product(gradient.begin(), gradient.end(), gradient.begin(), 0.0);
    CHECK(std::abs(std::sqrt(squares) - expected.norm) < 2e-6 * slack);
    for (std::size_t i = 0; i < expected.first.size(); ++i) {
      CHECK(std::abs(gradient[i] - expected.first[i]) < 2e-7 * slack);
    }
  }
}

/// Every golden value, of the models that `make` gives.
template <class Make>
void check_every_golden_value(Make&& make, double slack) {
  for (auto const& run : golden_runs()) {
    auto const config = golden_config(run.router, run.cache);
    CAPTURE(describe(config), static_cast<int>(run.mode));
    check_golden(*make(config), run, slack);
  }
  for (auto const& loss : golden_losses()) {
    auto const config = golden_config(loss.router, loss.cache);
    CAPTURE(describe(config), loss.expected);
    check_golden(*make(config), loss, slack);
  }
  auto config = golden_config(RouterKind::ExpertChoice, CacheKind::RecursionWise);
  config.recursion.aux_coefficient = 1.0;
  check_golden(*make(config), golden_language_model_gradients(), {1.0 / 11.0, 0.0}, slack);
  check_golden(*make(config), golden_auxiliary_gradients(), {0.0, 1.0}, slack);
}

}  // namespace mor::test
