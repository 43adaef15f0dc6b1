// SPDX-License-Identifier: Apache-2.0
// Whole models on the trace backend: what they would compute, without computing it.
#include "mor/backend/trace/backend.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/all_tokens.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/expert_choice.hpp"
#include "mor/policy/sharing.hpp"
#include "mor/policy/token_choice.hpp"

#include "support/catch.hpp"
#include "trace/model_cases.hpp"

#include <cstdint>
#include <utility>
#include <vector>

namespace trace = mor::trace;
using mor::Index;
using mor::ModelConfig;
using mor::TransformerConfig;
using Trace = trace::Backend<float, float>;

namespace {
/// Matrix elements of one layer that multiply each row.
Index layer_elements(TransformerConfig const& t) {
  return t.hidden_size * (2 * t.query_size() + 2 * t.key_value_size() + 3 * t.intermediate_size);
}
Index head_elements(TransformerConfig const& t) { return t.vocab_size * t.hidden_size; }

/// Matrix FLOPs of `loss` on one batch.
template <class Router, class Cache, class Sharing>
Index forward_flops(ModelConfig const& config, mor::test::Rows const& rows, trace::Options options = {}) {
  Trace backend(options);
  mor::RecursiveTransformer<Router, Cache, Sharing, Trace> model(backend, config);
  backend.clear();
  model.loss(rows.batch(), rows.tokens, mor::RoutingMode::TopK);
  return backend.matrix_flops();
}

trace::Options uniform() {
  trace::Options options;
  options.assumed_depth = trace::AssumedDepth::Uniform;
  return options;
}

/// SmolLM-360M's shape.
ModelConfig smol_360m() {
  ModelConfig config;
  config.transformer = {49152, 960, 2560, 15, 5, 64, 2048, 1e-5, 10000.0, 0.02, true, 0, 0};
  config.num_hidden_layers = 32;
  return config;
}

/// The same as a recursive model with unique first and last layers and the fewest layers not below 32.
ModelConfig smol_360m_recursive(Index recursions) {
  ModelConfig config = smol_360m();
  config.recursion.num_recursions = recursions;
  config.recursion.num_prelude_layers = 1;
  config.recursion.num_coda_layers = 1;
  config.num_hidden_layers = 2 + recursions * ((30 + recursions - 1) / recursions);
  return config;
}
}  // namespace

TEST_CASE("a vanilla model costs twice its matrix elements a token, its head and half the attention square") {
  auto const config = mor::test::small_vanilla(3);
  auto const& t = config.transformer;
  mor::test::Rows const rows({5, 11, 1}, t.vocab_size);
  Index const linear = 2 * rows.size() * (3 * layer_elements(t) + head_elements(t));
  Index const attention = 3 * 4 * t.query_size() * rows.causal_pairs();
  SECTION("forward") {
    CHECK(forward_flops<mor::AllTokens, mor::RecursionWiseCache, mor::NoSharing>(config, rows) == linear + attention);
  }
  SECTION("training: products three times, attention 3.5 times") {
    Trace backend;
    mor::RecursiveTransformer<mor::AllTokens, mor::RecursionWiseCache, mor::NoSharing, Trace> model(backend, config);
    model.parameters().enable_gradients();
    backend.clear();
    model.forward_backward(rows.batch(), rows.tokens, {}, {});
    CHECK(backend.matrix_flops() == 3 * linear + 7 * attention / 2);
    auto const& operations = backend.operations();
    CHECK(trace::first_out_of_order(operations, {"embed", "rms_norm", "linear", "attention", "swiglu"}) == "");
    CHECK(trace::first_out_of_order(operations, {"head_loss_backward", "attention_backward", "embed_backward"}) == "");
  }
}

