// SPDX-License-Identifier: Apache-2.0
/// @file
/// A small model and a serving engine on it behind one interface, so that each (router, cache) is compiled once and
/// tests can loop over all of them. Sharing strategies and schedulers are data.
#pragma once

#include "support/tiny_models.hpp"

#include "mor/core/config.hpp"
#include "mor/core/layer_schedule.hpp"
#include "mor/infer/engine_options.hpp"
#include "mor/infer/request.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace mor::test {

enum class Schedulers { Tick, LazyTick, FullBatch, FullDepth, NoRefill, Homogeneous };
inline constexpr auto kAllSchedulers = {Schedulers::Tick,      Schedulers::LazyTick, Schedulers::FullBatch,
                                        Schedulers::FullDepth, Schedulers::NoRefill, Schedulers::Homogeneous};

/// What the host sees of the engine's work: at once, or when several ticks later ones have been launched.
enum class ReportsArrive { AtOnce, Late };

/// Everything that makes a model and its engine.
struct ServedSetup {
  ModelConfig model;
  std::uint64_t seed = 7;  ///< of the weights
  infer::EngineOptions options;
  Schedulers scheduler = Schedulers::Tick;
  Index scheduled_rows = 3;  ///< that the lazy coda waits for, and of a full batch
  ReportsArrive reports = ReportsArrive::AtOnce;
  bool shipped_scheduler = false;  ///< the library's own type, instead of a wrapper that holds any of them
};

/// A text as the model makes it without an engine.
struct OfflineText {
  std::vector<Token> text;
  std::vector<double> log_probabilities;  ///< of the new tokens
  std::vector<Row> depths;                ///< of the tokens that were read: all but the last
  infer::FinishReason reason = infer::FinishReason::Length;
};

/// One causal pass over a whole text.
struct OfflinePass {
  Index columns = 0;
  std::vector<float> logits;  ///< [tokens, columns]
  std::vector<Row> depths;    ///< [tokens]
};

/// Memory that the backend has asked for so far.
struct MemoryUse {
  Index current_bytes = 0, allocations = 0, arena_allocations = 0;
  bool operator==(MemoryUse const&) const = default;
};

class Served {
 public:
  Served() = default;
  Served(Served const&) = delete;
  Served& operator=(Served const&) = delete;
  virtual ~Served() = default;

  virtual infer::RequestId submit(infer::Request request) = 0;
  virtual bool cancel(infer::RequestId id) = 0;
  virtual std::span<infer::Event const> step() = 0;
  virtual bool idle() const = 0;
  virtual infer::EngineStatistics statistics() const = 0;
  virtual infer::EngineOptions const& options() const = 0;
  virtual Index cache_bytes() const = 0;
  virtual void drop_prefixes() = 0;
  virtual MemoryUse memory() = 0;

  virtual ModelConfig const& config() const = 0;
  virtual LayerSchedule const& schedule() const = 0;
  /// All weights by name.
  virtual std::map<std::string, std::vector<float>> weights() const = 0;
  virtual void write(std::string const& name, std::vector<float> const& values) = 0;
  /// The same request by `infer::generate`, which knows no depth knobs.
  virtual OfflineText generate(infer::Request const& request) = 0;
  virtual OfflinePass forward(std::vector<Token> const& text) = 0;
};

/// @param setup  with a recursion-wise cache alone there are: late reports (expert choice), the shipped schedulers
/// (expert
///               choice), the shipped tick scheduler (all tokens)
std::unique_ptr<Served> make_served(ServedSetup const& setup);

std::unique_ptr<Served> make_served_all_tokens(ServedSetup const& setup);
std::unique_ptr<Served> make_served_expert_choice(ServedSetup const& setup);
std::unique_ptr<Served> make_served_token_choice(ServedSetup const& setup);
std::unique_ptr<Served> make_served_shipped(ServedSetup const& setup);
std::unique_ptr<Served> make_served_late(ServedSetup const& setup);

/// A `tiny_config` with V 29, context 48 and one layer a block.
ModelConfig tiny_model(RouterKind router, CacheKind cache, SharingKind sharing, Index recursions = 3);

/// Every (router, cache, sharing) that can be served: one with `LockStep` only by a scheduler that keeps rows in step.
struct Servable {
  ModelConfig model;
  bool lock_step = false;
};
std::vector<Servable> all_servable();

/// A tiny engine: 5 slots, pages of 8 tokens, chunks of 7 of at most 16 prompt rows.
infer::EngineOptions tiny_options();

/// Such an engine on such a model.
ServedSetup tiny_setup(ModelConfig const& model = tiny_model(RouterKind::ExpertChoice, CacheKind::RecursionWise,
                                                             SharingKind::MiddleCycle));

/// What became of one request.
struct Outcome {
  std::vector<Token> text;                ///< with the prompt
  std::vector<double> log_probabilities;  ///< of the new tokens
  std::vector<Row> token_depths;          ///< as the token events say
  std::vector<Row> depths;                ///< as the last event says
  infer::FinishReason reason = infer::FinishReason::Length;
  Index cost = 0;
  int finished = 0;  ///< how often it was said to be
  bool operator==(Outcome const&) const = default;
};

/// Outcomes by request, from events; checks their order as they come.
class Outcomes {
 public:
  void expect(infer::RequestId id, std::vector<Token> const& prompt) { all_[id].text = prompt; }
  void take(std::span<infer::Event const> events);
  [[nodiscard]] Outcome const& of(infer::RequestId id) const { return all_.at(id); }
  [[nodiscard]] std::map<infer::RequestId, Outcome> const& all() const { return all_; }
  [[nodiscard]] Index finished() const { return finished_; }
  /// What was wrong with the order of events: nothing, if all is well.
  [[nodiscard]] std::string const& complaint() const { return complaint_; }

 private:
  std::map<infer::RequestId, Outcome> all_;
  Index finished_ = 0;
  std::string complaint_;
};

/// Submits all requests, steps until all are answered. @return outcomes in the order of the requests
/// @param arrivals  ticks between two requests; 0: all at once
std::vector<Outcome> serve_all(Served& served, std::vector<infer::Request> const& requests, Index arrivals = 0);

/// Each request in an engine that serves nothing else, without kept prefixes.
std::vector<Outcome> serve_each_alone(ServedSetup setup, std::vector<infer::Request> const& requests);

/// Requests of many kinds: prompts of 1 to `longest` tokens, some of which begin alike, greedy and sampled, with
/// penalties, cuts and end tokens.
std::vector<infer::Request> mixed_requests(std::size_t count, ModelConfig const& model, Index longest,
                                           std::uint64_t seed);

}  // namespace mor::test
