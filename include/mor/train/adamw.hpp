// SPDX-License-Identifier: Apache-2.0
/// @file
/// AdamW on the flat buffers, with global-norm clipping per parameter group. Decoupled decay, none on norms; the
/// auxiliary router has ten times the learning rate and is clipped on its own (mor-spec sections 3.5 and 6). The decision
/// on each update is taken where the weights are: a step never waits.
#pragma once

#include "mor/core/update.hpp"
#include "mor/model/parameter_set.hpp"
#include "mor/train/update_report.hpp"

#include <span>
#include <vector>

namespace mor::train {

using mor::AdamwSettings;

/// Owns the two moments and the record of updates; changes weights only in `step`.
template <class B>
class Adamw {
 public:
  using Real = typename B::real_type;

  Adamw(B& backend, ParameterSet<B>& parameters, AdamwSettings settings)
      : backend_(&backend),
        parameters_(&parameters),
        settings_(settings),
        first_(backend.memory(), parameters.layout().total_size()),
        second_(backend.memory(), parameters.layout().total_size()),
        learning_rate_(backend.memory(), 1),
        record_(backend.memory(), 1) {
    backend.fill(View<Real>(first_.data(), 1, first_.size()), 0.0);
    backend.fill(View<Real>(second_.data(), 1, second_.size()), 0.0);
    set_steps(0);
    for (auto const& info : parameters.layout().all()) {
      if (info.group == ParameterGroup::Frozen) continue;
      extend(ranges_, info, info.decay);
      extend(norm_ranges_, info, true);  // one sum covers what decays and what does not
    }
  }

  /// Tells the next `step` of a micro-batch's loss, weight * sum(losses): an update whose loss is not finite is not
  /// made. `losses` are in the backend's memory. Without this the norms of the gradients decide alone.
  void add_loss(std::span<Real const> losses, double weight) { backend_->add_loss(losses, weight, record_.span()); }

  /// One update from the accumulated gradients, clipped to `clip_norm`, unless a norm or the loss forbids it: then
  /// weights, moments and the number of updates stay as they are. The verbs see the new weights. Does not wait.
  void step(double learning_rate) {
    auto const rate = static_cast<Real>(learning_rate);
    backend_->store(std::span<Real const>(&rate, 1), learning_rate_.span());
    for (auto const& range : norm_ranges_) {
      backend_->add_squares(part(parameters_->gradients(), range), range.group, record_.span());
    }
    backend_->decide_update(settings_, learning_rate_.span(), record_.span());
    auto settings = settings_;
    for (auto const& range : ranges_) {
      settings.weight_decay = range.decay ? settings_.weight_decay : 0.0;
      auto const rounded = parameters_->rounded_values();
      backend_->adamw(part(parameters_->gradients(), range), settings, range.group, record_.span(),
                      part(parameters_->values(), range), part(first_.span(), range), part(second_.span(), range),
                      rounded.empty() ? rounded : part(rounded, range));
    }
  }

  /// What the last `step` found and did; waits for the device.
  [[nodiscard]] UpdateReport last_update() const {
    UpdateRecord<Real> record;
    backend_->download(record_.span(), std::span(&record, 1));
    UpdateReport report;
    report.norms = {record.main.norm, record.aux_router.norm};
    report.loss = record.loss;
    report.applied = record.applied != 0;
    report.updates = record.updates;
    report.skipped = record.skipped;
    report.largest_accepted = settings_.largest_accepted;
    return report;
  }

  /// Updates made so far; part of a checkpoint, with both moments. Waits for the device.
  [[nodiscard]] Index steps() const { return last_update().updates; }
  /// Continues after that many updates: forgets the last one, what was skipped, and losses given since.
  void set_steps(Index steps) {
    UpdateRecord<Real> record;
    record.updates = steps;
    backend_->store(std::span<UpdateRecord<Real> const>(&record, 1), record_.span());
  }
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

  template <class T>
  static std::span<T> part(std::span<T> all, Range const& range) {
    return all.subspan(static_cast<std::size_t>(range.offset), static_cast<std::size_t>(range.size));
  }

  B* backend_;
  ParameterSet<B>* parameters_;
  AdamwSettings settings_;
  Buffer<Real> first_, second_, learning_rate_;
  Buffer<UpdateRecord<Real>> record_;
  std::vector<Range> ranges_;       ///< of one update each
  std::vector<Range> norm_ranges_;  ///< of one sum of squares each
};

}  // namespace mor::train