TEST_CASE("SmolLM-360M and its expert-choice models need the FLOPs that the formulas give") {
  mor::test::Rows const rows({2048}, 49152);
  auto const per_token = [&](Index flops) { return static_cast<double>(flops) * 1e-6 / 2048.0; };
  using mor::ExpertChoice, mor::MiddleCycle, mor::RecursionWiseCache, mor::SharedCache, mor::AllTokens;
  // 10^6 FLOPs a token, forward, from the closed form 2 P (u + n sum(c)) + 2 V d + 2 T q (u + n sum(c^2)) with P matrix
  // elements a layer, u unique layers and n layers a recursion of capacity c; it leaves out routers and the diagonal.
  CHECK(per_token(forward_flops<AllTokens, RecursionWiseCache, mor::NoSharing>(smol_360m(), rows)) ==
        Approx(849.3).epsilon(2e-4));
  CHECK(per_token(forward_flops<AllTokens, RecursionWiseCache, MiddleCycle>(smol_360m_recursive(4), rows)) ==
        Approx(896.5).epsilon(2e-4));
  CHECK(per_token(forward_flops<ExpertChoice<>, RecursionWiseCache, MiddleCycle>(smol_360m_recursive(2), rows)) ==
        Approx(657.7).epsilon(2e-4));
  CHECK(per_token(forward_flops<ExpertChoice<>, RecursionWiseCache, MiddleCycle>(smol_360m_recursive(3), rows)) ==
        Approx(595.9).epsilon(2e-4));
  CHECK(per_token(forward_flops<ExpertChoice<>, RecursionWiseCache, MiddleCycle>(smol_360m_recursive(4), rows)) ==
        Approx(593.8).epsilon(2e-4));
  CHECK(per_token(forward_flops<ExpertChoice<>, SharedCache, MiddleCycle>(smol_360m_recursive(2), rows)) ==
        Approx(1990.0 / 3).epsilon(1e-3));
}

TEST_CASE("expert-choice FLOPs follow the capacities") {
  auto config = mor::test::small_recursive(3);
  auto const& t = config.transformer;
  mor::test::Rows const rows({12, 24}, t.vocab_size);
  auto const expected = [&](std::vector<std::vector<Index>> const& kept) {
    Index const ends = 2 * (2 * rows.size() * layer_elements(t) + 4 * t.query_size() * rows.causal_pairs());
    Index total = ends + 2 * rows.size() * head_elements(t);
    Index candidates = rows.size();
    for (auto const& step : kept) {
      total += 2 * candidates * t.hidden_size;  // the router scores who is still there
      candidates = 0;
      for (Index const k : step) {
        total += 2 * (2 * k * layer_elements(t) + 4 * t.query_size() * k * (k + 1) / 2);
        candidates += k;
      }
    }
    return total;
  };
  auto const measured = [&] {
    return forward_flops<mor::ExpertChoice<>, mor::RecursionWiseCache, mor::MiddleCycle>(config, rows);
  };
  CHECK(measured() == expected({{12, 24}, {8, 16}, {4, 8}}));
  config.recursion.capacities = {1.0, 0.5, 0.25};
  CHECK(measured() == expected({{12, 24}, {6, 12}, {3, 6}}));
}

TEST_CASE("token choice costs every recursion at worst, and expert choice's shares when depths are uniform") {
  auto const config = mor::test::small_recursive(3);
  auto const& t = config.transformer;
  mor::test::Rows const rows({12, 24}, t.vocab_size);
  Index const router = 2 * rows.size() * t.hidden_size * 3;
  auto const token_choice = [&](trace::Options options) {
    return forward_flops<mor::TokenChoice<>, mor::RecursionWiseCache, mor::MiddleCycle>(config, rows, options) - router;
  };
  Index const all = forward_flops<mor::AllTokens, mor::RecursionWiseCache, mor::MiddleCycle>(config, rows);
  Index const shares = forward_flops<mor::ExpertChoice<>, mor::RecursionWiseCache, mor::MiddleCycle>(config, rows);
  Index const expert_routers = 2 * t.hidden_size * (36 + 36 + 24);
  CHECK(token_choice({}) == all);
  CHECK(token_choice(uniform()) == shares - expert_routers);
}

