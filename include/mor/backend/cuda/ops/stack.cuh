// SPDX-License-Identifier: Apache-2.0
/// @file
/// `LayerStack`: consecutive decoder layers on up to 64 rows in one launch (contract/serving.hpp). Hopper, bf16.
#pragma once

#include "mor/backend/cuda/kernels/stack.cuh"
#include "mor/backend/cuda/ops/alignment.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/few_rows.cuh"
#include "mor/backend/cuda/ops/residency.cuh"
#include "mor/backend/cuda/tuning/stack.hpp"
#include "mor/contract/serving.hpp"
#include "mor/core/active_set.hpp"
#include "mor/core/dtype.hpp"
#include "mor/core/error.hpp"
#include "mor/core/memory.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace mor::cuda {

/// Floor: the weights once, and the keys that the rows see. @tparam Arch  Sm90
template <class Arch>
class LayerStack {
  static_assert(Arch::capability >= 90);
  using Layer = StackedLayer<bfloat16>;
  using Rows = StackRows<bfloat16>;

 public:
  template <class B>
  LayerStack(B& b, LayerSizes const& sizes)
      : sizes_(sizes), device_(b.context().device), exchange_(b.memory(), 0), turns_(b.memory(), device_->multiprocessors) {
    auto const narrow = [](Index value) { return static_cast<int>(value); };
    auto const& attention = sizes.attention;
    tuning::StackShape const shape{
        narrow(sizes.hidden_size), narrow(attention.num_heads * attention.head_dim), narrow(attention.num_kv_heads * attention.head_dim),
        narrow(sizes.intermediate_size), narrow(attention.head_dim), narrow(attention.num_heads), narrow(attention.num_kv_heads)};
    plan_ = {shape, device_->multiprocessors, device_->max_shared_bytes};
    if (!plan_.possible) return;
    int const together = tuning::Stack::pair * clusters_at_once(launch_shape(plan_), kernel(tuning::Stack::most_rows));
    if (together < plan_.blocks) plan_ = {shape, together, device_->max_shared_bytes};
    if (!plan_.possible) return;
    short_plan_ = {shape, std::min(plan_.blocks, device_->multiprocessors - tuning::Stack::pair), device_->max_shared_bytes};
    if (!short_plan_.possible) short_plan_ = plan_;
    exchange_ = Buffer<bfloat16>(b.memory(), 2 * plan_.half_elements());
    auto const set = [&](auto const& buffer, int byte) {
      check(cudaMemsetAsync(buffer.data(), byte, buffer.span().size_bytes(), b.context().stream), "LayerStack", buffer.size());
    };
    set(turns_, 0);
    set(exchange_, 0xff);  // nothing is there
    angles_ = FewRowsAngles::of(sizes.rope_theta, attention.head_dim);
  }

  /// Whether `run` takes so many rows with lists of so many keys at most, in pages of so many tokens.
  [[nodiscard]] bool takes(Index rows, Index longest, Index page_size) const {
    return plan_.possible && rows > 0 && rows <= tuning::Stack::most_rows && longest <= tuning::Stack::most_keys && page_size > 0 &&
           page_size % tuning::Stack::step_keys == 0;
  }
  /// Whether `run` takes such a layer: of the stack's sizes, with rows that 16-byte copies can bring.
  [[nodiscard]] bool takes(Layer const& layer) const { return has_sizes(layer) && is_aligned(layer); }

  /// The layers one after the other; `takes` is true of all. See contract/serving.hpp.
  void run(Context const& context, std::span<Layer const> layers, Rows rows, KeyList const& read, KeyList const& write) const {
    require(!layers.empty(), "a stack of no layers", "LayerStack::run");
    // The kernel finds the places of both lists in one table.
    require(read.pages.data() == write.pages.data() && read.page_size == write.page_size, "rows see keys in other pages than they write to",
            "LayerStack::run");
    auto const most = static_cast<std::size_t>(tuning::Stack::most_layers);
    auto const kept = std::exchange(rows.kept, {});
    for (; layers.size() > most; layers = layers.subspan(most)) {
      launch_some(context, layers.first(most), rows, read, write);
      rows.x = {rows.out};
    }
    rows.kept = kept;
    launch_some(context, layers, rows, read, write);
  }

 private:
  using Kernel = void (*)(StackArguments);

  [[nodiscard]] bool has_sizes(Layer const& layer) const {
    Index const hidden = sizes_.hidden_size, inner = sizes_.intermediate_size, queries = plan_.shape.queries, keys = plan_.shape.keys;
    auto const is = [](auto const& x, Index rows, Index cols) { return x.rows == rows && x.cols == cols; };
    return is(layer.qkv, queries + 2 * keys, hidden) && is(layer.o, hidden, queries) && is(layer.gate_up, 2 * inner, hidden) &&
           is(layer.down, hidden, inner) && layer.plane_k.cols == keys && layer.plane_v.cols == keys &&
           static_cast<Index>(layer.input_norm.size()) == hidden && static_cast<Index>(layer.post_attention_norm.size()) == hidden;
  }
  [[nodiscard]] static bool is_aligned(Layer const& layer) {
    auto const vector = [](std::span<bfloat16 const> x) { return reinterpret_cast<std::uintptr_t>(x.data()) % 16 == 0; };
    auto const rows = [](View<bfloat16 const> x) { return detail::every_row_in_packs(x); };
    return rows(layer.qkv) && rows(layer.o) && rows(layer.gate_up) && rows(layer.down) && rows(layer.plane_k) && rows(layer.plane_v) &&
           vector(layer.input_norm) && vector(layer.post_attention_norm);
  }
  template <int HeadDim>
  [[nodiscard]] static Kernel kernel_of(Index rows) {
    if (rows <= 16) return &stack_kernel<HeadDim, 2>;
    if (rows <= 32) return &stack_kernel<HeadDim, 4>;
    if (rows <= 48) return &stack_kernel<HeadDim, 6>;
    return &stack_kernel<HeadDim, tuning::Stack::row_tiles>;
  }

