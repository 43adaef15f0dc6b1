// SPDX-License-Identifier: Apache-2.0
/// @file
/// The verbs of the CUDA backend that only serving calls; meaning and shapes are in contract/serving.hpp.
#pragma once

#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/elementwise.cuh"
#include "mor/backend/cuda/ops/expert_step.cuh"
#include "mor/backend/cuda/ops/head_sampling.cuh"
#include "mor/backend/cuda/ops/rows.cuh"
#include "mor/backend/cuda/ops/serving_layers.cuh"
#include "mor/backend/cuda/ops/serving_routing.cuh"
#include "mor/backend/cuda/ops/serving_tables.cuh"
#include "mor/backend/cuda/ops/stack.cuh"
#include "mor/backend/cuda/replays.cuh"
#include "mor/backend/cuda/reports.cuh"
#include "mor/backend/cuda/verb_context.cuh"
#include "mor/contract/backend.hpp"
#include "mor/contract/serving.hpp"
#include "mor/core/serving_tables.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <span>

namespace mor::cuda {

namespace detail {
/// Where several layers can run in one launch, and the end of a token in one.
template <class T, class Arch>
struct LaunchFusions {};
template <>
struct LaunchFusions<bfloat16, Sm90> {
  using LayerStack = cuda::LayerStack<Sm90>;
  using HeadSampler = cuda::HeadSampler<Sm90>;
};
}  // namespace detail

/// Base of `Self`, a backend with weights of T, which gives `context` and `upload`.
template <class Self, class T, class Arch>
class ServingVerbs : public detail::LaunchFusions<T, Arch> {
  using In = View<T const>;
  using Out = View<T>;
  using RealIn = View<float const>;
  using RealOut = View<float>;
  using Vector = std::span<T const>;
  using Reals = std::span<float const>;
  using RealResults = std::span<float>;
  using Rows = std::span<Row const>;

 public:
  using Reports = cuda::Reports;
  using Replays = cuda::Replays;

  /// @name Kernels for few rows
  /// Which kernels multiply up to 64 rows in the verbs of a layer that training calls too (`linear`, `linear_residual`,
  /// `linear_logits`). Off at first, so that training keeps its bits and its speed; an engine turns it on. Work that
  /// was captured keeps its kernels.
  /// @{
  void set_serving(bool on) { few_.serving = on; }
  /// With `on`, rows of any number: what a row gets from these verbs, and from those below, depends on that row alone.
  /// Without, products of more rows are the library's, which are faster, and whose sums depend on the number of rows.
  void set_row_invariant(bool on) { few_.row_invariant = on; }
  /// @}

  /// @name Layers of a few rows
  /// @{
  void norm_linear(In x, Vector norm_weights, double eps, In weights, Out out) {
    cuda::norm_linear<Arch>(verb("norm_linear"), few_, x, norm_weights, eps, weights, out);
  }
  void norm_logits(In x, Vector norm_weights, double eps, In weights, Rows count, RealOut out) {
    cuda::norm_logits<Arch>(verb("norm_logits"), few_, x, norm_weights, eps, weights, count, out);
  }
  void norm_swiglu(In x, Vector norm_weights, double eps, In gate_up_weights, Out out) {
    cuda::norm_swiglu<Arch>(verb("norm_swiglu"), few_, x, norm_weights, eps, gate_up_weights, out);
  }
  void project_keys(In x, Vector norm_weights, double eps, In qkv_weights, Rows positions, Index head_dim, double theta,
                    KeyList const& write, Out q, Out plane_k, Out plane_v) {
    cuda::project_keys<Arch>(verb("project_keys"), few_, x, norm_weights, eps, qkv_weights, positions, head_dim, theta,
                             write, q, plane_k, plane_v);
  }
  /// @}

