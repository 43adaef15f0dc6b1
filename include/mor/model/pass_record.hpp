// SPDX-License-Identifier: Apache-2.0
/// @file
/// What one forward pass leaves behind: for the backward pass, for reports, for reading logits.
#pragma once

#include "mor/model/decoder_layer.hpp"

#include <span>
#include <vector>

namespace mor::detail {

/// One executed layer.
template <class B>
struct LayerRecord {
  LayerActivations<B> saved;
  LayerKeys<B> keys;
};

/// One executed recursion.
template <class B>
struct StepRecord {
  ActiveSet<typename B::real_type> active;
  Index num_candidates = 0;
  std::vector<LayerRecord<B>> layers;            // (block layers)
  View<typename B::scalar_type> output;          // (active rows, D) of the block
};

/// One pass. Vectors are sized once, so that a step allocates nothing.
template <class B>
struct PassRecord {
  using Scalar = typename B::scalar_type;
  using Real = typename B::real_type;
  std::span<Token const> tokens;                 // (rows) in backend memory
  ActiveSet<Real> batch;
  std::vector<Row> iota;                         // 0, 1, 2, ... in host memory
  std::vector<LayerRecord<B>> prelude, coda;
  std::vector<StepRecord<B>> steps;
  View<Scalar> last_hidden, normed;              // (rows, D) before and after the final norm
  std::span<Real> final_rstd;                    // (rows)
  std::span<Row> depths;                         // (rows) recursions that each token took
  std::span<Real> losses;                        // (rows)
};

}  // namespace mor::detail
