// SPDX-License-Identifier: Apache-2.0
/// @file
/// Dense layers for few rows, with what comes before and after them: decoding. The floor of each is its weights, read
/// once for up to 64 rows.
///
/// What a row gets depends on neither the other rows nor their number. With `count` in device memory, rows from *count on
/// are left as they are. From compute capability 9.0 on the kernels start while the kernel before them still runs, and
/// read their weights meanwhile: no kernel that was just launched may write weights, of the layer or of the norm.
#pragma once

#include "mor/backend/cuda/kernels/few_rows.cuh"
#include "mor/backend/cuda/kernels/few_rows_general.cuh"
#include "mor/backend/cuda/ops/alignment.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/key_list.cuh"
#include "mor/backend/cuda/tuning/architecture.hpp"
#include "mor/backend/cuda/tuning/few_rows.hpp"
#include "mor/core/active_set.hpp"
#include "mor/core/dtype.hpp"
#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <cstdint>
#include <span>
#include <type_traits>

namespace mor::cuda {

/// A plan follows from the operands' shapes.
inline void note_to(WorkLog&, tuning::FewRowsPlan const&) {}

namespace detail {

/// Whether 16-byte copies can bring the rows of x; whatever their number.
template <class T>
[[nodiscard]] inline bool every_row_in_packs(View<T const> x) {
  return reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && x.stride % kPackSize<T> == 0 && x.cols % kPackSize<T> == 0;
}

/// `pairs` rows of the weights, each with the one `gap` behind it, in heads of `head_dim` rows; or, without, all rows.
struct FewRowsPairs {
  Index pairs = 0, gap = 0, head_dim = 0;
};

inline void set_head_tiles(FewRowsTiles& tiles, Index count) {
  if (count == 0) return;
  tiles.head_tiles = static_cast<int>(count);
  tiles.by_head_tiles = Divider(count);
}

template <class Arch, FewRowsResult Result>
inline void launch_few_rows_tiles(Context const& context, char const* verb, View<bfloat16 const> x,
                                  View<bfloat16 const> weights, FewRowsProblem<bfloat16> const& problem,
                                  FewRowsPairs const& pairs, FewRowsTiles tiles, tuning::FewRowsPlan const& plan) {
  constexpr bool hopper = Arch::capability >= 90;
  tiles.step = pairs.pairs > 0 || plan.half ? 8 : 16;
  set_head_tiles(tiles, pairs.head_dim / 16);
  if (pairs.pairs == 0) tiles.gap = plan.half ? tiles.rows : 8;
  tiles.gap_elements = plan.half ? 0 : tiles.gap * weights.stride;
  auto* kernel = &few_rows_kernel<Arch, Result, 1>;
  if (plan.row_tiles == 4) kernel = &few_rows_kernel<Arch, Result, 4>;
  if (plan.row_tiles == 8) kernel = &few_rows_kernel<Arch, Result, 8>;
  dim3 const blocks(static_cast<unsigned>(plan.clusters * plan.cluster),
                    static_cast<unsigned>(divide_up(x.rows, Index{8} * plan.row_tiles)));
  launch(context, verb, {blocks, plan.threads(), plan.shared_bytes, plan.cluster, hopper}, kernel, x, weights, problem,
         tiles, plan);
}

/// Throws where `given` is not of the shape that the product has.
template <class T>
inline void check_few_rows_shape(char const* verb, char const* problem, Index rows, Index cols, View<T> given) {
  if (given.rows == rows && given.cols == cols) return;
  fail(ErrorCode::ShapeMismatch, problem, verb, shape_text(rows, cols), shape_text(given.rows, given.cols));
}

/// @param problem  where results go; x and the weights apart
template <class Arch, FewRowsResult Result, class T>
inline void launch_few_rows(Context const& context, char const* verb, View<T const> x, View<T const> weights,
                            FewRowsProblem<T> const& problem, FewRowsPairs const& pairs = {}) {
  constexpr bool hopper = Arch::capability >= 90;
  if (x.rows == 0 || weights.rows == 0) return;
  if (x.cols != weights.cols) {
    fail(ErrorCode::ShapeMismatch, "the weights do not fit the rows", verb, text_of(x.cols) + " columns",
         text_of(weights.cols));
  }
  Index cols = weights.rows;
  if constexpr (Result == FewRowsResult::Swiglu) cols = pairs.pairs;
  if constexpr (Result == FewRowsResult::Keys) cols = problem.query_width;
  if (problem.real_out.data != nullptr) {
    check_few_rows_shape(verb, "the results do not fit the product", x.rows, cols, problem.real_out);
  } else {
    check_few_rows_shape(verb, "the results do not fit the product", x.rows, cols, problem.out);
  }
  if constexpr (Result == FewRowsResult::Residual) {
    check_few_rows_shape(verb, "the residual does not fit the product", x.rows, cols, problem.residual);
  }
  FewRowsTiles tiles;
  tiles.rows = static_cast<int>(weights.rows);
  tiles.head_rows = static_cast<int>(pairs.head_dim);
  tiles.gap = pairs.pairs > 0 ? static_cast<int>(pairs.gap) : tiles.rows;
  tiles.limit = static_cast<int>(pairs.pairs > 0 && pairs.head_dim == 0 ? pairs.pairs : weights.rows);
  if constexpr (std::is_same_v<T, bfloat16>) {
    bool const aligned = every_row_in_packs(x) && every_row_in_packs(weights) &&
                         reinterpret_cast<std::uintptr_t>(problem.norm) % 16 == 0;
    if (aligned && pairs.head_dim % 16 == 0) {
      tuning::FewRowsRequest request;
      request.rows = x.rows;
      request.cols = x.cols;
      request.tiles = pairs.pairs > 0 ? divide_up(pairs.pairs, 8) : divide_up(weights.rows, 16);
      request.half_tiles = pairs.pairs > 0 ? 0 : divide_up(weights.rows, 8);
      request.most_parts = Result == FewRowsResult::Residual || Result == FewRowsResult::Keys;
      request.clusters = hopper;
      request.multiprocessors = context.device->multiprocessors;
      request.block_bytes = context.device->max_shared_bytes;
      tuning::FewRowsPlan const plan(request);
      if (plan.possible) return launch_few_rows_tiles<Arch, Result>(context, verb, x, weights, problem, pairs, tiles, plan);
    }
  }
  tiles.step = 1;
  set_head_tiles(tiles, pairs.head_dim / 2);
  Index const count = pairs.pairs > 0 ? pairs.pairs : weights.rows;
  constexpr int threads = tuning::FewRows::general_threads;
  dim3 const blocks(static_cast<unsigned>(divide_up(count, threads / 32)),
                    static_cast<unsigned>(divide_up(x.rows, tuning::FewRows::general_rows)));
  launch(context, verb, {blocks, threads, 0, 1, hopper}, &few_rows_general_kernel<Arch, Result, T>, x, weights, problem, tiles,
         static_cast<int>(count));
}

template <class T, class Out>
[[nodiscard]] inline FewRowsProblem<T> few_rows_into(View<Out> out, Row const* count) {
  static_assert(std::is_same_v<Out, T> || std::is_same_v<Out, float>);
  FewRowsProblem<T> problem;
  problem.count = count;
  if constexpr (std::is_same_v<Out, T>) {
    problem.out = out;
  } else {
    problem.real_out = out;
  }
  return problem;
}

template <class T>
inline void set_norm(FewRowsProblem<T>& problem, std::span<T const> weights, double eps) {
  problem.norm = weights.data();
  problem.eps = static_cast<float>(eps);
}

}  // namespace detail

/// out = scale * x w^T. `Out` is T or float.
template <class Arch, class T, class Out>
inline void few_rows_linear(Context const& context, View<T const> x, View<T const> weights, float scale, View<Out> out,
                            Row const* count = nullptr) {
  auto problem = detail::few_rows_into<T>(out, count);
  problem.scale = scale;
  detail::launch_few_rows<Arch, FewRowsResult::Plain>(context, "few_rows_linear", x, weights, problem);
}

/// out = residual + x w^T; `residual` may be `out`.
template <class Arch, class T>
inline void few_rows_linear_residual(Context const& context, View<T const> x, View<T const> weights,
                                     View<T const> residual, View<T> out, Row const* count = nullptr) {
  auto problem = detail::few_rows_into<T>(out, count);
  problem.residual = residual;
  detail::launch_few_rows<Arch, FewRowsResult::Residual>(context, "few_rows_linear_residual", x, weights, problem);
}

/// out = rms_norm(x) w^T. `Out` is T or float.
template <class Arch, class T, class Out>
inline void few_rows_norm_linear(Context const& context, View<T const> x, std::span<T const> norm_weights, double eps,
                                 View<T const> weights, View<Out> out, Row const* count = nullptr) {
  auto problem = detail::few_rows_into<T>(out, count);
  detail::set_norm(problem, norm_weights, eps);
  detail::launch_few_rows<Arch, FewRowsResult::Plain>(context, "few_rows_norm_linear", x, weights, problem);
}

/// out = silu(g) * u with [g u] = rms_norm(x) w^T; `gate_up_weights` has twice as many rows as `out` has columns.
template <class Arch, class T>
inline void few_rows_norm_swiglu(Context const& context, View<T const> x, std::span<T const> norm_weights, double eps,
                                 View<T const> gate_up_weights, View<T> out, Row const* count = nullptr) {
  if (gate_up_weights.rows != 2 * out.cols) {
    fail(ErrorCode::ShapeMismatch, "gates and values are not as many as results", "few_rows_norm_swiglu",
         text_of(2 * out.cols) + " rows of weights", text_of(gate_up_weights.rows));
  }
  auto problem = detail::few_rows_into<T>(out, count);
  detail::set_norm(problem, norm_weights, eps);
  detail::launch_few_rows<Arch, FewRowsResult::Swiglu>(context, "few_rows_norm_swiglu", x, gate_up_weights, problem, {out.cols, out.cols, 0});
}

/// [q k v] = rms_norm(x) w^T, q and k turned to their positions; k and v go to their places in a list of keys, those of a
/// row with limit 0 nowhere. `plane_k` and `plane_v` are the storage of the keys and values.
template <class Arch, class T>
inline void few_rows_project_keys(Context const& context, View<T const> x, std::span<T const> norm_weights, double eps,
                                  View<T const> qkv_weights, std::span<Row const> positions, Index head_dim, double theta,
                                  KeyList const& keys, View<T> q, View<T> plane_k, View<T> plane_v,
                                  Row const* count = nullptr) {
  bool const whole = head_dim > 0 && head_dim % 2 == 0 && head_dim < (Index{2} << FewRowsAngles::most_bits) && q.cols % head_dim == 0 && plane_k.cols % head_dim == 0;
  if (!whole || plane_v.cols != plane_k.cols || qkv_weights.rows != q.cols + 2 * plane_k.cols) {
    fail(ErrorCode::ShapeMismatch, "the weights are not queries, keys and values in whole heads", "few_rows_project_keys",
         text_of(q.cols) + " + 2 * " + text_of(plane_k.cols) + " rows, an even head dimension that divides them",
         text_of(qkv_weights.rows) + " rows, head dimension " + text_of(head_dim));
  }
  auto problem = detail::few_rows_into<T>(q, count);
  detail::set_norm(problem, norm_weights, eps);
  problem.positions = positions.data();
  problem.angles = FewRowsAngles::of(theta, head_dim);
  problem.head_dim = static_cast<int>(head_dim);
  problem.query_width = static_cast<int>(q.cols);
  problem.key_width = static_cast<int>(plane_k.cols);
  problem.places = detail::key_places(keys);
  problem.plane_k = plane_k;
  problem.plane_v = plane_v;
  detail::launch_few_rows<Arch, FewRowsResult::Keys>(context, "few_rows_project_keys", x, qkv_weights, problem,
                                   {qkv_weights.rows / 2, head_dim / 2, head_dim});
}

}  // namespace mor::cuda
