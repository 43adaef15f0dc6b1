// SPDX-License-Identifier: Apache-2.0
/// @file
/// Choosing rows by score, random scores, and the gates of a router.
#pragma once

#include "mor/backend/cuda/kernels/radix_select.cuh"
#include "mor/backend/cuda/kernels/routing.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/error.cuh"
#include "mor/backend/cuda/tuning/routing.hpp"
#include "mor/contract/backend.hpp"
#include "mor/core/active_set.hpp"
#include "mor/core/config.hpp"
#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <algorithm>
#include <cstdint>
#include <span>

namespace mor::cuda {

namespace detail {

/// One thread for each of `items`.
template <class Tiles>
[[nodiscard]] inline LaunchShape thread_each(Index items) {
  return {dim3(static_cast<unsigned>(divide_up(items, Tiles::threads))), Tiles::threads};
}

[[nodiscard]] inline SelectionArrays selection_arrays(ActiveSet<float> const& candidates,
                                                      std::span<Row const> device_offsets, Selection const& selection) {
  return {candidates.sequence_offsets.data(),
          device_offsets.data(),
          candidates.rows.data(),
          candidates.positions.data(),
          selection.rows.data(),
          selection.positions.data(),
          selection.slots.data()};
}

[[nodiscard]] inline bool nothing_kept(std::span<Row const> host_offsets) {
  return host_offsets.empty() || host_offsets.back() == host_offsets.front();
}

[[nodiscard]] inline Row longest_sequence(std::span<Row const> host_offsets) {
  Row longest = 0;
  for (std::size_t s = 0; s + 1 < host_offsets.size(); ++s) {
    longest = std::max(longest, host_offsets[s + 1] - host_offsets[s]);
  }
  return longest;
}

inline void refuse_softmax(RouterActivation activation) {
  if (activation == RouterActivation::Softmax) {
    fail(ErrorCode::Unsupported, "softmax needs several logits a row", "cuda::router_gate", "sigmoid, tanh or none",
         "softmax");
  }
}

}  // namespace detail

/// `device_offsets` are `host_offsets` in device memory. One block a sequence finds the smallest chosen key, digit
/// after digit, and writes the chosen rows in their order. Floor: scores once (a few microseconds of latency for a
/// batch).
template <class Tiles = SelectTiles>
inline void select_top_k(Context const& context, std::span<float const> scores, ActiveSet<float> const& candidates,
                         std::span<Row const> host_offsets, std::span<Row const> device_offsets, Selection selection) {
  if (detail::nothing_kept(host_offsets)) return;
  constexpr int threads = Tiles::threads, items = Tiles::items;
  constexpr int long_threads = Tiles::long_threads, long_items = Tiles::long_items;
  auto const arrays = detail::selection_arrays(candidates, device_offsets, selection);
  auto const blocks = static_cast<unsigned>(candidates.num_sequences);
  Row const longest = detail::longest_sequence(candidates.host_offsets);
  if (longest <= threads * items) {
    launch(context, "select_top_k", {dim3(blocks), threads}, &select_top_k_kernel<threads, items, true>, scores.data(),
           arrays);
  } else if (longest <= long_threads * long_items) {
    launch(context, "select_top_k", {dim3(blocks), long_threads}, &select_top_k_kernel<long_threads, long_items, true>,
           scores.data(), arrays);
  } else {
    launch(context, "select_top_k", {dim3(blocks), long_threads}, &select_top_k_kernel<long_threads, long_items, false>,
           scores.data(), arrays);
  }
}

/// Waits for the device: `counts` are in host memory. One block a sequence and threshold; floor: scores once (from the
/// L2 cache for all thresholds but the first).
template <class Tiles = SelectTiles>
inline void count_at_least(Context const& context, std::span<float const> scores, ActiveSet<float> const& candidates,
                           std::span<double const> thresholds, std::span<Row> counts) {
  Index const sequences = candidates.num_sequences;
  if (sequences == 0 || thresholds.empty()) return;
  Scratch scratch(context);
  auto const count = static_cast<Index>(thresholds.size());
  Row* const on_device = scratch.take<Row>(count * sequences);
  for (Index first = 0; first < count; first += kThresholdsPerLaunch) {
    Index const some = std::min<Index>(count - first, kThresholdsPerLaunch);
    Thresholds values{};
    std::copy_n(thresholds.data() + first, some, values.value);
    launch(context, "count_at_least",
           {dim3(static_cast<unsigned>(sequences), static_cast<unsigned>(some)), Tiles::count_threads},
           &count_at_least_kernel<Tiles::count_threads>, scores.data(), candidates.sequence_offsets.data(), values,
           on_device + first * sequences);
  }
  if (context.log != nullptr) context.log->wait("count_at_least");
  check(cudaMemcpyAsync(counts.data(), on_device, static_cast<std::size_t>(count * sequences) * sizeof(Row),
                        cudaMemcpyDeviceToHost, context.stream),
        "count_at_least", count, sequences);
  check(cudaStreamSynchronize(context.stream), "count_at_least", count, sequences);
}

/// `device_offsets` are `host_offsets` in device memory, as counted by `count_at_least`; rows beyond them are not
/// written. One block a sequence; floor: scores once.
template <class Tiles = SelectTiles>
inline void select_at_least(Context const& context, std::span<float const> scores, double threshold,
                            ActiveSet<float> const& candidates, std::span<Row const> host_offsets,
                            std::span<Row const> device_offsets, Selection selection) {
  if (detail::nothing_kept(host_offsets)) return;
  launch(context, "select_at_least", {dim3(static_cast<unsigned>(candidates.num_sequences)), Tiles::threads},
         &select_at_least_kernel<Tiles::threads, Tiles::items>, scores.data(), threshold,
         detail::selection_arrays(candidates, device_offsets, selection));
}

/// Ten Philox rounds an element; the same bits as on the host.
template <class Tiles = RouterTiles>
inline void random_scores(Context const& context, std::uint64_t key, std::uint64_t counter,
                          std::span<Row const> positions, View<float> out) {
  launch(context, "random_scores", detail::thread_each<Tiles>(out.size()), &random_scores_kernel<Tiles::threads>, key,
         counter, positions.data(), out);
}

/// Floor: 12 bytes a slot.
template <class Tiles = RouterTiles>
inline void router_gate(Context const& context, std::span<float const> logits, std::span<Row const> slots,
                        RouterActivation activation, double alpha, std::span<float> gate) {
  detail::refuse_softmax(activation);
  auto const count = static_cast<Index>(slots.size());
  launch(context, "router_gate", detail::thread_each<Tiles>(count), &router_gate_kernel<Tiles::threads>, logits.data(),
         slots.data(), count, activation, static_cast<float>(alpha), gate.data());
}

/// Floor: 20 bytes a slot. Slots are distinct, so each logit has one thread that adds to it.
template <class Tiles = RouterTiles>
inline void router_gate_backward(Context const& context, std::span<float const> logits, std::span<Row const> slots,
                                 RouterActivation activation, double alpha, std::span<float const> d_gate,
                                 std::span<float> d_logits) {
  detail::refuse_softmax(activation);
  auto const count = static_cast<Index>(slots.size());
  launch(context, "router_gate_backward", detail::thread_each<Tiles>(count),
         &router_gate_backward_kernel<Tiles::threads>, logits.data(), slots.data(), count, activation,
         static_cast<float>(alpha), d_gate.data(), d_logits.data());
}

}  // namespace mor::cuda
