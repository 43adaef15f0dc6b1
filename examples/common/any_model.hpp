// SPDX-License-Identifier: Apache-2.0
/// @file
/// `AnyModel`: a model whose router, cache and backend are chosen at run time, so that one executable runs every
/// combination that a `config.json` can name, on the processor or on a GPU. Programs that know their policies use
/// `mor::RecursiveTransformer` directly.
#pragma once

#include "common/any_engine.hpp"
#include "common/device_choice.hpp"
#include "mor/contract/router.hpp"
#include "mor/core/batch.hpp"
#include "mor/core/config.hpp"
#include "mor/core/layer_schedule.hpp"
#include "mor/core/parameter_layout.hpp"
#include "mor/core/view.hpp"
#include "mor/infer/engine_options.hpp"
#include "mor/infer/generate.hpp"
#include "mor/model/loss_report.hpp"
#include "mor/model/recompute.hpp"
#include "mor/train/adamw.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace examples {

using mor::Index;
using mor::Row;
using mor::Token;

/// The calls of `mor::RecursiveModel` and of its optimizer, with the types erased. Weights, moments, losses and logits
/// are float. All arguments and results are in host memory, wherever the model is.
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
  [[nodiscard]] virtual std::string backend_name() const = 0;  ///< as examples::backend_name
  /// @}

  /// @name Weights
  /// All tensors as the layout places them.
  /// @{
  virtual void initialize(std::uint64_t seed) = 0;
  [[nodiscard]] virtual std::vector<float> weights() const = 0;  ///< a copy
  /// Overwrites the elements from `offset` on. They count from `publish` on, to be called after the last of them.
  /// @throws mor::error ShapeMismatch for more values than there is room for
  virtual void set_weights(Index offset, std::span<float const> values) = 0;
  virtual void publish() = 0;
  /// @}

  /// @name Training
  /// `enable_training` makes gradients and the optimizer; the others need it.
  /// @{
  virtual void enable_training(mor::train::AdamwSettings const& settings) = 0;
  virtual void set_recompute(mor::Recompute level) = 0;
  virtual void zero_gradients() = 0;
  virtual void forward_backward(mor::Batch const& batch, std::span<Token const> targets,
                                mor::TrainingProgress const& progress, mor::LossWeights const& weights) = 0;
  /// One update from the gradients of the micro-batches so far and their language-model loss, unless it is not finite.
  /// On a GPU it is only asked for, as `forward_backward` is: reports and `last_update` wait.
  virtual void update(double learning_rate) = 0;
  [[nodiscard]] virtual mor::train::UpdateReport last_update() const = 0;
  virtual void finish_step(std::span<double const> load) = 0;
  [[nodiscard]] virtual std::vector<float> first_moment() const = 0;   ///< a copy, placed as the weights are
  [[nodiscard]] virtual std::vector<float> second_moment() const = 0;  ///< a copy
  virtual void set_moments(std::span<float const> first, std::span<float const> second) = 0;
  virtual void set_optimizer_steps(Index steps) = 0;
  /// @}

  /// @name Evaluation and generation
  /// @{
  virtual void loss(mor::Batch const& batch, std::span<Token const> targets, mor::RoutingMode mode) = 0;
  /// Negative log-likelihoods in nats of `targets` at these rows only, one a row.
  virtual std::vector<float> losses(mor::Batch const& batch, std::span<Token const> targets, mor::RoutingMode mode,
                                    std::span<Row const> rows) = 0;
  /// Logits, valid until the next call.
  virtual mor::View<float const> forward(mor::Batch const& batch, mor::RoutingMode mode) = 0;
  /// The same with logits of these rows only.
  virtual mor::View<float const> forward(mor::Batch const& batch, mor::RoutingMode mode, std::span<Row const> rows) = 0;
  [[nodiscard]] virtual mor::LossReport report() = 0;  ///< of the last `loss` or `forward_backward`
  [[nodiscard]] virtual std::vector<Row> depths() const = 0;
  virtual mor::infer::FinishReason generate(mor::infer::GenerationRequest const& request, OnToken const& on_token) = 0;
  /// An engine that answers many requests at once. It refers to the model and keeps it busy: nothing else may run it.
  [[nodiscard]] virtual std::unique_ptr<AnyEngine> make_engine(mor::infer::EngineOptions const& options) = 0;
  /// @}

  /// @name Memory of activations
  /// @{
  virtual void reserve_activations(Index bytes) = 0;
  [[nodiscard]] virtual Index activation_bytes() const = 0;  ///< held now
                                                             /// @}

 protected:
  AnyModel() = default;
};

/// What a model is made for. Training may spend seconds at the start on finding the fastest kernels.
enum class Purpose { Training, Inference };

/// A model of the policies that the configuration names, on the device that was chosen.
/// @throws mor::error InvalidConfig as `mor::check` does, Unsupported where the device cannot be had
[[nodiscard]] std::unique_ptr<AnyModel> make_model(mor::ModelConfig const& config, DeviceChoice const& device,
                                                   Purpose purpose);

/// @name One factory for each router on the processor, each in a source file of its own, so that they compile side by
/// side
/// The configuration has been checked, and names this router. `threads`: of every operation; 0 for all.
/// @{
[[nodiscard]] std::unique_ptr<AnyModel> make_all_tokens(mor::ModelConfig const& config, int threads);
[[nodiscard]] std::unique_ptr<AnyModel> make_expert_choice(mor::ModelConfig const& config, int threads);
[[nodiscard]] std::unique_ptr<AnyModel> make_token_choice(mor::ModelConfig const& config, int threads);
/// @}

}  // namespace examples
