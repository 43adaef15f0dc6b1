// SPDX-License-Identifier: Apache-2.0
/// @file
/// Typed access to the flat parameter and gradient buffers.
#pragma once

#include "mor/core/parameter_layout.hpp"
#include "mor/core/view.hpp"

#include <span>

namespace mor {

/// The tensors of a model in backend memory: weights as verbs read them, gradients as they accumulate.
template <class Scalar, class Real>
struct ParameterViews {
  ParameterLayout const* layout = nullptr;
  Scalar const* weights = nullptr;
  Real const* master = nullptr;  ///< the same values in full precision
  Real* gradients = nullptr;  ///< null where a model is used for inference only

  [[nodiscard]] View<Scalar const> weight(Index index) const { return fused_weight(index, 1); }
  [[nodiscard]] View<Real> gradient(Index index) const { return fused_gradient(index, 1); }

  /// `count` tensors declared one after another, with equal columns, as one matrix [sum of rows, cols].
  [[nodiscard]] View<Scalar const> fused_weight(Index first, Index count) const {
    auto const& info = (*layout)[first];
    return {weights + info.offset, rows(first, count), info.cols};
  }
  [[nodiscard]] View<Real> fused_gradient(Index first, Index count) const {
    auto const& info = (*layout)[first];
    return {gradients + info.offset, rows(first, count), info.cols};
  }
  [[nodiscard]] std::span<Scalar const> weight_vector(Index index) const {
    auto const& info = (*layout)[index];
    return {weights + info.offset, static_cast<std::size_t>(info.size())};
  }
  [[nodiscard]] std::span<Real> gradient_vector(Index index) const {
    auto const& info = (*layout)[index];
    return {gradients + info.offset, static_cast<std::size_t>(info.size())};
  }

  [[nodiscard]] std::span<Real const> master_vector(Index index) const {
    auto const& info = (*layout)[index];
    return {master + info.offset, static_cast<std::size_t>(info.size())};
  }

 private:
  [[nodiscard]] Index rows(Index first, Index count) const {
    Index total = 0;
    for (Index i = first; i < first + count; ++i) total += (*layout)[i].rows;
    return total;
  }
};

}  // namespace mor
