// SPDX-License-Identifier: Apache-2.0
/// @file
/// `LossReport`: what one micro-batch measured, on the host.
#pragma once

#include "mor/core/types.hpp"

#include <vector>

namespace mor {

/// Values are unweighted: coefficients belong to the training objective, not to the measurement.
struct LossReport {
  double loss_sum = 0.0;           ///< negative log-likelihood in nats, summed over targets
  double aux_loss = 0.0;           ///< expert choice: sum over recursions of the candidates' mean BCE
  double sampling_accuracy = 0.0;  ///< expert choice: share of candidates with (logit >= 0) == selected, mean over recursions
  double z_loss = 0.0;
  double balance_loss = 0.0;       ///< token choice
  std::vector<double> load;        ///< [Nr] token choice: share of tokens that chose each depth
  std::vector<Index> active_rows;  ///< [Nr] rows that entered each recursion
  Index num_rows = 0;

  /// Recursions a token took on average.
  [[nodiscard]] double mean_depth() const {
    Index total = 0;
    for (Index const rows : active_rows) total += rows;
    return num_rows > 0 ? static_cast<double>(total) / static_cast<double>(num_rows) : 0.0;
  }
};

}  // namespace mor
