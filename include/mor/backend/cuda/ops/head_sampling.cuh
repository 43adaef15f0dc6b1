// SPDX-License-Identifier: Apache-2.0
/// @file
/// `HeadSampler`: norm, head and sampling of up to 64 rows in one launch (contract/serving.hpp). Hopper, bf16.
#pragma once

#include "mor/backend/cuda/kernels/head_sampling.cuh"
#include "mor/backend/cuda/ops/alignment.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/few_rows.cuh"
#include "mor/backend/cuda/ops/residency.cuh"
#include "mor/backend/cuda/ops/tensor_map.cuh"
#include "mor/backend/cuda/tuning/head_sampling.hpp"
#include "mor/contract/serving.hpp"
#include "mor/core/dtype.hpp"
#include "mor/core/error.hpp"
#include "mor/core/memory.hpp"
#include "mor/core/sampling.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace mor::cuda {

/// Floor: the weights once. @tparam Arch  Sm90
template <class Arch>
class HeadSampler {
  static_assert(Arch::capability >= 90);
  using Sizes = tuning::HeadSampling;

 public:
  /// For a head [vocabulary, columns].
  template <class B>
  HeadSampler(B& b, Index columns, Index vocabulary)
      : columns_(columns), vocabulary_(vocabulary), counter_(b.memory(), 1),
        plan_(columns, vocabulary, b.context().device->max_shared_bytes) {
    check(cudaMemsetAsync(counter_.data(), 0, counter_.span().size_bytes(), b.context().stream), "HeadSampler");
    if (!plan_.possible) return;
    for (std::size_t shift = 0; shift < clusters_.size(); ++shift) clusters_[shift] = clusters_at_once(shape(1 << shift), &head_sampling_kernel<Arch>);
  }

  /// Whether `run` takes so many rows of such weights.
  [[nodiscard]] bool takes(Index rows, std::span<bfloat16 const> norm_weights, View<bfloat16 const> weights) const {
    bool const aligned = is_copy_aligned(weights) && reinterpret_cast<std::uintptr_t>(norm_weights.data()) % 16 == 0;
    return plan_.possible && aligned && rows > 0 && rows <= Sizes::most_rows && blocks_of_row(rows) > 0;
  }

  /// `takes` is true. See contract/serving.hpp.
  void run(Context const& context, TableRows<bfloat16 const> const& x, std::span<bfloat16 const> norm_weights, double eps, View<bfloat16 const> weights,
           std::span<Row const> count, std::span<SamplingRule const> rules, std::span<Token const> history, View<float> logits,
           std::span<Token> tokens, std::span<float> log_probabilities) const {
    require(takes(logits.rows, norm_weights, weights) && weights.rows == vocabulary_ && weights.cols == columns_ && x.table.cols == columns_,
            "the head does not take these operands", "HeadSampler::run");
    require(detail::every_row_in_packs(x.table), "rows of a head are not aligned to 16 bytes", "HeadSampler::run");
    int const blocks = blocks_of_row(logits.rows);
    HeadProductArguments head;
    head.weights = tensor_map(weights, weights.rows);
    head.x = x.table;
    head.sources = x.rows.data();
    head.rows = static_cast<int>(logits.rows);
    head.norm = norm_weights.data();
    head.eps = static_cast<float>(eps);
    head.by_columns = 1.0F / static_cast<float>(columns_);
    head.logits = logits;
    head.plan = plan_;
    SampleArguments const sampling{logits,
                                   rules.data(),
                                   history.data(),
                                   tokens.data(),
                                   log_probabilities.data(),
                                   count.data(),
                                   blocks,
                                   static_cast<int>(tuning::SamplePlan(vocabulary_, blocks).span),
                                   can_pack(View<float const>(logits))};
    launch(context, "head_sampling", shape(blocks), &head_sampling_kernel<Arch>, head, sampling, counter_.data());
  }

 private:
  [[nodiscard]] int clusters_of(int blocks) const { return clusters_[static_cast<std::size_t>(tuning::shift_of(blocks))]; }
  /// A launch of as many clusters of `blocks` as there is room for.
  [[nodiscard]] LaunchShape shape(int blocks) const {
    LaunchShape shape{dim3(static_cast<unsigned>(blocks * clusters_of(blocks))), Sizes::threads, plan_.shared_bytes, blocks};
    shape.overlaps = shape.cooperative = true;
    return shape;
  }
  /// As many as leave a cluster for each row; 0 where a row does not fit them.
  [[nodiscard]] int blocks_of_row(Index rows) const {
    for (int blocks = tuning::kSampleMostBlocks; blocks > 0; blocks /= 2) {
      if (clusters_of(blocks) < rows) continue;
      return 4 * tuning::SamplePlan(vocabulary_, blocks).part() <= plan_.room ? blocks : 0;
    }
    return 0;
  }

  Index columns_, vocabulary_;
  Buffer<unsigned> counter_;
  tuning::HeadSamplingPlan plan_;
  std::array<int, 4> clusters_{};  ///< of 1, 2, 4 and 8 blocks, that run at the same time
};

}  // namespace mor::cuda