  [[nodiscard]] Kernel kernel(Index rows) const { return sizes_.attention.head_dim == 64 ? kernel_of<64>(rows) : kernel_of<128>(rows); }
  [[nodiscard]] static LaunchShape launch_shape(tuning::StackPlan const& plan) {
    LaunchShape shape{dim3(static_cast<unsigned>(plan.blocks)), tuning::Stack::threads, plan.shared_bytes, tuning::Stack::pair};
    shape.overlaps = shape.cooperative = true;
    return shape;
  }

  void launch_some(Context const& context, std::span<Layer const> layers, Rows const& rows, KeyList const& read, KeyList const& write) const {
    Index const count = rows.out.rows;
    require(takes(count, read.max_limit, read.page_size), "the stack does not take these rows", "LayerStack::run");
    require(detail::every_row_in_packs(rows.x.table), "rows of a stack are not aligned to 16 bytes", "LayerStack::run");
    Index const hidden = sizes_.hidden_size;
    if (rows.x.table.cols != hidden || rows.out.cols != hidden || (rows.kept.table.data != nullptr && rows.kept.table.cols != hidden)) {
      fail(ErrorCode::ShapeMismatch, "rows of a stack are of another size than its layers'", "LayerStack::run", text_of(hidden) + " columns",
           text_of(rows.x.table.cols) + " in, " + text_of(rows.out.cols) + " out");
    }
    StackArguments arguments;
    arguments.plan = layers.size() > static_cast<std::size_t>(tuning::Stack::few_layers) ? plan_ : short_plan_;
    arguments.rows = static_cast<int>(count);
    arguments.count = rows.count.data();
    arguments.layers = static_cast<int>(layers.size());
    arguments.eps = static_cast<float>(sizes_.rms_norm_eps);
    arguments.by_hidden = 1.0F / static_cast<float>(sizes_.hidden_size);
    arguments.scale = static_cast<float>(sizes_.attention.scale) * kLog2E;
    arguments.rows_apart = rows.rows_apart;
    arguments.x = rows.x.table;
    arguments.sources = rows.x.rows.data();
    arguments.out = rows.out;
    arguments.kept = rows.kept.table;
    arguments.targets = rows.kept.rows.data();
    arguments.positions = rows.positions.data();
    arguments.angles = angles_;
    arguments.read = {read.key_begin.data(), read.limits.data()};
    arguments.write = {write.key_begin.data(), write.limits.data()};
    arguments.table = {read.pages.data(), static_cast<int>(read.page_size)};
    arguments.by_page = Divider(read.page_size);
    arguments.by_kv_heads = Divider(sizes_.attention.num_kv_heads);
    arguments.by_head_tiles = Divider(sizes_.attention.head_dim / tuning::Stack::tile);
    arguments.exchange = exchange_.data();
    arguments.turns = turns_.data();
    arguments.all_blocks = plan_.blocks;
    set_layers(arguments, layers);
    launch(context, "layer_stack", launch_shape(arguments.plan), kernel(count), arguments);
  }

  void set_layers(StackArguments& arguments, std::span<Layer const> layers) const {
    auto const common = [](Index stride, Index& all) {
      require(all == 0 || all == stride, "the weights of a stack's layers lie at different strides", "LayerStack::run");
      all = stride;
    };
    Index strides[tuning::StackPlan::Products] = {}, plane_stride = 0;
    for (std::size_t l = 0; l < layers.size(); ++l) {
      Layer const& layer = layers[l];
      auto& to = arguments.layer[l];
      require(has_sizes(layer), "a layer is of other sizes than the stack", "LayerStack::run");
      require(is_aligned(layer), "the weights or keys of a stack are not aligned to 16 bytes", "LayerStack::run");
      View<bfloat16 const> const weights[] = {layer.qkv, layer.o, layer.gate_up, layer.down};
      for (int w = 0; w < tuning::StackPlan::Products; ++w) {
        common(weights[w].stride, strides[w]);
        to.weights[w] = weights[w].data;
      }
      common(layer.plane_k.stride, plane_stride);
      common(layer.plane_v.stride, plane_stride);
      arguments.vectors[l] = {{layer.input_norm.data(), layer.post_attention_norm.data()}, {layer.plane_k.data, layer.plane_v.data}};
    }
    for (int w = 0; w < tuning::StackPlan::Products; ++w) arguments.weights_stride[w] = static_cast<int>(strides[w]);
    arguments.plane_stride = static_cast<int>(plane_stride);
  }

  LayerSizes sizes_;
  DeviceFacts const* device_;
  tuning::StackPlan plan_, short_plan_;  ///< of a launch, and of one of few layers
  FewRowsAngles angles_{};
  Buffer<bfloat16> exchange_;
  Buffer<Row> turns_;
};

}  // namespace mor::cuda
