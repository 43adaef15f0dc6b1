// SPDX-License-Identifier: Apache-2.0
/// @file
/// `AnyModel`: a float model on the host whose router and cache are chosen at run time, so that one executable runs
/// every combination that a `config.json` can name. Programs that know their policies use `mor::RecursiveTransformer`
/// directly.
#pragma once

#include "mor/contract/router.hpp"
#include "mor/core/batch.hpp"
#include "mor/core/config.hpp"
#include "mor/core/layer_schedule.hpp"
#include "mor/core/parameter_layout.hpp"
#include "mor/core/view.hpp"
#include "mor/infer/generate.hpp"
#include "mor/model/loss_report.hpp"
#include "mor/train/adamw.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace examples {

using mor::Index;
using mor::Row;
using mor::Token;

/// The calls of `mor::RecursiveModel` and of its optimizer, with the types erased. Everything is in host memory.
class AnyModel {
 public:
  using OnToken = std::function<bool(mor::infer::GeneratedToken const&)>;

  virtual ~AnyModel() = default;
  AnyModel(AnyModel const&) = delete;
  AnyModel& operator=(AnyModel const&) = delete;

  /// @name What it is
  /// @{
  [[nodiscard]] virtual mor::ModelConfig const& config() const = 0;
  [[nodiscard]] virtual mor::LayerSchedule const& schedule() const = 0;
  [[nodiscard]] virtual mor::LayerNaming naming() const = 0;
  [[nodiscard]] virtual mor::ParameterLayout const& layout() const = 0;
  [[nodiscard]] virtual int threads() const = 0;
  /// @}

  /// @name Weights
  /// All tensors as the layout places them.
  /// @{
  [[nodiscard]] virtual std::span<float> weights() = 0;
  virtual void initialize(std::uint64_t seed) = 0;
  /// @}

  /// @name Training
  /// `enable_training` makes gradients and the optimizer; the others need it.
  /// @{
  virtual void enable_training(mor::train::AdamwSettings const& settings) = 0;
  virtual void zero_gradients() = 0;
  virtual void forward_backward(mor::Batch const& batch, std::span<Token const> targets,
                                mor::TrainingProgress const& progress, mor::LossWeights const& weights) = 0;
  [[nodiscard]] virtual mor::train::GradientNorms gradient_norms() const = 0;
  virtual void apply(double learning_rate, mor::train::GradientNorms const& norms) = 0;
  virtual void finish_step(std::span<double const> load) = 0;
  [[nodiscard]] virtual std::span<float> first_moment() const = 0;
  [[nodiscard]] virtual std::span<float> second_moment() const = 0;
  virtual void set_optimizer_steps(Index steps) = 0;
  /// @}

  /// @name Evaluation and generation
  /// @{
  virtual std::span<float const> loss(mor::Batch const& batch, std::span<Token const> targets,
                                      mor::RoutingMode mode) = 0;
  virtual mor::View<float const> forward(mor::Batch const& batch, mor::RoutingMode mode) = 0;
  [[nodiscard]] virtual mor::LossReport report() = 0;
  [[nodiscard]] virtual std::vector<Row> depths() const = 0;
  virtual mor::infer::FinishReason generate(mor::infer::GenerationRequest const& request, OnToken const& on_token) = 0;
  /// @}

  /// @name Memory of activations
  /// @{
  virtual void reserve_activations(Index bytes) = 0;
  [[nodiscard]] virtual Index activation_bytes() const = 0;  ///< held now
  /// @}

 protected:
  AnyModel() = default;
};

/// A model of the policies that the configuration names.
/// @param threads  of every operation; 0 for all of the machine's
/// @throws mor::error InvalidConfig as `mor::check` does
[[nodiscard]] std::unique_ptr<AnyModel> make_model(mor::ModelConfig const& config, int threads);

/// What a training run of a model will take, found by running the model on `mor::trace::Backend`, which does no
/// arithmetic and takes no memory.
struct Forecast {
  Index parameters = 0;
  Index weight_bytes = 0;  ///< parameters and the router's statistics
  Index gradient_bytes = 0;
  Index optimizer_bytes = 0;    ///< both moments
  Index activation_bytes = 0;   ///< arena of the larger of a training micro-batch and a validation batch
  double training_flops = 0.0;  ///< matrix products a token, forward and backward

  [[nodiscard]] Index total_bytes() const { return weight_bytes + gradient_bytes + optimizer_bytes + activation_bytes; }
};

/// A micro-batch of `sequences` rows of `context` tokens.
struct ForecastOptions {
  Index sequences = 1;
  Index context = 1;
  Index capacity_warmup_calls = 0;
  int threads = 0;  ///< as the model will use; 0: all
};

/// Every token is assumed to go as deep as the router allows.
[[nodiscard]] Forecast forecast(mor::ModelConfig const& config, ForecastOptions const& options);

/// @name One factory for each router, each in a source file of its own, so that they compile side by side
/// The configuration has been checked, and names this router.
/// @{
[[nodiscard]] std::unique_ptr<AnyModel> make_all_tokens(mor::ModelConfig const& config, int threads);
[[nodiscard]] std::unique_ptr<AnyModel> make_expert_choice(mor::ModelConfig const& config, int threads);
[[nodiscard]] std::unique_ptr<AnyModel> make_token_choice(mor::ModelConfig const& config, int threads);
[[nodiscard]] Forecast forecast_all_tokens(mor::ModelConfig const& config, ForecastOptions const& options);
[[nodiscard]] Forecast forecast_expert_choice(mor::ModelConfig const& config, ForecastOptions const& options);
[[nodiscard]] Forecast forecast_token_choice(mor::ModelConfig const& config, ForecastOptions const& options);
/// @}

}  // namespace examples
