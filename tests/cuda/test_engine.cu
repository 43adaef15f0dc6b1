// SPDX-License-Identifier: Apache-2.0
// The serving engine on the device: what a request gets depends on the request alone, and is what the model says.
#include "cuda/device_present.hpp"
#include "support/catch.hpp"

#include "mor/infer/engine.hpp"
#include "mor/infer/generate.hpp"
#include "mor/mor.cuh"

#include <cmath>
#include <map>
#include <vector>

using namespace mor;

namespace {

template <class T>
using Net = RecursiveTransformer<ExpertChoice<>, RecursionWiseCache, MiddleCycle, cuda::Backend<T>>;
using Chosen = RecursiveTransformer<TokenChoice<>, SharedCache, MiddleCycle, cuda::Backend<bfloat16>>;

ModelConfig small_config() {
  ModelConfig config;
  config.transformer.vocab_size = 301;
  config.transformer.hidden_size = 128;
  config.transformer.intermediate_size = 256;
  config.transformer.num_attention_heads = 6;
  config.transformer.num_key_value_heads = 2;
  config.transformer.head_dim = 64;
  config.transformer.max_position_embeddings = 256;
  config.transformer.initializer_range = 0.1;
  config.recursion.num_recursions = 3;
  config.recursion.num_prelude_layers = 1;
  config.recursion.num_coda_layers = 1;
  config.num_hidden_layers = 8;
  return config;
}

std::vector<infer::Request> some_requests(Index count) {
  std::vector<infer::Request> requests(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < requests.size(); ++i) {
    auto& request = requests[i];
    for (std::size_t p = 0; p < 1 + (i * 7) % 83; ++p) request.prompt.push_back(static_cast<Token>((i / 4 * 5 + p * p) % 301));
    request.max_new_tokens = static_cast<Index>(1 + (i * 5) % 60);
    request.sampling.seed = i;
    request.sampling.temperature = i % 3 == 0 ? 0.0 : 0.9;
    if (i % 4 == 1) request.sampling.repetition_penalty = 1.3;
    if (i % 5 == 1) request.sampling.top_k = 7;
    if (i % 7 == 2) request.sampling.top_p = 0.8;
    if (i % 6 == 2) request.end_token = 3;
    if (i % 11 == 5) request.depth.max_depth = 2;
    if (i % 13 == 5) request.depth.min_depth = 2;
  }
  return requests;
}

/// What one request got.
struct Answer {
  std::vector<Token> tokens;
  std::vector<double> log_probabilities;
  std::vector<Row> depths;
  bool operator==(Answer const&) const = default;
};

template <class Model, class S = infer::TickScheduler>
std::vector<Answer> serve(Model& model, std::vector<infer::Request> const& requests, infer::EngineOptions const& options,
                          S scheduler = {}, infer::EngineStatistics* statistics_out = nullptr) {
  infer::Engine<Model, S> engine(model, options, scheduler);
  std::map<infer::RequestId, Answer> answers;
  for (auto const& request : requests) answers[engine.submit(request)];
  std::size_t finished = 0;
  for (Index ticks = 0; !engine.idle(); ++ticks) {
    REQUIRE(ticks < 200000);
    for (auto const& event : engine.step()) {
      auto& answer = answers.at(event.request);
      if (event.kind == infer::EventKind::Token) {
        answer.tokens.push_back(event.token);
        answer.log_probabilities.push_back(event.log_probability);
      } else {
        ++finished;
        answer.depths.assign(event.depths.begin(), event.depths.end());
      }
    }
  }
  REQUIRE(finished == requests.size());
  engine.drop_prefixes();
  auto const statistics = engine.statistics();
  CHECK(statistics.free_pages == statistics.total_pages);
  CHECK(statistics.free_end_pages == statistics.total_end_pages);
  if (statistics_out != nullptr) *statistics_out = statistics;
  std::vector<Answer> list;
  for (auto& [id, answer] : answers) list.push_back(std::move(answer));
  return list;
}

infer::EngineOptions options_of(Index slots, Index chunk) {
  infer::EngineOptions options;
  options.slots = slots;
  options.prefill_chunk = chunk;
  options.prefill_rows = std::max<Index>(chunk, 96);
  options.row_invariant = true;
  return options;
}

std::size_t differing(std::vector<Answer> const& a, std::vector<Answer> const& b) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < a.size(); ++i) count += a[i] == b[i] ? 0 : 1;
  return count;
}

}  // namespace

TEST_CASE("1000 sampled requests get the same bits on the device alone and in any batch, chunk, schedule and storage", "[cuda]") {
  test::require_device();
  cuda::Backend<bfloat16> backend;
  Net<bfloat16> net(backend, small_config());
  net.initialize(5);
  auto const requests = some_requests(1000);
  auto const many = serve(net, requests, options_of(48, 64));
  auto other = options_of(7, 9);
  other.prefix_cache = false;
  other.ticks_in_flight = 1;
  CHECK(differing(serve(net, requests, other), many) == 0);
  auto tight = options_of(48, 64);
  tight.cache_bytes = 40 * 64 * (2 * 2 + 6) * 128 * 2;  // about 40 pages: requests are pre-empted
  CHECK(differing(serve(net, requests, tight), many) == 0);
  auto few = requests;
  few.resize(60);
  auto const alone = serve(net, few, options_of(1, 256));
  CHECK(differing(alone, many) == 0);  // of those that were asked for again
  CHECK(differing(serve(net, few, options_of(8, 64), infer::HomogeneousScheduler{}), alone) == 0);
  CHECK(differing(serve(net, few, options_of(8, 64), infer::NoRefillScheduler{}), alone) == 0);
  CHECK(differing(serve(net, few, options_of(8, 64), infer::LazyTickScheduler{5}), alone) == 0);
  CHECK(differing(serve(net, few, options_of(9, 64), infer::FullBatchScheduler{4}), alone) == 0);
}

