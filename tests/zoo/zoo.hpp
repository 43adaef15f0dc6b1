// SPDX-License-Identifier: Apache-2.0
/// @file
/// Every valid (router, cache) pair in double on the host behind one small interface, so that each is compiled once and
/// a test can loop over all of them. Sharing strategies are data.
#pragma once

#include "support/tiny_models.hpp"

#include "mor/core/batch.hpp"
#include "mor/core/config.hpp"
#include "mor/core/parameter_layout.hpp"
#include "mor/model/loss_report.hpp"
#include "mor/model/recompute.hpp"

#include <memory>
#include <string>
#include <vector>

namespace mor::test {

/// Logits of one call: rows of `columns` values.
struct Logits {
  Index rows = 0, columns = 0;
  std::vector<double> values;
  [[nodiscard]] double at(Index row, Index column) const {
    return values[static_cast<std::size_t>(row * columns + column)];
  }
};

class ZooModel {
 public:
  ZooModel() = default;
  ZooModel(ZooModel const&) = delete;
  ZooModel& operator=(ZooModel const&) = delete;
  virtual ~ZooModel() = default;

  virtual ParameterLayout const& layout() const = 0;
  virtual ModelConfig const& config() const = 0;
  virtual void initialize(std::uint64_t seed) = 0;
  virtual std::vector<double> read(std::string const& name) const = 0;
  virtual void write(std::string const& name, std::vector<double> const& values) = 0;
  virtual std::vector<double> gradient(std::string const& name) const = 0;
  virtual void zero_gradients() = 0;
  virtual void set_recompute(Recompute level) = 0;
  virtual Logits forward(Batch const& batch, RoutingMode mode) = 0;
  virtual std::vector<double> loss(Batch const& batch, std::vector<Token> const& targets, RoutingMode mode) = 0;
  virtual LossReport train(Batch const& batch, std::vector<Token> const& targets, TrainingProgress const& progress,
                           LossWeights const& weights) = 0;
  virtual std::vector<Row> depths() const = 0;
  virtual std::vector<Row> active_rows(Index step) const = 0;
  virtual void finish_step(std::vector<double> const& load) = 0;
  /// Starts a cache for `advance`; the last one is dropped.
  virtual void start_cache(Index sequences, Index capacity) = 0;
  virtual Logits advance(Batch const& batch, RoutingMode mode) = 0;
  virtual Row cached(Index step, Index sequence) const = 0;
  virtual Index arena_allocations() const = 0;
  /// Largest arena use so far, in bytes.
  virtual Index arena_peak_bytes() const = 0;
};

/// The model that `config` names. Throws for a combination that makes no sense, as the library does.
std::unique_ptr<ZooModel> make_zoo_model(ModelConfig const& config);

std::unique_ptr<ZooModel> make_all_tokens(ModelConfig const& config);
std::unique_ptr<ZooModel> make_expert_choice(ModelConfig const& config);
std::unique_ptr<ZooModel> make_token_choice(ModelConfig const& config);

/// Every valid (router, cache, sharing) with the settings of `tiny_config`.
std::vector<ModelConfig> all_configs();

/// The gradients of all tensors, one after the other.
std::vector<double> all_gradients(ZooModel const& model);

/// Token rows that own their arrays.
struct OwnedBatch {
  std::vector<Token> tokens;
  std::vector<Row> positions, offsets;
  [[nodiscard]] Batch view() const { return {tokens, positions, offsets}; }
  /// Next-token targets; the last row of each sequence has none.
  [[nodiscard]] std::vector<Token> targets() const;
};

/// Sequences of the given lengths with pseudo-random tokens.
OwnedBatch random_batch(std::vector<Index> const& lengths, Index vocab_size, std::uint64_t seed);

}  // namespace mor::test
