// SPDX-License-Identifier: Apache-2.0
// Random streams of commands, 10^5 requests in all: arrivals, lengths, cancellations at any time, pre-emption,
// thresholds at exact ties, logits that are not numbers. Every request is answered once with what it would have got
// alone, and nothing of any of them is left.
#include "served/served.hpp"
#include "support/catch.hpp"

#include "mor/core/philox.hpp"

#include <algorithm>
#include <limits>
#include <optional>
#include <set>
#include <string>

using namespace mor;
using namespace mor::test;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

class Dice {
 public:
  explicit Dice(std::uint64_t seed) : generator_{stream_key(seed, 9)} {}
  Index below(Index size) {
    return static_cast<Index>(generator_.block(counter_++)[0] % static_cast<std::uint32_t>(size));
  }
  bool one_in(Index count) { return below(count) == 0; }

 private:
  Philox generator_;
  std::uint64_t counter_ = 0;
};

struct Stream {
  std::string name;
  ServedSetup setup;
  Index requests = 10'000;
  std::vector<double> thresholds{0.0, 0.1, -0.1, kInfinity, -kInfinity};
  bool ties = false;    ///< every router score is 0
  bool poison = false;  ///< the last token's embedding is not a number
};

infer::Request random_request(Dice& dice, Stream const& stream) {
  Index const context = stream.setup.model.transformer.max_position_embeddings;
  Index const vocab = stream.setup.model.transformer.vocab_size, most = stream.setup.model.recursion.num_recursions;
  infer::Request request;
  Index const length = dice.one_in(400) ? context - 1 : 1 + dice.below(dice.one_in(8) ? 20 : 5);
  Index const family = dice.below(3);
  Index const own = dice.below(length + 1);
  for (Index t = 0; t < length; ++t) {
    Index const token = t < own ? family * 7 + t * 5 : dice.below(vocab);
    request.prompt.push_back(static_cast<Token>(token % (vocab - 1)));
  }
  if (stream.poison && dice.one_in(10)) request.prompt.back() = static_cast<Token>(vocab - 1);
  request.max_new_tokens =
      dice.one_in(500) ? std::numeric_limits<Index>::max() : 1 + dice.below(dice.one_in(8) ? 15 : 4);
  request.sampling.temperature = dice.one_in(3) ? 0.0 : 1.0;
  request.sampling.seed = static_cast<std::uint64_t>(dice.below(1 << 30));
  if (dice.one_in(4)) request.end_token = static_cast<Token>(dice.below(vocab));
  if (dice.one_in(3)) {
    request.depth.threshold =
        stream.thresholds[static_cast<std::size_t>(dice.below(static_cast<Index>(stream.thresholds.size())))];
    request.depth.min_depth = 1 + dice.below(most);
    if (dice.one_in(2))
      request.depth.max_depth = request.depth.min_depth + dice.below(most - request.depth.min_depth + 1);
  }
  return request;
}

std::unique_ptr<Served> make(Stream const& stream) {
  auto served = make_served(stream.setup);
  for (auto const& [name, values] : served->weights()) {
    if (stream.ties && name.find("router") != std::string::npos)
      served->write(name, std::vector<float>(values.size(), 0.0F));
    if (stream.poison && name == "model.embed_tokens.weight") {
      auto spoilt = values;
      std::fill(spoilt.end() - stream.setup.model.transformer.hidden_size, spoilt.end(),
                std::numeric_limits<float>::quiet_NaN());
      served->write(name, spoilt);
    }
  }
  return served;
}

