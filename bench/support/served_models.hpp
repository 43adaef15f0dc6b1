// SPDX-License-Identifier: Apache-2.0
/// @file
/// The models that the benchmarks of the serving engine serve: each is made, and its routers trained, once in a program.
#pragma once

#include "made_up_text.hpp"
#include "model_shapes.hpp"

#include "mor/core/normal_numbers.hpp"
#include "mor/core/parameter_layout.hpp"
#include "mor/core/philox.hpp"
#include "mor/train/adamw.hpp"
#include "mor/train/learning_rate.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <thread>
#include <vector>

namespace mor::bench {

/// How the routers of a benchmark's models are trained. The auxiliary loss (mor-spec 3.5) has a hundred times the paper's
/// coefficient, for a training a hundred times shorter; the rate falls to zero at the end, so that the logits settle.
struct RouterTraining {
  Index steps = 100, sequences = 4, length = 96;
  double learning_rate = 3e-3;
  static constexpr double aux_coefficient = 0.1;
  static constexpr std::uint64_t series = 1;  ///< of the made-up text: no other list is of it
};

/// The numbers of `Model::initialize`, made by all cores: one takes most of a minute for a model of 360 million weights.
template <class Real>
[[nodiscard]] std::vector<Real> initial_values(ParameterLayout const& layout, std::uint64_t seed, double standard_deviation) {
  std::vector<Real> values(static_cast<std::size_t>(layout.total_size()));
  struct Piece {
    std::uint64_t tensor;
    Index first, size, offset;
  };
  std::vector<Piece> pieces;
  for (Index i = 0; i < layout.count(); ++i) {
    auto const& info = layout[i];
    auto const own = std::span(values).subspan(static_cast<std::size_t>(info.offset), static_cast<std::size_t>(info.size()));
    if (info.initializer == Initializer::Ones) std::fill(own.begin(), own.end(), Real(1));
    if (info.initializer != Initializer::Normal) continue;
    constexpr Index most = 1 << 20;
    for (Index first = 0; first < info.size(); first += most) {
      pieces.push_back({static_cast<std::uint64_t>(i), first, std::min(most, info.size() - first), info.offset + first});
    }
  }
  std::atomic<std::size_t> next = 0;
  auto const work = [&] {
    for (std::size_t at = next++; at < pieces.size(); at = next++) {
      auto const& piece = pieces[at];
      auto const own = std::span(values).subspan(static_cast<std::size_t>(piece.offset), static_cast<std::size_t>(piece.size));
      fill_normal<Real>(Philox{stream_key(seed, piece.tensor)}, standard_deviation, piece.first, own);
    }
  };
  std::vector<std::thread> threads(std::max(1U, std::thread::hardware_concurrency()));
  for (auto& thread : threads) thread = std::thread(work);
  for (auto& thread : threads) thread.join();
  return values;
}

/// Trains a model on the made-up text. @return the share of tokens on which its routers, alone, agreed with the selection of
/// the last step (mor-spec 3.5: sampling accuracy)
template <class Model, class B>
double train_routers(Model& model, B& backend, RouterTraining const& training) {
  model.parameters().enable_gradients();
  train::Adamw<B> optimizer(backend, model.parameters(), {});
  MadeUpText const text(model.config().transformer.vocab_size);
  train::LearningRateSchedule schedule;
  schedule.kind = train::LearningRateSchedule::Kind::WarmupStableDecay;
  schedule.peak = training.learning_rate;
  schedule.warmup_steps = training.steps / 10;
  schedule.total_steps = training.steps;
  schedule.decay_fraction = 0.4;
  TrainingRows rows(training.sequences, training.length);
  LossWeights const weights{1.0 / static_cast<double>(rows.tokens.size()), 1.0};
  for (Index step = 0; step < training.steps; ++step) {
    for (Index s = 0; s < training.sequences; ++s) {
      auto const number = static_cast<std::uint64_t>(step * training.sequences + s);
      auto const tokens = text.tokens(RouterTraining::series, number, training.length + 1);
      std::copy(tokens.begin(), tokens.end() - 1, rows.tokens.begin() + s * training.length);
      std::copy(tokens.begin() + 1, tokens.end(), rows.targets.begin() + s * training.length);
    }
    model.parameters().zero_gradients();
    TrainingProgress progress;
    progress.forward_calls = step + 1;
    model.forward_backward(rows.batch(), rows.targets, progress, weights);
    optimizer.add_loss(model.losses(), weights.language_model);
    optimizer.step(schedule.at(step + 1));
  }
  return model.report().sampling_accuracy;
}

/// Models of one type in the shapes of `Program::shape`, by number: recursions where tokens are routed, else layers. The
/// weights stay in the host's memory; on the backend is one model at a time, without what training needed.
template <class Program, class Model>
class ServedModels {
 public:
  using B = typename Model::backend_type;
  using Real = typename Model::Real;

  struct Served {
    explicit Served(ModelConfig const& config) : model(backend, config) {}
    B backend;
    Model model;
    double sampling_accuracy = 0.0;  ///< of the trained routers
  };

  /// The program's only one.
  [[nodiscard]] static ServedModels& instance() {
    static ServedModels models;
    return models;
  }

  [[nodiscard]] Served& get(Index number) {
    if (live_ != nullptr && number_ == number) return *live_;
    live_.reset();
    ModelConfig const config = config_of(number);
    auto found = weights_.find(number);
    if (found == weights_.end()) found = weights_.emplace(number, make(config)).first;
    live_ = std::make_unique<Served>(config);
    set_weights(*live_, found->second.values);
    live_->sampling_accuracy = found->second.sampling_accuracy;
    number_ = number;
    return *live_;
  }

 private:
  struct Weights {
    std::vector<Real> values;
    double sampling_accuracy = 0.0;
  };

  [[nodiscard]] static ModelConfig config_of(Index number) {
    if constexpr (!Model::router_type::routes) {
      ModelConfig config = Program::shape(1);
      config.num_hidden_layers = number;
      return config;
    }
    ModelConfig config = Program::shape(number);
    config.recursion.aux_coefficient = RouterTraining::aux_coefficient;
    return config;
  }

  /// Random weights where nothing is routed: what such a model does depends on its shape alone.
  [[nodiscard]] static Weights make(ModelConfig const& config) {
    Served fresh(config);
    auto& parameters = fresh.model.parameters();
    Weights weights;
    weights.values = initial_values<Real>(parameters.layout(), 3, config.transformer.initializer_range);
    if (!Model::router_type::routes) return weights;
    set_weights(fresh, weights.values);
    weights.sampling_accuracy = train_routers(fresh.model, fresh.backend, Program::training());
    fresh.backend.download(std::span<Real const>(parameters.values()), weights.values);
    return weights;
  }

  static void set_weights(Served& served, std::span<Real const> values) {
    served.backend.store(values, served.model.parameters().values());
    served.model.parameters().publish();
    served.backend.synchronize();
  }

  std::map<Index, Weights> weights_;
  std::unique_ptr<Served> live_;
  Index number_ = 0;
};

}  // namespace mor::bench
