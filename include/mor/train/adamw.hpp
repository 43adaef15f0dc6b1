// SPDX-License-Identifier: Apache-2.0
/// @file
/// AdamW on the flat buffers, with global-norm clipping per parameter group. Decoupled decay, none on norms; the auxiliary
/// router has ten times the learning rate and is clipped on its own (mor-spec sections 3.5 and 6).
#pragma once

#include "mor/model/parameter_set.hpp"

#include <cmath>
#include <vector>

namespace mor::train {

/// Hyper-parameters that stay fixed during a run.
struct AdamwSettings {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
  double clip_norm = 1.0;                ///< 0: no clipping
  double aux_router_learning_rate = 10.0;  ///< factor on the learning rate of `ParameterGroup::AuxRouter`
};

/// L2 norms of the accumulated gradient, before clipping. NaN and infinity are kept as they are.
struct GradientNorms {
  double main = 0.0;
  double aux_router = 0.0;
  [[nodiscard]] bool finite() const { return std::isfinite(main) && std::isfinite(aux_router); }
};

/// Owns the two moments; changes weights only in `apply`.
template <class B>
class Adamw {
 public:
  using Real = typename B::real_type;

  Adamw(B& backend, ParameterSet<B>& parameters, AdamwSettings settings)
      : backend_(&backend),
        parameters_(&parameters),
        settings_(settings),
        first_(backend.memory(), parameters.layout().total_size()),
        second_(backend.memory(), parameters.layout().total_size()) {
    backend.fill(View<Real>(first_.data(), 1, first_.size()), 0.0);
    backend.fill(View<Real>(second_.data(), 1, second_.size()), 0.0);
    for (auto const& info : parameters.layout().all()) {
      if (info.group == ParameterGroup::Frozen) continue;
      extend(ranges_, info, info.decay);
      extend(norm_ranges_, info, true);  // one norm covers what decays and what does not: each waits for the device
    }
  }

  /// Norms of the accumulated gradients; waits for the device.
  [[nodiscard]] GradientNorms gradient_norms() const {
    double main = 0.0, aux = 0.0;
    for (auto const& range : norm_ranges_) {
      double const squared = backend_->squared_norm(part(parameters_->gradients(), range));
      (range.group == ParameterGroup::Main ? main : aux) += squared;
    }
    return {std::sqrt(main), std::sqrt(aux)};
  }

  /// One update with clipping to `clip_norm`; publishes the weights. Call only with finite norms.
  void apply(double learning_rate, GradientNorms const& norms) {
    ++steps_;
    for (auto const& range : ranges_) {
      bool const main = range.group == ParameterGroup::Main;
      AdamwStep step;
      step.learning_rate = learning_rate * (main ? 1.0 : settings_.aux_router_learning_rate);
      step.beta1 = settings_.beta1;
      step.beta2 = settings_.beta2;
      step.epsilon = settings_.epsilon;
      step.weight_decay = range.decay ? settings_.weight_decay : 0.0;
      step.gradient_scale = clip_factor(main ? norms.main : norms.aux_router);
      step.step = steps_;
      backend_->adamw(part(parameters_->gradients(), range), step, part(parameters_->values(), range),
                      part(first_.span(), range), part(second_.span(), range));
    }
    parameters_->publish();
  }

  /// Updates made so far; part of a checkpoint, with both moments.
  [[nodiscard]] Index steps() const { return steps_; }
  void set_steps(Index steps) { steps_ = steps; }
  [[nodiscard]] std::span<Real> first_moment() const { return first_.span(); }
  [[nodiscard]] std::span<Real> second_moment() const { return second_.span(); }
  [[nodiscard]] AdamwSettings const& settings() const { return settings_; }

 private:
  /// Adjacent tensors with the same settings, updated by one call.
  struct Range {
    Index offset = 0, size = 0;
    bool decay = true;
    ParameterGroup group = ParameterGroup::Main;
  };

  /// Appends a tensor to the last range, if it follows on that with the same settings, or as a range of its own.
  static void extend(std::vector<Range>& ranges, ParameterInfo const& info, bool decay) {
    Range* const last = ranges.empty() ? nullptr : &ranges.back();
    if (last != nullptr && info.offset == last->offset + last->size && decay == last->decay && info.group == last->group) {
      last->size += info.size();
    } else {
      ranges.push_back({info.offset, info.size(), decay, info.group});
    }
  }

  static std::span<Real> part(std::span<Real> all, Range const& range) {
    return all.subspan(static_cast<std::size_t>(range.offset), static_cast<std::size_t>(range.size));
  }
  [[nodiscard]] double clip_factor(double norm) const {
    return settings_.clip_norm > 0.0 && norm > settings_.clip_norm ? settings_.clip_norm / norm : 1.0;
  }

  B* backend_;
  ParameterSet<B>* parameters_;
  AdamwSettings settings_;
  Buffer<Real> first_, second_;
  std::vector<Range> ranges_;       ///< of one update each
  std::vector<Range> norm_ranges_;  ///< of one norm each
  Index steps_ = 0;
};

}  // namespace mor::train