/// Runs the stream and checks what it must keep.
void run(Stream const& stream, std::uint64_t seed) {
  INFO(stream.name);
  auto const served = make(stream);
  Dice dice(seed);
  Outcomes outcomes;
  struct Kept {
    infer::RequestId id;
    infer::Request request;
  };
  std::vector<Kept> samples;  // to be repeated alone
  std::vector<infer::RequestId> live;
  std::set<infer::RequestId> cancelled;
  MemoryUse warm;
  Index tick = 0;
  for (Index submitted = 0; submitted < stream.requests || !served->idle(); ++tick) {
    bool const burst = dice.one_in(40);
    for (Index i = burst ? dice.below(60) : dice.below(3); i > 0 && submitted < stream.requests && live.size() < 300;
         --i, ++submitted) {
      auto request = random_request(dice, stream);
      auto const id = served->submit(request);
      outcomes.expect(id, request.prompt);
      live.push_back(id);
      if (dice.one_in(40)) samples.push_back({id, std::move(request)});
    }
    if (!live.empty() && dice.one_in(12)) {
      auto const id = live[static_cast<std::size_t>(dice.below(static_cast<Index>(live.size())))];
      bool const runs = outcomes.of(id).finished == 0 && !cancelled.contains(id);
      REQUIRE(served->cancel(id) == runs);
      cancelled.insert(id);
    }
    if (dice.one_in(300)) served->drop_prefixes();
    outcomes.take(served->step());
    if (tick % 32 == 0) std::erase_if(live, [&](infer::RequestId id) { return outcomes.of(id).finished > 0; });
    if (submitted < stream.requests / 2) warm = served->memory();
  }
  REQUIRE(outcomes.complaint() == "");
  CHECK(outcomes.finished() == stream.requests);
  Index answered_once = 0, not_numbers = 0;
  for (auto const& [id, outcome] : outcomes.all()) {
    answered_once += outcome.finished == 1 ? 1 : 0;
    not_numbers += outcome.reason == infer::FinishReason::NonFinite ? 1 : 0;
  }
  CHECK(answered_once == stream.requests);
  CHECK((not_numbers > 0) == stream.poison);
  CHECK(served->memory() == warm);
  served->drop_prefixes();
  auto const now = served->statistics();
  CHECK(now.free_pages == now.total_pages);
  CHECK(now.free_end_pages == now.total_end_pages);
  CHECK(now.cached_pages == 0);
  CHECK(now.queued + now.running == 0);
  CHECK(now.submitted == stream.requests);
  CHECK(now.finished + now.cancelled == stream.requests);
  CHECK((now.preempted > 0) == (stream.setup.options.cache_bytes > 0));

  auto alone = stream;
  alone.setup.options.slots = 1;
  alone.setup.options.cache_bytes = 0;
  alone.setup.options.prefix_cache = false;
  auto const single = make(alone);
  Index differences = 0, compared = 0;
  for (auto const& [id, request] : samples) {
    auto const& outcome = outcomes.of(id);
    if (outcome.reason == infer::FinishReason::Cancelled) continue;
    differences += serve_all(*single, {request}).front() == outcome ? 0 : 1;
    ++compared;
  }
  CHECK(differences == 0);
  CHECK(compared > stream.requests / 100);
}

ServedSetup setup_of(RouterKind router, CacheKind cache, SharingKind sharing, Index recursions = 3) {
  ServedSetup setup = tiny_setup(tiny_model(router, cache, sharing, recursions));
  setup.options.slots = 8;
  setup.options.page_size = 4;
  return setup;
}

/// So little room that requests are pre-empted: 12 pages a list of the longest text, and a few more.
void tighten(ServedSetup& setup) {
  auto const& t = setup.model.transformer;
  Index const layer = 2 * t.key_value_size() * setup.options.page_size * static_cast<Index>(sizeof(float));
  setup.options.cache_bytes = 42 * layer * (setup.model.recursion.num_prelude_layers == 0 ? 1 : 3);
  setup.options.admission_margin = -4.0;
}

constexpr auto kExpert = RouterKind::ExpertChoice;
constexpr auto kOwnLists = CacheKind::RecursionWise;

}  // namespace

TEST_CASE("streams: expert choice with recursion-wise lists, with room and without") {
  Stream stream{"room", setup_of(kExpert, kOwnLists, SharingKind::MiddleCycle)};
  run(stream, 1);
  stream.name = "pre-emption";
  tighten(stream.setup);
  run(stream, 2);
  stream.name = "pre-emption, no prefix cache, prompts in small pieces";
  stream.setup.options.prefix_cache = false;
  stream.setup.options.prefill_chunk = 3;
  stream.requests = 5'000;
  run(stream, 3);
}

TEST_CASE("streams: reports that arrive late, with room and without") {
  Stream stream{"two ticks late", setup_of(kExpert, kOwnLists, SharingKind::MiddleCycle)};
  stream.setup.reports = ReportsArrive::Late;
  stream.setup.options.ticks_in_flight = 2;
  run(stream, 4);
  stream.name = "four ticks late, pre-emption";
  stream.setup.options.ticks_in_flight = 4;
  tighten(stream.setup);
  run(stream, 5);
}

