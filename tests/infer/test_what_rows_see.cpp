// SPDX-License-Identifier: Apache-2.0
// I1, I2 and I3: where rows stand, and which keys each of them sees, read from the lists that attention was given.
#include "infer/recording_backend.hpp"
#include "served/served.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"

#include "mor/infer/engine.hpp"
#include "mor/math/serving.hpp"
#include "mor/model/recursive_model.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/expert_choice.hpp"
#include "mor/policy/sharing.hpp"
#include "mor/policy/token_choice.hpp"

#include <algorithm>

using namespace mor;
using namespace mor::test;

namespace {

/// What token t of a text with these depths sees in recursion r: the offline mask (mor-spec 5.1).
std::vector<SeenKey> offline_mask(CacheKind cache, std::vector<Row> const& depths, Row t, Row r) {
  std::vector<SeenKey> seen;
  for (Row j = 0; j <= t; ++j) {
    bool const entered = depths[static_cast<std::size_t>(j)] > r;
    switch (cache) {
      case CacheKind::RecursionWise:
        if (entered) seen.push_back({j, r});
        break;
      case CacheKind::Shared: seen.push_back({j, 0}); break;
      case CacheKind::Hybrid: seen.push_back({j, entered ? r : Row{0}}); break;
    }
  }
  return seen;
}

/// Looks found, and those that were not as the mask says.
struct Verdict {
  Index looks = 0, wrong = 0, missing = 0;
};

void check_text(RecordingBackend const& backend, ModelConfig const& model, infer::DepthKnobs const& knobs,
                Outcome const& outcome, Verdict& verdict) {
  auto const recursions = static_cast<Row>(model.recursion.num_recursions);
  auto const most = knobs.max_depth == 0 ? recursions : static_cast<Row>(knobs.max_depth);
  std::uint64_t text = RecordingBackend::begin_text(static_cast<Row>(knobs.min_depth), most,
                                                    math::float_word(static_cast<float>(knobs.threshold)));
  for (std::size_t t = 0; t < outcome.depths.size(); ++t) {
    text = RecordingBackend::mix(text, outcome.text[t]);
    auto const position = static_cast<Row>(t);
    for (Row r = kNoDepth; r < outcome.depths[t]; ++r) {
      std::vector<SeenKey> expected;
      if (r == kNoDepth) {
        for (Row j = 0; j <= position; ++j) expected.push_back({j, kNoDepth});
      } else {
        expected = offline_mask(model.recursion.cache, outcome.depths, position, r);
      }
      Index found = 0;
      for (Index plane = 0; plane < backend.planes(); ++plane) {
        auto const look = backend.looks().find({text, r, plane});
        if (look == backend.looks().end()) continue;
        ++found;
        verdict.wrong += look->second == expected ? 0 : 1;
      }
      // Keys and values of each layer of prelude and coda, or of the block.
      Index const layers =
          r == kNoDepth ? model.recursion.num_prelude_layers + model.recursion.num_coda_layers : model.block_layers();
      verdict.missing += found == 2 * layers ? 0 : 1;
      verdict.looks += found;
    }
    for (Row r = outcome.depths[t]; r < recursions; ++r) {
      for (Index plane = 0; plane < backend.planes(); ++plane)
        verdict.wrong += backend.looks().contains({text, r, plane}) ? 1 : 0;
    }
  }
}

ModelConfig two_layer_block(RouterKind router, CacheKind cache) {
  auto model = tiny_model(router, cache, SharingKind::MiddleCycle);
  model.num_hidden_layers += model.recursion.num_recursions;
  return model;
}

infer::EngineOptions roomy_options() {
  auto options = tiny_options();
  options.cache_bytes = 1 << 20;  // more than the slots need, so that prefixes are kept
  return options;
}

infer::EngineOptions tight_options(ModelConfig const& model) {
  auto options = tiny_options();
  options.page_size = 4;
  options.slots = 7;
  auto const& t = model.transformer;
  options.cache_bytes = 70 * 2 * t.key_value_size() * options.page_size * static_cast<Index>(sizeof(float)) * 3;
  options.admission_margin = 0.0;
  options.pad_rows = true;
  return options;
}

infer::EngineOptions in_long_launches(infer::EngineOptions options) {
  options.ticks_per_launch = 6;
  options.few_rows = 100;  // prompts too
  return options;
}

/// Does as its rule says.
struct Ruled {
  static constexpr bool lock_step = true, full_depth = false;
  TickRule held;
  [[nodiscard]] TickRule rule() const { return held; }
};

/// @param rule  in place of that of `TickScheduler`
template <class Router, class Cache>
void check(ModelConfig model, infer::EngineOptions const& options, TickRule const& rule = {}) {
  INFO(describe(model) << ", one depth " << rule.one_depth << ", in step " << rule.in_step << ", rows " << rule.most_rows << ", coda from "
                       << rule.least_finished);
  RecordingBackend backend(1);
  using Model = RecursiveModel<Router, Cache, RecordingBackend>;
  Model net(backend, model, Router(model.recursion), MiddleCycle::schedule(model));
  net.initialize(11);
  auto requests = mixed_requests(160, model, 20, 8);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (i % 4 == 1) requests[i].depth = {0.1, 1, 0};
    if (i % 4 == 2) requests[i].depth = {-0.1, 2, 0};
    if (i % 4 == 3) requests[i].depth = {0.0, 1, 2};
    if (i < 40 || i % 3 == 0) continue;
    auto const& earlier = requests[i - 40].prompt;  // with the same knobs, and kept
    auto& prompt = requests[i].prompt;
    prompt.insert(prompt.begin(), earlier.begin(), earlier.end());
    prompt.resize(std::min<std::size_t>(prompt.size(), 40));
  }
  Outcomes outcomes;
  auto const serve = [&](auto& engine) {
    for (auto const& request : requests) outcomes.expect(engine.submit(request), request.prompt);
    while (!engine.idle()) outcomes.take(engine.step());
    CHECK((engine.statistics().prefix_tokens > 200) == (options.cache_bytes == roomy_options().cache_bytes));
  };
  if (rule.holds_back()) {
    infer::Engine<Model, Ruled> engine(net, options, {rule});
    serve(engine);
  } else {
    infer::Engine<Model> engine(net, options);
    serve(engine);
  }
  CHECK(outcomes.complaint().empty());
  CHECK(backend.complaints() == std::set<std::string>{});
  Verdict verdict;
  for (std::size_t i = 0; i < requests.size(); ++i)
    check_text(backend, model, requests[i].depth, outcomes.of(i + 1), verdict);
  CHECK(verdict.wrong == 0);
  CHECK(verdict.missing == 0);
  CHECK(verdict.looks > 1000);
}

}  // namespace

