// SPDX-License-Identifier: Apache-2.0
/// @file
/// The verbs of `ServingControl` on the device: one block each, microseconds of latency, words as the host's verbs
/// write them (backend/host/serving_tables.hpp).
#pragma once

#include "mor/backend/cuda/kernels/serving_collect.cuh"
#include "mor/backend/cuda/kernels/serving_joined.cuh"
#include "mor/backend/cuda/kernels/serving_lists.cuh"
#include "mor/backend/cuda/kernels/serving_start.cuh"
#include "mor/backend/cuda/kernels/serving_tables.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/elementwise.cuh"
#include "mor/backend/cuda/tuning/architecture.hpp"
#include "mor/backend/cuda/tuning/serving.hpp"
#include "mor/core/serving_tables.hpp"
#include "mor/core/types.hpp"

#include <algorithm>
#include <span>

namespace mor::cuda {

/// Tables keep their shape, so their place says which they are.
inline void note_to(WorkLog& log, ServingTables const& tables) { log.note(tables.words); }
inline void note_to(WorkLog& log, TickRule const& rule) { log.note(rule.one_depth, rule.in_step, rule.most_rows, rule.least_finished); }
inline void note_to(WorkLog& log, ServingReport const& report) { log.note(report.words.data(), report.finished_room); }

namespace detail {

[[nodiscard]] inline RowLists row_lists(ServingRows const& rows) {
  return {list_or_null(rows.cells),
          list_or_null(rows.positions),
          list_or_null(rows.depths),
          list_or_null(rows.begins),
          list_or_null(rows.limits),
          list_or_null(rows.base_begins),
          list_or_null(rows.base_limits),
          list_or_null(rows.first_limits),
          list_or_null(rows.least),
          list_or_null(rows.most),
          rows.count.data(),
          static_cast<int>(rows.cells.size())};
}
[[nodiscard]] inline SampledLists sampled_lists(SampledRows const& sampled) {
  return {list_or_null(sampled.cells), list_or_null(sampled.sources), list_or_null(sampled.rules), sampled.count.data(),
          static_cast<int>(sampled.cells.size())};
}

/// A step a thread where there are enough threads for all cells.
[[nodiscard]] inline bool one_step(ServingTables const& tables) {
  return tables.shape.cells() <= tuning::kServingThreads;
}
/// One block for so many pieces of work. It starts while the kernel before it ends.
template <class Arch>
[[nodiscard]] inline LaunchShape one_block(Index items, Index shared_bytes = 0) {
  return {dim3(1), tuning::serving_threads(items), shared_bytes, 1, Arch::capability >= 90};
}
/// Lists whose last rows `finish_recursion` keeps in shared memory at a time.
[[nodiscard]] inline Index lists_at_once(ServingTables const& tables) {
  return std::min(tables.shape.slots * tables.shape.recursions, tuning::kServingLists);
}
/// One block that looks at all cells and writes `rows` rows.
template <class Arch>
[[nodiscard]] inline LaunchShape look_at_cells(ServingTables const& tables, std::size_t rows, Index shared_bytes = 0) {
  return one_block<Arch>(std::max(tables.shape.cells(), static_cast<Index>(rows)), shared_bytes);
}

}  // namespace detail

/// `edits` in device memory. Floor: 12 bytes an edit.
template <class Arch>
inline void apply_edits(Context const& context, std::span<TableEdit const> edits, ServingTables const& tables) {
  constexpr int threads = 256;
  auto const count = static_cast<Index>(edits.size());
  LaunchShape const shape{dim3(static_cast<unsigned>(divide_up(count, threads))), threads, 0, 1,
                          Arch::capability >= 90};
  launch(context, "apply_edits", shape, &apply_edits_kernel<Arch, threads>, edits.data(), static_cast<int>(count),
         tables);
}

/// Floor: 16 bytes a cell, 32 a row.
template <class Arch>
inline void start_recursion(Context const& context, ServingTables const& tables, TickRule const& rule,
                            ServingRows const& rows) {
  Index const counts = rule.one_depth ? 2 * tables.shape.recursions : 0;
  Index const bits = rule.most_rows > 0 ? divide_up(tables.shape.slots, math::kReadyBits) : 0;
  Index const shared = (counts + bits) * static_cast<Index>(sizeof(Row));
  auto* const kernel = detail::one_step(tables) ? &start_recursion_kernel<Arch, 1>
                                                : &start_recursion_kernel<Arch, tuning::kServingSteps>;
  launch(context, "start_recursion", detail::look_at_cells<Arch>(tables, rows.cells.size(), shared), kernel, tables,
         rule, detail::row_lists(rows));
}

/// Floor: 12 bytes a cell, 44 a row.
template <class Arch>
inline void finish_recursion(Context const& context, ServingTables const& tables, ServingRows const& rows,
                             std::span<float const> scores, ServingReport const& report) {
  Index const lists = detail::lists_at_once(tables);
  launch(context, "finish_recursion",
         detail::look_at_cells<Arch>(tables, rows.cells.size(), lists * static_cast<Index>(sizeof(int))),
         &finish_recursion_kernel<Arch, tuning::kServingThreads>, tables, detail::row_lists(rows), detail::list_or_null(scores),
         report.words.data(), static_cast<int>(lists));
}

/// Floor: 20 bytes a cell, 20 a row, 88 a row that makes a token.
template <class Arch>
inline void collect_finished(Context const& context, ServingTables const& tables, TickRule const& rule, ServingReport const& report,
                             ServingRows const& rows, SampledRows const& sampled) {
  auto* const kernel = detail::one_step(tables) ? &collect_finished_kernel<Arch, 1>
                                                : &collect_finished_kernel<Arch, tuning::kServingSteps>;
  launch(context, "collect_finished",
         detail::look_at_cells<Arch>(tables, std::max(rows.cells.size(), sampled.cells.size())), kernel, tables,
         rule, report.words.data(), detail::row_lists(rows), detail::sampled_lists(sampled));
}

/// Floor: 16 bytes a row, 64 a row that makes a token.
template <class Arch>
inline void commit_samples(Context const& context, ServingTables const& tables, ServingRows const& rows,
                           SampledRows const& sampled, std::span<Token const> tokens,
                           std::span<float const> log_probabilities, ServingReport const& report) {
  auto const items = static_cast<Index>(std::max(rows.cells.size(), sampled.cells.size()));
  launch(context, "commit_samples", detail::one_block<Arch>(items),
         &commit_samples_kernel<Arch, tuning::kServingThreads>, tables, detail::row_lists(rows),
         detail::sampled_lists(sampled), tokens.data(), log_probabilities.data(), report, report.words.data());
}

/// Floor: 12 bytes a cell, 48 a row.
template <class Arch>
inline void collect_entering(Context const& context, ServingTables const& tables, ServingRows const& rows,
                             std::span<Token> tokens, ServingReport const& report) {
  auto* const kernel = detail::one_step(tables) ? &collect_entering_kernel<Arch, 1>
                                                : &collect_entering_kernel<Arch, tuning::kServingSteps>;
  launch(context, "collect_entering", detail::look_at_cells<Arch>(tables, std::max(rows.cells.size(), tokens.size())),
         kernel, tables, detail::row_lists(rows), tokens.data(), static_cast<int>(tokens.size()),
         report.words.data() + ServingReport::EnteredRows);
}

/// `finish_recursion`, then `collect_finished`. Floor: theirs.
template <class Arch>
inline void finish_and_collect(Context const& context, ServingTables const& tables, TickRule const& rule, ServingRows const& rows,
                               std::span<float const> scores, ServingReport const& report, ServingRows const& finished,
                               SampledRows const& sampled) {
  Index const lists = detail::lists_at_once(tables);
  auto* const kernel = detail::one_step(tables) ? &finish_and_collect_kernel<Arch, 1>
                                                : &finish_and_collect_kernel<Arch, tuning::kServingSteps>;
  std::size_t const most = std::max({rows.cells.size(), finished.cells.size(), sampled.cells.size()});
  launch(context, "finish_and_collect", detail::look_at_cells<Arch>(tables, most, lists * static_cast<Index>(sizeof(int))), kernel, tables,
         rule, detail::row_lists(rows), detail::list_or_null(scores), report.words.data(), static_cast<int>(lists), detail::row_lists(finished),
         detail::sampled_lists(sampled));
}

/// `commit_samples`, then `collect_entering`. Floor: theirs.
template <class Arch>
inline void commit_and_collect(Context const& context, ServingTables const& tables, ServingRows const& finished, SampledRows const& sampled,
                               std::span<Token const> tokens, std::span<float const> log_probabilities, ServingReport const& report,
                               ServingRows const& entering, std::span<Token> entering_tokens) {
  auto* const kernel = detail::one_step(tables) ? &commit_and_collect_kernel<Arch, 1>
                                                : &commit_and_collect_kernel<Arch, tuning::kServingSteps>;
  std::size_t const most = std::max({finished.cells.size(), sampled.cells.size(), entering.cells.size(), entering_tokens.size()});
  launch(context, "commit_and_collect", detail::look_at_cells<Arch>(tables, most), kernel, tables, detail::row_lists(finished),
         detail::sampled_lists(sampled), tokens.data(), log_probabilities.data(), report, report.words.data(), detail::row_lists(entering),
         entering_tokens.data(), static_cast<int>(entering_tokens.size()));
}

}  // namespace mor::cuda
