// SPDX-License-Identifier: Apache-2.0
// Generation through the cache gives the tokens that repeated full forwards would, in any chunking.
#include "support/catch.hpp"
#include "support/tiny_models.hpp"

#include "mor/backend/host/backend.hpp"
#include "mor/infer/generate.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/expert_choice.hpp"
#include "mor/policy/sharing.hpp"

#include <limits>

using namespace mor;

namespace {

using Net = RecursiveTransformer<ExpertChoice<>, RecursionWiseCache, MiddleCycle, host::Backend<float>>;

ModelConfig small_config() {
  auto config = test::tiny_config(RouterKind::ExpertChoice, CacheKind::RecursionWise, SharingKind::MiddleCycle, 3, 1);
  config.transformer.vocab_size = 31;
  config.transformer.max_position_embeddings = 24;
  return config;
}

struct Run {
  std::vector<Token> tokens;
  std::vector<Row> depths;
  infer::FinishReason reason = infer::FinishReason::Length;
};

Run run(Net& net, infer::GenerationRequest const& request, std::size_t stop_after = 1000) {
  Run result;
  result.reason = infer::generate(net, request, [&](infer::GeneratedToken const& token) {
    result.tokens.push_back(token.token);
    result.depths.push_back(token.depth);
    return result.tokens.size() < stop_after;
  });
  return result;
}

}  // namespace

TEST_CASE("greedy generation equals taking the likeliest token of a full forward again and again") {
  host::Backend<float> backend;
  Net net(backend, small_config());
  net.initialize(2);
  infer::GenerationRequest request;
  request.prompt = {3, 1, 4, 1, 5};
  request.max_new_tokens = 12;
  request.sampling.temperature = 0.0;
  auto const generated = run(net, request);
  REQUIRE(generated.tokens.size() == 17);
  std::vector<Token> text = request.prompt;
  infer::SingleSequence sequence;
  while (text.size() < 17) {
    auto const logits = net.forward(sequence(text, 0), RoutingMode::Threshold);
    Token best = 0;
    for (Token v = 1; v < 31; ++v) {
      if (logits(logits.rows - 1, v) > logits(logits.rows - 1, best)) best = v;
    }
    text.push_back(best);
  }
  CHECK(generated.tokens == text);
  (void)net.forward(sequence(text, 0), RoutingMode::Threshold);
  CHECK(generated.depths == net.depths());
}

TEST_CASE("the size of prefill chunks does not change the text") {
  host::Backend<float> backend;
  Net net(backend, small_config());
  net.initialize(3);
  infer::GenerationRequest request;
  request.prompt = {3, 1, 4, 1, 5, 9, 2};
  request.max_new_tokens = 10;
  request.sampling.seed = 7;
  auto const whole = run(net, request);
  for (Index const chunk : {1, 2, 5}) {
    request.prefill_chunk = chunk;
    auto const chunked = run(net, request);
    CHECK(chunked.tokens == whole.tokens);
    CHECK(chunked.depths == whole.depths);
  }
}

TEST_CASE("generation ends at the limit, the end token, the context, or when the caller says so") {
  host::Backend<float> backend;
  Net net(backend, small_config());
  net.initialize(4);
  infer::GenerationRequest request;
  request.prompt = {1, 2};
  request.max_new_tokens = 3;
  request.sampling.temperature = 0.0;
  auto const limited = run(net, request);
  CHECK(limited.reason == infer::FinishReason::Length);
  CHECK(limited.tokens.size() == 5);
  request.end_token = limited.tokens[3];
  CHECK(run(net, request).reason == infer::FinishReason::EndToken);
  request.end_token.reset();
  request.max_new_tokens = 1000;
  auto const full = run(net, request);
  CHECK(full.reason == infer::FinishReason::ContextFull);
  CHECK(full.tokens.size() == 24);
  request.max_new_tokens = std::numeric_limits<Index>::max();
  CHECK(run(net, request).tokens == full.tokens);
  CHECK(run(net, request, 4).reason == infer::FinishReason::Stopped);
}

TEST_CASE("an empty prompt and one longer than the context are refused") {
  host::Backend<float> backend;
  Net net(backend, small_config());
  infer::GenerationRequest request;
  CHECK_THROWS_WITH(run(net, request), Catch::Matchers::ContainsSubstring("prompt is empty"));
  request.prompt.assign(25, 1);
  CHECK_THROWS_WITH(run(net, request), Catch::Matchers::ContainsSubstring("at most 24"));
}