TEST_CASE("ticks that the device goes on for by itself change no bit of what requests get", "[cuda]") {
  test::require_device();
  cuda::Backend<bfloat16> backend;
  Net<bfloat16> net(backend, small_config());
  net.initialize(5);
  auto const requests = some_requests(300);
  auto const single = serve(net, requests, options_of(24, 64));
  for (Index const ticks : {2, 8, 100}) {
    for (Index const in_flight : {1, 2}) {
      CAPTURE(ticks, in_flight);
      auto options = options_of(ticks == 8 ? 5 : 24, 64);
      options.ticks_per_launch = ticks;
      options.ticks_in_flight = in_flight;
      infer::EngineStatistics statistics;
      CHECK(differing(serve(net, requests, options, infer::TickScheduler{}, &statistics), single) == 0);
      CHECK(statistics.launches < statistics.ticks);  // else the loops were not captured
    }
  }
  auto tight = options_of(24, 64);
  tight.cache_bytes = 30 * 64 * (2 * 2 + 6) * 128 * 2;
  tight.ticks_per_launch = 8;
  CHECK(differing(serve(net, requests, tight), single) == 0);
}

TEST_CASE("kernels that take a stage or the end of a token at once change no more than last bits on the device", "[cuda]") {
  test::require_device();
  cuda::Backend<bfloat16> backend;
  Net<bfloat16> net(backend, small_config());
  net.initialize(5);
  auto requests = some_requests(200);
  for (auto& request : requests) request.max_new_tokens = 1;
  auto options = options_of(24, 64);
  auto const expected = serve(net, requests, options);
  options.row_invariant = false;
  auto const got = serve(net, requests, options);
  std::size_t close = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    REQUIRE(got[i].tokens.size() == 1);
    bool const same = got[i].tokens == expected[i].tokens;
    close += same && std::abs(got[i].log_probabilities[0] - expected[i].log_probabilities[0]) < 0.05 ? 1 : 0;
  }
  CHECK(close > got.size() * 17 / 20);  // last bits decide some depths and tokens
}

TEST_CASE("the device goes on by itself with kernels of which all blocks run at once", "[cuda]") {
  test::require_device();
  cuda::Backend<bfloat16> backend;
  Net<bfloat16> net(backend, small_config());
  net.initialize(5);
  auto const requests = some_requests(100);
  auto options = options_of(24, 64);
  options.row_invariant = false;
  options.ticks_per_launch = 8;
  infer::EngineStatistics statistics;
  static_cast<void>(serve(net, requests, options, infer::TickScheduler{}, &statistics));
  CHECK(statistics.launches < statistics.ticks);  // else the loops were not captured
}

TEST_CASE("texts that decode in step need few launches where the device goes on by itself", "[cuda]") {
  test::require_device();
  cuda::Backend<bfloat16> backend;
  Net<bfloat16> net(backend, small_config());
  net.initialize(5);
  std::vector<infer::Request> requests(4);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    requests[i].prompt = {static_cast<Token>(i)};
    requests[i].max_new_tokens = 200;
    requests[i].sampling.seed = i;
  }
  auto options = options_of(4, 64);
  options.ticks_per_launch = 16;
  options.context = 256;
  infer::EngineStatistics statistics;
  static_cast<void>(serve(net, requests, options, infer::TickScheduler{}, &statistics));
  CHECK(statistics.ticks >= 200);
  // Beginnings and ends, and the first launch of each size, are short.
  CHECK(statistics.launches < statistics.ticks / 16 + 40);
}

TEST_CASE("token choice over a shared cache is served in the same bits in any batch on the device", "[cuda]") {
  test::require_device();
  cuda::Backend<bfloat16> backend;
  Chosen net(backend, small_config());
  net.initialize(6);
  auto const requests = some_requests(150);
  CHECK(differing(serve(net, requests, options_of(33, 64)), serve(net, requests, options_of(3, 17))) == 0);
}

TEST_CASE("the engine on the device says what the model says when it generates alone", "[cuda]") {
  test::require_device();
  cuda::Backend<float> backend;
  Net<float> net(backend, small_config());
  net.initialize(7);
  auto requests = some_requests(40);
  for (auto& request : requests) {
    request.sampling = {.temperature = 0.0};
    request.depth = {};
  }
  std::vector<Answer> expected;
  for (auto const& request : requests) {
    infer::GenerationRequest single;
    single.prompt = request.prompt;
    single.max_new_tokens = request.max_new_tokens;
    single.end_token = request.end_token;
    single.sampling = request.sampling;
    single.last_depth = false;
    auto& answer = expected.emplace_back();
    infer::generate(net, single, [&](infer::GeneratedToken const& token) {
      if (!token.prompt) {
        answer.tokens.push_back(token.token);
        answer.log_probabilities.push_back(token.log_probability);
      }
      return true;
    });
  }
  auto const served = serve(net, requests, options_of(12, 32));
  std::size_t same = 0;
  for (std::size_t i = 0; i < served.size(); ++i) {
    if (served[i].tokens != expected[i].tokens) continue;  // a logit at the threshold may round to the other side
    ++same;
    for (std::size_t t = 0; t < served[i].tokens.size(); ++t) {
      CHECK(std::abs(served[i].log_probabilities[t] - expected[i].log_probabilities[t]) < 1e-3);
    }
  }
  CHECK(same >= 38);
}
