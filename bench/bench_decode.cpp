// SPDX-License-Identifier: Apache-2.0
// One-token decode steps on the host with a warm cache. Decoding is bound by memory: bandwidth_share counts the bytes of
// the weights and keys that the step must read (from a trace) over the measured bandwidth.
#include "support/machine_peak.hpp"
#include "support/model_shapes.hpp"

#include "mor/backend/host/backend.hpp"
#include "mor/backend/trace/backend.hpp"
#include "mor/infer/generate.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/all_tokens.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/expert_choice.hpp"
#include "mor/policy/sharing.hpp"

#include <vector>

namespace {

using namespace mor;

template <class Router, class Sharing, class B>
struct Decoder {
  Decoder(B& backend, ModelConfig const& config, Index prompt) : model(backend, config), cache(model.make_cache(1, 4096)) {
    model.initialize(1);
    for (Index i = 0; i < prompt; ++i) tokens.push_back(static_cast<Token>(i * 7919 % 509));
    (void)model.advance(sequence(tokens, 0), cache, RoutingMode::Threshold);
    position = prompt;
  }
  void step() {
    if (position == 4096) {  // start again with the same keys: the cost depends on lengths alone
      cache.clear();
      (void)model.advance(sequence(tokens, 0), cache, RoutingMode::Threshold);
      position = static_cast<Index>(tokens.size());
    }
    auto const one = std::span<Token const>(tokens).first(1);
    (void)model.advance(sequence(one, position++), cache, RoutingMode::Threshold);
  }
  RecursiveTransformer<Router, RecursionWiseCache, Sharing, B> model;
  KvCache<B> cache;
  infer::SingleSequence sequence;
  std::vector<Token> tokens;
  Index position = 0;
};

template <class Router, class Sharing>
void decode(benchmark::State& state) {
  auto config = bench::small_model(state.range(0), 4096);
  config.transformer.hidden_size = 512;
  config.transformer.intermediate_size = 1408;
  config.transformer.num_attention_heads = 8;
  Index const prompt = state.range(1);
  trace::Backend<float, float> recorder;
  Decoder<Router, Sharing, trace::Backend<float, float>> traced(recorder, config, prompt);
  recorder.clear();
  traced.step();
  bench::Work work;
  work.bytes = static_cast<double>(trace::total_bytes(recorder.operations()));

  host::Backend<float> backend;
  Decoder<Router, Sharing, host::Backend<float>> decoder(backend, config, prompt);
  double depths = 0.0;
  Index steps = 0;
  bench::measure(state, backend.threads(), work, [&] {
    decoder.step();
    depths += decoder.model.depths().front();
    ++steps;
  });
  state.counters["tokens/s"] = 1e6 / state.counters["median_us"];
  state.counters["depth"] = depths / static_cast<double>(steps);
}

void vanilla(benchmark::State& state) { decode<AllTokens, NoSharing>(state); }
void recursive(benchmark::State& state) { decode<AllTokens, MiddleCycle>(state); }
/// Random weights: about half of the tokens stop at each recursion. The bytes counted are those of full depth, so the
/// bandwidth share is that of work *served*, and can exceed one.
void mixture_of_recursions(benchmark::State& state) { decode<ExpertChoice<>, MiddleCycle>(state); }

}  // namespace

BENCHMARK(vanilla)->Args({1, 128})->Args({1, 1024})->ArgNames({"recursions", "prompt"})->UseManualTime();
BENCHMARK(recursive)->Args({3, 128})->ArgNames({"recursions", "prompt"})->UseManualTime();
BENCHMARK(mixture_of_recursions)->Args({3, 128})->ArgNames({"recursions", "prompt"})->UseManualTime();
