// SPDX-License-Identifier: Apache-2.0
/// @file
/// Adds up what blocks have left of a sum over rows.
#pragma once

#include "mor/backend/cuda/kernels/partial_sums.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/tuning/pointwise.hpp"

namespace mor::cuda::detail {

/// out[j] += sum over i < count of partial[i * stride + j], for j < cols.
inline void add_partials(Context const& context, char const* verb, float const* partial, Index count, Index stride,
                         Index cols, float* out) {
  constexpr int columns = tuning::kPartialColumns;
  launch(context, verb, {dim3(static_cast<unsigned>(divide_up(cols, columns))), columns * kWarpSize, 0},
         add_partials_kernel<columns>, partial, static_cast<int>(count), stride, cols, out);
}

}  // namespace mor::cuda::detail
