// SPDX-License-Identifier: Apache-2.0
// Every golden value of the specification's section 12 (made with the official implementation), through the public API.
#include "support/catch.hpp"

#include "mor/backend/host/backend.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/expert_choice.hpp"
#include "mor/policy/sharing.hpp"
#include "mor/policy/token_choice.hpp"

#include <array>
#include <cmath>
#include <numeric>

using namespace mor;

namespace {

using HostDouble = host::Backend<double>;

ModelConfig golden_config() {
  ModelConfig config;
  auto& t = config.transformer;
  t.vocab_size = 32;
  t.hidden_size = 16;
  t.intermediate_size = 24;
  t.num_attention_heads = 4;
  t.num_key_value_heads = 2;
  t.head_dim = 4;
  config.recursion.num_recursions = 3;
  config.recursion.num_prelude_layers = 1;
  config.recursion.num_coda_layers = 1;
  config.num_hidden_layers = 8;
  return config;
}

/// Element n of tensor c: amplitude * sin(0.37 (n + 1) + 1.7 c), rounded to float; norms add 1.
template <class Model>
void set_formula(Model& model, std::string const& name, int id, double amplitude, bool norm = false) {
  auto const size = static_cast<std::size_t>(model.parameters().layout().find(name).size());
  std::vector<typename Model::Real> values(size);
  for (std::size_t n = 0; n < size; ++n) {
    double const wave = amplitude * std::sin(0.37 * static_cast<double>(n + 1) + 1.7 * id);
    values[n] = static_cast<typename Model::Real>(static_cast<float>(norm ? 1.0 + wave : wave));
  }
  model.parameters().write(name, values);
}

template <class Model>
void set_layer(Model& model, std::string const& prefix, int base) {
  std::array<char const*, 7> const matrices{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                            "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
  for (int i = 0; i < 7; ++i) {
    set_formula(model, prefix + matrices[static_cast<std::size_t>(i)] + ".weight", base + i, 0.25);
  }
  set_formula(model, prefix + "input_layernorm.weight", base + 7, 0.1, true);
  set_formula(model, prefix + "post_attention_layernorm.weight", base + 8, 0.1, true);
}

template <class Model>
void set_expert_weights(Model& model) {
  set_formula(model, "model.embed_tokens.weight", 1, 0.5);
  set_layer(model, "model.layers.0.", 2);
  set_layer(model, "model.layers.1.block.0.", 20);
  set_layer(model, "model.layers.1.block.1.", 30);
  set_layer(model, "model.layers.4.", 90);
  set_formula(model, "model.norm.weight", 100, 0.1, true);
  for (int r = 1; r <= 3; ++r) {
    set_formula(model, "model.layers." + std::to_string(r) + ".mor_router.router.weight", 109 + r, 0.05);
  }
  model.parameters().publish();
}

template <class Model>
void set_token_weights(Model& model) {
  set_formula(model, "model.embed_tokens.weight", 1, 0.5);
  set_layer(model, "model.layers.0.", 2);
  set_layer(model, "model.layers.1.block_list.0.0.", 20);
  set_layer(model, "model.layers.1.block_list.0.1.", 30);
  set_layer(model, "model.layers.2.", 90);
  set_formula(model, "model.norm.weight", 100, 0.1, true);
  set_formula(model, "model.layers.1.mor_router.router.weight", 135, 0.05);
  model.parameters().publish();
}

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

struct GoldenRun {
  double sum, squares;
  std::array<double, 4> first, middle, last;  // vocabulary 0..3 at positions 0, 5, 11
  double loss;
};

template <class Model>
void check_run(Model& model, RoutingMode mode, GoldenRun const& golden) {
  GoldenBatch const batch;
  auto const logits = model.forward(batch.view(), mode);
  double sum = 0.0, squares = 0.0;
  for (Index i = 0; i < logits.size(); ++i) {
    sum += logits.data[i];
    squares += logits.data[i] * logits.data[i];
  }
  CHECK(std::abs(sum - golden.sum) < 5e-6);
  CHECK(std::abs(squares - golden.squares) < 2e-7 * golden.squares);
  for (Index v = 0; v < 4; ++v) {
    CHECK(std::abs(logits(0, v) - golden.first[static_cast<std::size_t>(v)]) < 2e-6);
    CHECK(std::abs(logits(5, v) - golden.middle[static_cast<std::size_t>(v)]) < 2e-6);
    CHECK(std::abs(logits(11, v) - golden.last[static_cast<std::size_t>(v)]) < 2e-6);
  }
  auto const losses = model.loss(batch.view(), batch.targets, mode);
  CHECK(std::abs(std::accumulate(losses.begin(), losses.end(), 0.0) / 11.0 - golden.loss) < 2e-6);
}

template <class Router, class Cache>
using Golden = RecursiveTransformer<Router, Cache, MiddleCycle, HostDouble>;

double norm_of(std::vector<double> const& values) {
  return std::sqrt(std::inner_product(values.begin(), values.end(), values.begin(), 0.0));
}

void check_gradient(std::vector<double> const& gradient, double norm, std::array<double, 3> const& first) {
  CHECK(std::abs(norm_of(gradient) - norm) < 2e-6);
  for (std::size_t i = 0; i < 3; ++i) CHECK(std::abs(gradient[i] - first[i]) < 2e-7);
}

}  // namespace

TEST_CASE("golden: expert choice with every cache, in top-k and threshold mode") {
  HostDouble backend;
  SECTION("recursion-wise") {
    Golden<ExpertChoice<>, RecursionWiseCache> model(backend, golden_config());
    set_expert_weights(model);
    check_run(model, RoutingMode::TopK,
              {75.515552, 3063.454812, {-3.512217, -1.703231, 0.327958, 2.316362}, {-1.125829, 0.679587, 2.396345, 3.800475},
               {0.900487, 0.686854, 0.383614, 0.030327}, 8.031892});
    CHECK(model.active_rows(1) == std::vector<Row>{0, 1, 3, 5, 7, 8, 9, 10});
    CHECK(model.active_rows(2) == std::vector<Row>{1, 5, 7, 9});
    check_run(model, RoutingMode::Threshold,
              {76.033474, 3068.136857, {-3.512217, -1.703231, 0.327958, 2.316362}, {-1.166298, 0.627192, 2.338859, 3.745398},
               {0.910452, 0.697864, 0.394233, 0.039170}, 8.032791});
    CHECK(model.active_rows(1) == std::vector<Row>{0, 1, 3, 5, 7, 8, 9, 10});
    CHECK(model.active_rows(2) == std::vector<Row>{7, 9});
  }
  SECTION("shared") {
    Golden<ExpertChoice<>, SharedCache> model(backend, golden_config());
    set_expert_weights(model);
    check_run(model, RoutingMode::TopK,
              {75.254580, 3079.857185, {-3.512513, -1.703669, 0.327437, 2.315825}, {-1.106883, 0.700204, 2.415942, 3.816496},
               {0.905701, 0.683564, 0.372250, 0.012371}, 8.047711});
  }
  SECTION("hybrid") {
    Golden<ExpertChoice<>, HybridCache> model(backend, golden_config());
    set_expert_weights(model);
    check_run(model, RoutingMode::TopK,
              {75.291910, 3080.874428, {-3.512217, -1.703231, 0.327958, 2.316362}, {-1.107513, 0.699639, 2.415517, 3.816266},
               {0.906032, 0.684026, 0.372782, 0.012905}, 8.049963});
  }
}

TEST_CASE("golden: token choice with both caches, its depths, gates and balancing loss") {
  HostDouble backend;
  SECTION("recursion-wise") {
    Golden<TokenChoice<>, RecursionWiseCache> model(backend, golden_config());
    set_token_weights(model);
    check_run(model, RoutingMode::Threshold,
              {70.941574, 2970.248755, {-3.528175, -1.768601, 0.221705, 2.183087}, {-1.339371, 0.508626, 2.290267, 3.773120},
               {0.420456, 0.184110, -0.076254, -0.326670}, 8.230382});
    CHECK(model.depths() == std::vector<Row>{1, 1, 2, 1, 1, 3, 1, 3, 1, 3, 1, 2});
    std::array<double, 12> const gates{0.490896, 0.377789, 0.354345, 0.373214, 0.403015, 0.386573,
                                       0.461226, 0.411204, 0.390338, 0.482748, 0.436783, 0.348165};
    auto const& gate = model.router_state().gate;
    for (std::size_t i = 0; i < 12; ++i) CHECK(std::abs(gate[i] - gates[i]) < 1e-6);
    model.parameters().enable_gradients();
    GoldenBatch const batch;
    model.forward_backward(batch.view(), batch.targets, {}, {});
    CHECK(std::abs(model.report().balance_loss - 1.032562) < 1e-6);
  }
  SECTION("shared") {
    Golden<TokenChoice<>, SharedCache> model(backend, golden_config());
    set_token_weights(model);
    check_run(model, RoutingMode::Threshold,
              {66.103213, 2901.091071, {-3.528175, -1.768601, 0.221705, 2.183087}, {-0.599927, 1.112956, 2.680642, 3.898611},
               {0.487777, 0.218410, -0.079451, -0.366947}, 8.029608});
  }
}

TEST_CASE("golden: router logits and auxiliary losses of expert choice") {
  HostDouble backend;
  GoldenBatch const batch;
  auto const aux_loss = [&](auto& model) {
    set_expert_weights(model);
    model.parameters().enable_gradients();
    model.forward_backward(batch.view(), batch.targets, {}, {});
    return model.report();
  };
  Golden<ExpertChoice<>, RecursionWiseCache> own(backend, golden_config());
  auto const report = aux_loss(own);
  CHECK(std::abs(report.aux_loss - 1.482215) < 1e-6);
  CHECK(std::abs(report.sampling_accuracy - 0.805556) < 1e-6);
  std::array<std::vector<double>, 3> const logits{
      {{1.478995, 0.401490, -0.281007, 0.552651, 0.456108, 0.037570, 0.897767, -0.416083, 0.605111, -1.281837, 1.035797,
        -0.305006},
       {0.785699, 0.090583, -1.445293, 0.994362, -0.700809, 1.496552, -0.948436, 0.803422, 0.514013, 0.193151, 0.830816,
        -0.949258},
       {-1.904598, -0.441163, -0.900780, -0.432377, 0.248717, -0.883398, 1.304394, -1.380433}}};
  for (std::size_t r = 0; r < 3; ++r) {
    auto const& got = own.router_state().steps[r].logits;
    REQUIRE(got.rows == static_cast<Index>(logits[r].size()));
    for (Index i = 0; i < got.rows; ++i) CHECK(std::abs(got(i, 0) - logits[r][static_cast<std::size_t>(i)]) < 1e-6);
  }
  Golden<ExpertChoice<>, SharedCache> shared(backend, golden_config());
  CHECK(std::abs(aux_loss(shared).aux_loss - 1.479741) < 1e-6);
  Golden<ExpertChoice<>, HybridCache> hybrid(backend, golden_config());
  CHECK(std::abs(aux_loss(hybrid).aux_loss - 1.479915) < 1e-6);
}

TEST_CASE("golden: gradients of the language-model loss and of the auxiliary loss") {
  HostDouble backend;
  GoldenBatch const batch;
  auto config = golden_config();
  config.recursion.aux_coefficient = 1.0;
  Golden<ExpertChoice<>, RecursionWiseCache> model(backend, config);
  set_expert_weights(model);
  model.parameters().enable_gradients();
  auto const gradient = [&](char const* name) { return model.parameters().read_gradient(name); };
  SECTION("language-model loss") {
    model.forward_backward(batch.view(), batch.targets, {}, {1.0 / 11.0, 0.0});
    check_gradient(gradient("model.layers.1.mor_router.router.weight"), 0.148373, {-0.0495729, -0.0020961, -0.0210290});
    check_gradient(gradient("model.layers.2.mor_router.router.weight"), 0.070125, {-0.0015613, 0.0299743, -0.0122147});
    check_gradient(gradient("model.layers.3.mor_router.router.weight"), 0.105470, {0.0184385, 0.0395344, 0.0017983});
    check_gradient(gradient("model.layers.1.block.0.mlp.down_proj.weight"), 0.140042, {0.0039787, 0.0036401, 0.0010114});
    check_gradient(gradient("model.layers.1.block.1.self_attn.k_proj.weight"), 0.181540,
                   {-0.0003129, -0.0068990, 0.0013122});
    check_gradient(gradient("model.embed_tokens.weight"), 2.639992, {-0.0003124, 0.0136042, -0.0050744});
  }
  SECTION("auxiliary loss: not detached from the backbone") {
    model.forward_backward(batch.view(), batch.targets, {}, {0.0, 1.0});
    CHECK(std::abs(norm_of(gradient("model.layers.1.mor_router.router.weight")) - 0.525020) < 2e-6);
    CHECK(std::abs(norm_of(gradient("model.layers.2.mor_router.router.weight")) - 2.447300) < 2e-6);
    CHECK(std::abs(norm_of(gradient("model.layers.1.block.0.mlp.down_proj.weight")) - 0.015870) < 2e-6);
  }
}

TEST_CASE("golden: single precision stays within 2e-5 of the double run") {
  host::Backend<float> backend;
  RecursiveTransformer<ExpertChoice<>, RecursionWiseCache, MiddleCycle, host::Backend<float>> model(backend,
                                                                                                    golden_config());
  set_expert_weights(model);
  GoldenBatch const batch;
  auto const logits = model.forward(batch.view(), RoutingMode::TopK);
  std::array<double, 4> const first{-3.512217, -1.703231, 0.327958, 2.316362};
  for (Index v = 0; v < 4; ++v) {
    CHECK(std::abs(static_cast<double>(logits(0, v)) - first[static_cast<std::size_t>(v)]) < 2e-5);
  }
  CHECK(model.active_rows(2) == std::vector<Row>{1, 5, 7, 9});
}