TEST_CASE("a shared cache projects keys and values in the first recursion only") {
  auto const config = mor::test::small_recursive(3);
  auto const& t = config.transformer;
  mor::test::Rows const rows({12, 24}, t.vocab_size);
  Trace backend;
  mor::RecursiveTransformer<mor::ExpertChoice<>, mor::SharedCache, mor::MiddleCycle, Trace> model(backend, config);
  backend.clear();
  model.loss(rows.batch(), rows.tokens, mor::RoutingMode::TopK);
  Index fused = 0, queries_only = 0;
  for (auto const& operation : backend.operations()) {
    if (operation.name != "linear" || operation.shapes[0].cols != t.hidden_size) continue;
    fused += operation.shapes[1].rows == t.query_size() + 2 * t.key_value_size() ? 1 : 0;
    queries_only += operation.shapes[1].rows == t.query_size() ? 1 : 0;
  }
  CHECK(fused == 4);         // prelude, first recursion's two layers, coda
  CHECK(queries_only == 4);  // two layers in each of the two deeper recursions
  // Against own keys: no projection, but every query sees its whole past, on average half of the sequence.
  Index const own = forward_flops<mor::ExpertChoice<>, mor::RecursionWiseCache, mor::MiddleCycle>(config, rows);
  Index projections = 0, attention = 0;
  for (auto const& [k, length] : std::vector<std::pair<Index, Index>>{{8, 12}, {16, 24}, {4, 12}, {8, 24}}) {
    projections += 2 * 2 * k * t.hidden_size * 2 * t.key_value_size();
    attention += 2 * 4 * t.query_size() * (k * (length + 1) - k * (k + 1)) / 2;
  }
  CHECK(backend.matrix_flops() == own - projections + attention);
}

TEST_CASE("decoding against a cache counts the cached keys exactly") {
  auto const config = mor::test::small_vanilla(2);
  auto const& t = config.transformer;
  Trace backend;
  mor::RecursiveTransformer<mor::AllTokens, mor::RecursionWiseCache, mor::NoSharing, Trace> model(backend, config);
  auto cache = model.make_cache(2, 32);
  mor::test::Rows const prompt({7, 3}, t.vocab_size);
  model.advance(prompt.batch(), cache, mor::RoutingMode::FullDepth);
  backend.clear();
  mor::test::Rows next({1, 1}, t.vocab_size);
  next.positions = {7, 3};
  model.advance(next.batch(), cache, mor::RoutingMode::FullDepth);
  Index const linear = 2 * 2 * (2 * layer_elements(t) + head_elements(t));
  CHECK(backend.matrix_flops() == linear + 2 * 4 * t.query_size() * (8 + 4));
  CHECK(trace::count_calls(backend.operations(), "write_keys") == 4);
}

TEST_CASE("weights, gradients and caches are persistent memory, activations are not") {
  auto const config = mor::test::small_vanilla(2);
  auto const& t = config.transformer;
  Trace backend;
  mor::RecursiveTransformer<mor::AllTokens, mor::RecursionWiseCache, mor::NoSharing, Trace> model(backend, config);
  Index const parameters = 2 * (layer_elements(t) + 2 * t.hidden_size) + t.hidden_size + head_elements(t);
  Index const statistics = 4 * mor::StatisticsLayout{1}.size();
  CHECK(backend.persistent_bytes() == 4 * parameters + statistics);
  model.parameters().enable_gradients();
  CHECK(backend.persistent_bytes() == 8 * parameters + statistics);
  auto const cache = model.make_cache(3, 10);
  CHECK(backend.persistent_bytes() == 8 * parameters + statistics + cache.bytes());
  CHECK(backend.arena().peak_bytes() == 0);
  mor::test::Rows const rows({9}, t.vocab_size);
  model.forward(rows.batch(), mor::RoutingMode::TopK);
  CHECK(backend.persistent_bytes() == 8 * parameters + statistics + cache.bytes());
  CHECK(backend.arena().peak_bytes() > 0);
}

TEST_CASE("half-width weights add a copy to the persistent memory and halve the activations' traffic") {
  struct Half {
    std::uint16_t bits;
  };
  using Mixed = trace::Backend<Half, float>;
  auto const config = mor::test::small_vanilla(2);
  mor::test::Rows const rows({16}, config.transformer.vocab_size);
  auto const run = [&]<class B>(B& backend) {
    mor::RecursiveTransformer<mor::AllTokens, mor::RecursionWiseCache, mor::NoSharing, B> model(backend, config);
    backend.clear();
    model.loss(rows.batch(), rows.tokens, mor::RoutingMode::TopK);
    Index bytes = 0;
    for (auto const& operation : backend.operations()) bytes += operation.name == "linear" ? operation.bytes() : 0;
    return std::pair(backend.persistent_bytes(), bytes);
  };
  Trace full;
  Mixed half;
  auto const [full_memory, full_traffic] = run(full);
  auto const [half_memory, half_traffic] = run(half);
  Index const statistics = 4 * mor::StatisticsLayout{1}.size();
  CHECK(2 * (half_memory - statistics) == 3 * (full_memory - statistics));
  CHECK(2 * half_traffic == full_traffic);
}