  /// @name Rows of mixed depth
  /// @{
  void move_rows(In x, Rows from, Rows to, Out out) { cuda::move_rows(verb("move_rows"), x, from, to, out); }
  void scatter_values(Reals values, Rows rows, RealResults out) {
    cuda::scatter_values(verb("scatter_values"), values, rows, out);
  }
  void fill_values(double value, RealResults out) {
    cuda::fill(verb("fill_values"), RealOut(out.data(), 1, static_cast<Index>(out.size())), value);
  }
  void pick_columns(RealIn x, Rows columns, Index shift, RealResults out) {
    cuda::pick_columns(verb("pick_columns"), x, columns, shift, out);
  }
  void limit_choice(RealIn probabilities, Rows least, Rows most, RealResults choice, RealResults gate) {
    cuda::limit_choice(verb("limit_choice"), probabilities, least, most, choice, gate);
  }
  void choice_weights(Reals choice, Reals gate, Rows depths, bool gate_intermediate, bool additive, RealResults scale,
                      RealResults keep, RealResults scores) {
    cuda::choice_weights(verb("choice_weights"), choice, gate, depths, gate_intermediate, additive, scale, keep,
                         scores);
  }
  void expert_step(ExpertStep<T> const& step, In y, Rows cells, Rows depths, Out hidden, RealResults gate,
                   RealResults scores) {
    cuda::expert_step<Arch>(verb("expert_step"), step, y, cells, depths, hidden, gate, scores);
  }
  /// @}

  /// @name Tables
  /// @{
  /// The edits pass through the ring of page-locked memory that all uploads do: the host waits only where it is that
  /// ring ahead of the device. Not in work that is replayed.
  void apply_edits(std::span<TableEdit const> edits, ServingTables const& tables) {
    VerbContext const context = verb("apply_edits");
    Scratch const scope(context);  // the stream's order keeps the upload until it has been read
    cuda::apply_edits<Arch>(context, self().upload(edits), tables);
  }
  void start_recursion(ServingTables const& tables, TickRule const& rule, ServingRows const& rows) {
    cuda::start_recursion<Arch>(verb("start_recursion"), tables, rule, rows);
  }
  void finish_recursion(ServingTables const& tables, ServingRows const& rows, Reals scores,
                        ServingReport const& report) {
    cuda::finish_recursion<Arch>(verb("finish_recursion"), tables, rows, scores, report);
  }
  void collect_finished(ServingTables const& tables, TickRule const& rule, ServingReport const& report, ServingRows const& rows,
                        SampledRows const& sampled) {
    cuda::collect_finished<Arch>(verb("collect_finished"), tables, rule, report, rows, sampled);
  }
  void commit_samples(ServingTables const& tables, ServingRows const& rows, SampledRows const& sampled,
                      std::span<Token const> tokens, Reals log_probabilities, ServingReport const& report) {
    cuda::commit_samples<Arch>(verb("commit_samples"), tables, rows, sampled, tokens, log_probabilities, report);
  }
  void collect_entering(ServingTables const& tables, ServingRows const& rows, std::span<Token> tokens,
                        ServingReport const& report) {
    cuda::collect_entering<Arch>(verb("collect_entering"), tables, rows, tokens, report);
  }
  void finish_and_collect(ServingTables const& tables, TickRule const& rule, ServingRows const& rows, Reals scores,
                          ServingReport const& report, ServingRows const& finished, SampledRows const& sampled) {
    cuda::finish_and_collect<Arch>(verb("finish_and_collect"), tables, rule, rows, scores, report, finished, sampled);
  }
  void commit_and_collect(ServingTables const& tables, ServingRows const& finished, SampledRows const& sampled,
                          std::span<Token const> tokens, Reals log_probabilities, ServingReport const& report,
                          ServingRows const& entering, std::span<Token> entering_tokens) {
    cuda::commit_and_collect<Arch>(verb("commit_and_collect"), tables, finished, sampled, tokens, log_probabilities, report, entering,
                                   entering_tokens);
  }
  /// @}

 protected:
  [[nodiscard]] FewRowsChoice const& few_rows() const { return few_; }

 private:
  [[nodiscard]] Self& self() { return static_cast<Self&>(*this); }
  [[nodiscard]] VerbContext verb(char const* name) { return {self().context(), name}; }

  FewRowsChoice few_;
};

}  // namespace mor::cuda
