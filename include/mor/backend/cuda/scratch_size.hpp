// SPDX-License-Identifier: Apache-2.0
/// @file
/// Arena bytes that a verb of the CUDA backend takes while it runs, from a traced operation: given as
/// `trace::Options::scratch_bytes`, the trace predicts the device's arena exactly. Plain C++: needs no CUDA.
#pragma once

#include "mor/backend/cuda/tuning/architecture.hpp"
#include "mor/backend/cuda/tuning/attention.hpp"
#include "mor/backend/cuda/tuning/attention_sm90.hpp"
#include "mor/backend/cuda/tuning/head.hpp"
#include "mor/backend/cuda/tuning/pointwise.hpp"
#include "mor/backend/cuda/tuning/routing.hpp"
#include "mor/backend/cuda/tuning/scratch.hpp"
#include "mor/core/dtype.hpp"
#include "mor/core/memory.hpp"
#include "mor/core/types.hpp"

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <type_traits>

namespace mor::cuda {

/// For `Backend<T, Arch>`; attention's scale is taken to be positive. An operation has a `name`, `shapes` with `rows`,
/// `cols` and `packed` in the order of the verb's arguments, `query_offsets` and `page_size`, as `trace::Operation` does. Trace
/// with `upload_uses_arena`.
template <class T, class Arch = Sm90>
class ScratchSize {
 public:
  template <class Operation>
  [[nodiscard]] Index operator()(Operation const& operation) const {
    using tuning::room;
    std::string_view const name = operation.name;
    auto const& s = operation.shapes;
    if (s.empty()) return 0;
    if (name == "select_top_k" || name == "select_at_least") return room<Row>(s[1].rows + 1);
    if (name == "count_at_least") return room<Row>(s[1].rows * s[2].rows);
    if (s[0].rows == 0 || s[0].cols == 0) return 0;
    if (name == "embed_backward") {
      bool const nothing = s[1].cols == 0;
      return nothing ? 0 : tuning::EmbedBackwardScratch<EmbedTiles>(s[0].rows, s[1].cols).bytes();
    }
    if (name == "rms_norm_backward") return room<float>(norm_plan(s).partial);
    if (name == "linear_logits_backward") {
      bool const nothing = s[1].cols == 0;
      return nothing ? 0 : room<float>(tuning::LogitsBackwardScratch(s[1].rows, s[1].cols, s[2].rows).partial);
    }
    if (name == "attention") return attention(operation);
    if (name == "attention_backward") return attention_backward(operation);
    if (name == "head_loss" || name == "head_loss_backward") {
      return room<T>(tuning::head_rows(s[0].rows, s[1].rows, sizeof(T)) * s[1].rows);
    }
    if (name == "sum" || name == "add_squares" || name == "add_loss") {
      return room<double>(tuning::sum_partials(s[0].rows));
    }
    if (name == "router_bce") return room<double>(2 * tuning::router_bce_parts<RouterTiles>(s[0].rows));
    if (name == "z_loss") return room<double>(tuning::z_loss_parts<RouterTiles>(s[0].rows));
    if (name == "balance_loss") {
      return room<double>(2 * s[0].cols * tuning::balance_parts<RouterTiles>(s[0].rows)) + room<float>(s[0].cols);
    }
    return 0;
  }

 private:
  static constexpr bool hopper = std::is_same_v<Arch, Sm90>;

  /// d_out, x, weights, rstd, d_x, d_weights.
  template <class Shapes>
  [[nodiscard]] static tuning::NormBackwardPlan norm_plan(Shapes const& s) {
    bool const packed = s[0].packed && s[1].packed && s[2].packed && s[4].packed;
    return {s[1].rows, s[1].cols, packed, 16 / static_cast<Index>(sizeof(T))};
  }

  /// Sizes of an attention: q, k, v, key list, out, lse and more.
  struct Heads {
    Index rows, heads, group, head_dim, max_limit;

    template <class Shapes>
    explicit Heads(Shapes const& s)
        : rows(s[0].rows),
          heads(s[5].cols),
          group(s[0].cols / s[1].cols),
          head_dim(s[0].cols / heads),
          max_limit(s[3].cols) {}
  };
  template <class Shapes>
  [[nodiscard]] static bool on_tensor_cores(Shapes const& s, Heads const& heads) {
    bool packed = true;
    for (std::size_t i = 0; i < s.size(); ++i) packed = packed && (i == 3 || i == 5 || s[i].packed);  // neither list nor lse
    return std::is_same_v<T, bfloat16> && tuning::attention_on_tensor_cores(heads.head_dim) && packed;
  }

  template <class Operation>
  [[nodiscard]] static Index attention(Operation const& operation) {
    Heads const heads(operation.shapes);
    if (operation.page_size > 0) {
      bool const decodes = hopper && tuning::attention_decodes(heads.head_dim, operation.page_size);
      if (decodes && on_tensor_cores(operation.shapes, heads)) return 0;
      return tuning::AttentionPagedScratch(heads.rows, heads.heads, heads.head_dim, heads.max_limit).bytes();
    }
    auto const& offsets = operation.query_offsets;
    Index most = 0;
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) most = std::max(most, Index{offsets[i + 1]} - offsets[i]);
    bool const lists = hopper && most >= tuning::kAttentionFewestRows && on_tensor_cores(operation.shapes, heads);
    if (!lists) return 0;
    Index const units = heads.head_dim == 64 ? tuning::AttentionSm90Forward<64>::warpgroups
                                             : tuning::AttentionSm90Forward<128>::warpgroups;
    tuning::QueryItemCount const count(offsets, heads.group, units);
    return mor::detail::aligned(count.items * tuning::kAttentionSm90ItemBytes);
  }

  template <class Operation>
  [[nodiscard]] static Index attention_backward(Operation const& operation) {
    Heads const heads(operation.shapes);
    if (!on_tensor_cores(operation.shapes, heads)) return tuning::room<float>(heads.rows * heads.heads);
    if constexpr (!hopper) {
      return mor::detail::aligned(heads.rows * heads.heads * tuning::kAttentionRowStatisticsBytes);
    }
    return heads.head_dim == 64 ? lists<64>(operation, heads) : lists<128>(operation, heads);
  }
  template <int HeadDim, class Operation>
  [[nodiscard]] static Index lists(Operation const& operation, Heads const& heads) {
    using Keys = tuning::AttentionSm90KeyGradient<HeadDim>;
    using Queries = tuning::AttentionSm90QueryGradient<HeadDim>;
    return tuning::AttentionSm90BackwardScratch(operation.query_offsets, heads.max_limit, heads.heads, heads.group,
                                                Queries::warpgroups, Index{Keys::warpgroups} * tuning::kAttentionSm90TileRows)
        .bytes();
  }
};

}  // namespace mor::cuda