TEST_CASE("I1, I2, I3: with recursion-wise lists a row sees the tokens that came as deep, each at that depth") {
  auto const model = two_layer_block(RouterKind::ExpertChoice, CacheKind::RecursionWise);
  check<ExpertChoice<>, RecursionWiseCache>(model, roomy_options());
  check<ExpertChoice<>, RecursionWiseCache>(model, tight_options(model));
  for (TickRule const& rule : {TickRule{.one_depth = true}, TickRule{.in_step = true}, TickRule{.most_rows = 2, .least_finished = 3}}) {
    check<ExpertChoice<>, RecursionWiseCache>(model, roomy_options(), rule);
    check<ExpertChoice<>, RecursionWiseCache>(model, in_long_launches(tight_options(model)), rule);
  }
  check<ExpertChoice<>, RecursionWiseCache>(model, in_long_launches(roomy_options()));
  check<ExpertChoice<>, RecursionWiseCache>(model, in_long_launches(tight_options(model)));
}

TEST_CASE("I1, I2, I3: with shared lists a row sees every token before it at the first recursion") {
  auto const model = two_layer_block(RouterKind::ExpertChoice, CacheKind::Shared);
  check<ExpertChoice<>, SharedCache>(model, roomy_options());
  check<ExpertChoice<>, SharedCache>(model, tight_options(model));
  check<ExpertChoice<>, SharedCache>(model, in_long_launches(tight_options(model)));
}

TEST_CASE("I1, I2, I3: with hybrid lists a row sees every token, those that came as deep at that depth") {
  auto const model = two_layer_block(RouterKind::TokenChoice, CacheKind::Hybrid);
  check<TokenChoice<>, HybridCache>(model, roomy_options());
  check<TokenChoice<>, HybridCache>(model, tight_options(model));
  check<TokenChoice<>, HybridCache>(model, in_long_launches(roomy_options()));
}

TEST_CASE("rules that would tear steps or depths apart, or count below 0, are refused") {
  auto const model = two_layer_block(RouterKind::ExpertChoice, CacheKind::RecursionWise);
  RecordingBackend backend(1);
  using Model = RecursiveModel<ExpertChoice<>, RecursionWiseCache, RecordingBackend>;
  Model net(backend, model, ExpertChoice<>(model.recursion), MiddleCycle::schedule(model));
  for (TickRule const& rule : {TickRule{.in_step = true, .most_rows = 4}, TickRule{.one_depth = true, .most_rows = 4},
                               TickRule{.most_rows = -1}, TickRule{.least_finished = -1}}) {
    auto const make = [&] { infer::Engine<Model, Ruled> const engine(net, tiny_options(), {rule}); };
    CHECK(fails_with(ErrorCode::InvalidArgument, make, rule.most_rows > 0 ? "at any depth" : "counts rows from 0", "Engine, scheduler"));
  }
}

TEST_CASE("a step that throws is the engine's last: later ones say so, and a new engine on the model serves") {
  auto const model = two_layer_block(RouterKind::ExpertChoice, CacheKind::RecursionWise);
  RecordingBackend backend(1);
  using Model = RecursiveModel<ExpertChoice<>, RecursionWiseCache, RecordingBackend>;
  Model net(backend, model, ExpertChoice<>(model.recursion), MiddleCycle::schedule(model));
  net.initialize(11);
  auto const requests = mixed_requests(10, model, 20, 9);
  auto const serve = [&] {
    infer::Engine<Model> engine(net, roomy_options());
    Outcomes outcomes;
    for (auto const& request : requests) outcomes.expect(engine.submit(request), request.prompt);
    while (!engine.idle()) outcomes.take(engine.step());
    return outcomes.all();
  };
  auto const expected = serve();
  for (Index const attentions : {0, 3, 50}) {
    infer::Engine<Model> engine(net, roomy_options());
    for (auto const& request : requests) engine.submit(request);
    backend.fails_after = attentions;
    auto const run = [&] {
      while (!engine.idle()) engine.step();
    };
    CHECK(fails_with(ErrorCode::OutOfMemory, run, "no memory"));
    CHECK(fails_with(
        ErrorCode::InvalidArgument, [&] { engine.step(); }, "an earlier step has failed", "Engine::step"));
    CHECK(fails_with(
        ErrorCode::InvalidArgument, [&] { engine.submit(requests[0]); }, "an earlier step has failed", "Engine::submit"));
    CHECK(fails_with(
        ErrorCode::InvalidArgument, [&] { engine.cancel(1); }, "an earlier step has failed", "Engine::cancel"));
  }
  backend.fails_after = -1;
  CHECK(serve() == expected);
}
