// SPDX-License-Identifier: Apache-2.0
/// @file
/// Root-mean-square normalisation (Zhang and Sennrich, 2019).
#pragma once

#include "mor/backend/cuda/kernels/norm.cuh"
#include "mor/backend/cuda/kernels/reduce.cuh"
#include "mor/backend/cuda/ops/alignment.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/elementwise.cuh"
#include "mor/backend/cuda/ops/partial_sums.cuh"
#include "mor/backend/cuda/tuning/pointwise.hpp"
#include "mor/core/view.hpp"

#include <cstdint>
#include <span>

namespace mor::cuda {

namespace detail {

[[nodiscard]] inline bool on_pack_boundary(void const* address) {
  return reinterpret_cast<std::uintptr_t>(address) % 16 == 0;
}

/// A norm has no map's rest: every row, also a single one, must be whole packs.
template <class T, class... Views>
[[nodiscard]] inline bool norm_in_packs(std::span<T const> weights, Views... views) {
  return on_pack_boundary(weights.data()) && can_pack(views...);
}

template <class T, int Width>
inline void launch_rms_norm(Context const& context, View<T const> x, T const* weights, float eps, View<T> out,
                            float* rstd) {
  constexpr int threads = tuning::kNormThreads;
  if (x.cols <= Index{kWarpSize} * tuning::kNormPacks * Width) {
    auto const blocks = static_cast<unsigned>(divide_up(x.rows, threads / kWarpSize));
    launch(context, "rms_norm", {dim3(blocks), threads, 0}, rms_norm_kernel<T, Width, kWarpSize>, x, weights, eps, out, rstd);
  } else {
    launch(context, "rms_norm", {dim3(static_cast<unsigned>(x.rows)), threads, 0}, rms_norm_kernel<T, Width, threads>,
           x, weights, eps, out, rstd);
  }
}

}  // namespace detail

/// Floor: one read of x, one write of out. A warp a row where a row fits its registers, else a block a row.
template <class T>
inline void rms_norm(Context const& context, View<T const> x, std::span<T const> weights, double eps, View<T> out,
                     std::span<float> rstd) {
  if (x.empty()) return;
  if (detail::norm_in_packs(weights, x, out)) {
    detail::launch_rms_norm<T, kPackSize<T>>(context, x, weights.data(), static_cast<float>(eps), out, rstd.data());
  } else {
    detail::launch_rms_norm<T, 1>(context, x, weights.data(), static_cast<float>(eps), out, rstd.data());
  }
}

/// Floor: three reads (d_out, x, d_x) and one write. Each block sums the weight gradients of its rows in registers; a
/// second launch adds the blocks' sums to d_weights in a fixed order. Scratch: blocks x cols floats.
template <class T>
inline void rms_norm_backward(Context const& context, View<T const> d_out, View<T const> x, std::span<T const> weights,
                              std::span<float const> rstd, View<T> d_x, std::span<float> d_weights) {
  using Kind = tuning::NormBackwardPlan::Kind;
  constexpr int width = kPackSize<T>;
  if (x.empty()) return;
  bool const packed = detail::norm_in_packs(weights, d_out, x, d_x);
  tuning::NormBackwardPlan const plan(x.rows, x.cols, packed, width);
  Scratch scratch(context);
  float* const partial = scratch.take<float>(plan.partial);
  auto kernel = rms_norm_backward_wide_kernel<T, 1>;
  int threads = tuning::kNormBackwardThreads;
  if (plan.kind == Kind::Warp) kernel = rms_norm_backward_kernel<T, width, kWarpSize>;
  if (plan.kind == Kind::Block) kernel = rms_norm_backward_kernel<T, width, tuning::kNormThreads>;
  if (plan.kind == Kind::Block) threads = tuning::kNormThreads;
  if (plan.kind == Kind::Wide) kernel = rms_norm_backward_wide_kernel<T, width>;
  launch(context, "rms_norm_backward", {dim3(static_cast<unsigned>(plan.blocks)), threads, 0}, kernel, d_out, x,
         weights.data(), rstd.data(), d_x, partial);
  detail::add_partials(context, "rms_norm_backward", partial, plan.blocks, x.cols, x.cols, d_weights.data());
}

}  // namespace mor::cuda
