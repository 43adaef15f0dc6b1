// SPDX-License-Identifier: Apache-2.0
/// @file
/// `ParameterSet`: a model's weights and gradients, each one flat buffer in backend memory.
#pragma once

#include "mor/contract/backend.hpp"
#include "mor/core/normal_numbers.hpp"
#include "mor/core/parameter_layout.hpp"
#include "mor/core/parameter_views.hpp"

#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace mor {

/// Owns master weights and gradients (Real) and, where the backend computes in another type, the weights that its verbs
/// read (Scalar). After writing master weights alone call `publish`.
template <class B>
class ParameterSet {
 public:
  using Scalar = typename B::scalar_type;
  using Real = typename B::real_type;
  static constexpr bool one_copy = std::is_same_v<Scalar, Real>;

  ParameterSet(B& backend, ParameterLayout layout)
      : backend_(&backend), layout_(std::move(layout)), values_(backend.memory(), layout_.total_size()) {
    if constexpr (!one_copy) weights_ = Buffer<Scalar>(backend.memory(), layout_.total_size());
    backend.fill(flat(values_), 0.0);
    publish();
  }

  [[nodiscard]] ParameterLayout const& layout() const { return layout_; }
  /// Master weights, all tensors.
  [[nodiscard]] std::span<Real> values() const { return values_.span(); }
  /// The weights that verbs read, all tensors, where they are a rounded copy; else empty. `publish` writes them, and so
  /// may who changes the master weights.
  [[nodiscard]] std::span<Scalar> rounded_values() const { return weights_.span(); }
  /// Gradients, all tensors; empty before `enable_gradients`.
  [[nodiscard]] std::span<Real> gradients() const { return gradients_.span(); }

  /// Allocates the gradient buffer (training only) and zeroes it.
  void enable_gradients() {
    if (gradients_.size() == 0) gradients_ = Buffer<Real>(backend_->memory(), layout_.total_size());
    zero_gradients();
  }
  void zero_gradients() { backend_->fill(flat(gradients_), 0.0); }

  /// Makes changed master weights visible to the verbs.
  void publish() {
    if constexpr (!one_copy) backend_->cast_weights(values(), weights_.span());
  }
  /// The same for one tensor; `name` as in the layout.
  void publish(std::string const& name) {
    if constexpr (!one_copy) {
      auto const& info = layout_.find(name);
      auto const offset = static_cast<std::size_t>(info.offset), size = static_cast<std::size_t>(info.size());
      backend_->cast_weights(values().subspan(offset, size), weights_.span().subspan(offset, size));
    }
  }

  [[nodiscard]] ParameterViews<Scalar, Real> views() const {
    Scalar const* weights = nullptr;
    if constexpr (one_copy) {
      weights = values_.data();
    } else {
      weights = weights_.data();
    }
    return {&layout_, weights, values_.data(), gradients_.data()};
  }

  /// Host copies of one tensor's values; `name` as in the layout.
  [[nodiscard]] std::vector<Real> read(std::string const& name) const { return read_from(values(), name); }
  [[nodiscard]] std::vector<Real> read_gradient(std::string const& name) const { return read_from(gradients(), name); }
  /// Overwrites one tensor; `host` has its number of elements. Call `publish` after the last one.
  void write(std::string const& name, std::span<Real const> host) {
    auto const& info = layout_.find(name);
    if (static_cast<Index>(host.size()) != info.size()) {
      fail(ErrorCode::ShapeMismatch, "the tensor has another size", name, text_of(info.size()) + " elements",
           text_of(host.size()));
    }
    backend_->store(host, values().subspan(static_cast<std::size_t>(info.offset), host.size()));
  }

  /// Random weights: matrices N(0, standard_deviation^2), norms one, frozen vectors zero. Each tensor has its own stream,
  /// so the values do not depend on the others.
  void initialize(std::uint64_t seed, double standard_deviation) {
    for (Index i = 0; i < layout_.count(); ++i) {
      auto const& info = layout_[i];
      std::vector<Real> host(static_cast<std::size_t>(info.size()),
                             info.initializer == Initializer::Ones ? Real(1) : Real(0));
      if (info.initializer == Initializer::Normal) {
        fill_normal<Real>(Philox{stream_key(seed, static_cast<std::uint64_t>(i))}, standard_deviation, 0, host);
      }
      write(info.name, host);
    }
    publish();
  }

 private:
  static View<Real> flat(Buffer<Real> const& buffer) { return {buffer.data(), 1, buffer.size()}; }

  std::vector<Real> read_from(std::span<Real> flat_values, std::string const& name) const {
    auto const& info = layout_.find(name);
    std::vector<Real> host(static_cast<std::size_t>(info.size()));
    backend_->download(flat_values.subspan(static_cast<std::size_t>(info.offset), host.size()), host);
    return host;
  }

  B* backend_;
  ParameterLayout layout_;
  Buffer<Real> values_, gradients_;
  Buffer<Scalar> weights_;
};

}  // namespace mor