TEST_CASE("streams: late reports, and rows beyond what upper bounds are good for") {
  Stream stream{"close bounds", setup_of(kExpert, kOwnLists, SharingKind::MiddleCycle)};
  stream.setup.reports = ReportsArrive::Late;
  stream.setup.options.ticks_in_flight = 3;
  stream.setup.options.few_rows = 2;
  stream.setup.options.pad_rows = false;
  stream.requests = 5'000;
  run(stream, 17);
  stream.name = "padded, pre-emption";
  stream.setup.options.pad_rows = true;
  tighten(stream.setup);
  run(stream, 18);
  stream.name = "three ticks a launch, prompts in small pieces";
  stream.setup.options.prefill_chunk = 3;
  stream.setup.options.ticks_per_launch = 3;
  stream.requests = 3'000;
  run(stream, 19);
}

TEST_CASE("streams: thresholds at exact ties, all leave at once, none leaves") {
  Stream stream{"ties", setup_of(kExpert, kOwnLists, SharingKind::Cycle)};
  stream.requests = 5'000;
  stream.ties = true;
  stream.thresholds = {0.0, -0.0, static_cast<double>(std::numeric_limits<float>::denorm_min())};
  run(stream, 6);
  stream.ties = false;
  for (double const threshold : {kInfinity, -kInfinity}) {
    stream.name = threshold > 0 ? "all leave" : "none leaves";
    stream.thresholds = {threshold};
    run(stream, 7);
  }
}

TEST_CASE("streams: one recursion, one slot") {
  Stream stream{"one recursion", setup_of(kExpert, kOwnLists, SharingKind::MiddleCycle, 1)};
  stream.requests = 5'000;
  run(stream, 8);
  stream = {"one slot", setup_of(kExpert, CacheKind::Hybrid, SharingKind::MiddleCycle)};
  stream.requests = 3'000;
  stream.setup.options.slots = 1;
  run(stream, 9);
}

TEST_CASE("streams: other routers, caches and schedulers") {
  Stream stream{"token choice", setup_of(RouterKind::TokenChoice, kOwnLists, SharingKind::MiddleCycle)};
  tighten(stream.setup);
  run(stream, 10);
  stream = {"token choice, hybrid, lazy coda",
            setup_of(RouterKind::TokenChoice, CacheKind::Hybrid, SharingKind::Cycle)};
  stream.setup.scheduler = Schedulers::LazyTick;
  run(stream, 11);
  stream = {"shared keys, one depth a launch", setup_of(kExpert, CacheKind::Shared, SharingKind::MiddleCycle)};
  stream.setup.scheduler = Schedulers::Homogeneous;
  run(stream, 12);
  stream = {"a sequence of layers, in step", setup_of(RouterKind::AllTokens, CacheKind::Shared, SharingKind::Sequence)};
  stream.setup.model.num_hidden_layers *= 2;
  stream.setup.scheduler = Schedulers::NoRefill;
  run(stream, 13);
  stream = {"no refill", setup_of(kExpert, kOwnLists, SharingKind::MiddleCycle)};
  stream.setup.scheduler = Schedulers::NoRefill;
  stream.requests = 7'000;
  run(stream, 14);
}

TEST_CASE("streams: rules that the device follows by itself") {
  for (auto const scheduler : {Schedulers::LazyTick, Schedulers::FullBatch, Schedulers::NoRefill, Schedulers::Homogeneous}) {
    Stream stream{"rules", setup_of(kExpert, kOwnLists, SharingKind::MiddleCycle)};
    stream.setup.scheduler = scheduler;
    stream.setup.reports = ReportsArrive::Late;
    stream.setup.options.ticks_in_flight = 3;
    stream.setup.options.few_rows = 12;
    if (scheduler == Schedulers::FullBatch) tighten(stream.setup);
    stream.requests = 3'000;
    run(stream, 20);
  }
}

TEST_CASE("streams: some logits are not numbers") {
  for (auto const reports : {ReportsArrive::AtOnce, ReportsArrive::Late}) {
    Stream stream{"poison", setup_of(kExpert, kOwnLists, SharingKind::MiddleCycle)};
    stream.setup.model.transformer.tie_word_embeddings = false;
    stream.setup.reports = reports;
    stream.poison = true;
    stream.requests = 5'000;
    tighten(stream.setup);
    run(stream, 16);
  }
}
