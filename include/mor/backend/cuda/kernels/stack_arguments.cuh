// SPDX-License-Identifier: Apache-2.0
/// @file
/// What one launch that runs a stack of layers is given.
#pragma once

#include "mor/backend/cuda/kernels/elementwise.cuh"
#include "mor/backend/cuda/kernels/few_rows_problem.cuh"
#include "mor/backend/cuda/kernels/key_place.cuh"
#include "mor/backend/cuda/tuning/stack.hpp"
#include "mor/core/dtype.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <cstdint>

namespace mor::cuda {

/// Weights of the products of one layer.
struct StackLayer {
  bfloat16 const* weights[tuning::StackPlan::Products];  ///< in the order of `StackPlan::Product`

  void note_to(auto& log) const { log.note(weights); }
};
/// Weights of its norms, and the storage of its keys and values.
struct alignas(16) StackLayerVectors {
  bfloat16 const* norms[2];  ///< before the attention, before the MLP
  bfloat16* planes[2];       ///< keys, values

  void note_to(auto& log) const { log.note(norms, planes); }
};
static_assert(sizeof(StackLayerVectors) == tuning::Stack::layer_bytes);

/// Row i sees the first limits[i] keys of the page list that begins at begins[i].
struct StackKeys {
  Row const* begins;
  Row const* limits;

  void note_to(auto& log) const { log.note(begins, limits); }
};

struct StackArguments {
  tuning::StackPlan plan;
  int rows = 0, layers = 0;
  Row const* count = nullptr;  ///< rows from *count on are left alone
  std::uint32_t zero = 0;  ///< 0, which the compiler does not know
  float eps = 0.0F, by_hidden = 1.0F;  ///< of the norms: added to the mean square; 1 / hidden size
  float scale = 1.0F;  ///< of scores in powers of two
  /// No row sees a key that another row of the launch writes: a row's own new key comes with its query, and the others can
  /// be read before that.
  bool rows_apart = false;
  View<bfloat16 const> x;
  Row const* sources = nullptr;  ///< row i of the launch is row sources[i] of x; null: row i
  View<bfloat16> out;
  View<bfloat16> kept;           ///< where it has data, row targets[i] also gets the results of row i
  Row const* targets = nullptr;
  Row const* positions = nullptr;
  FewRowsAngles angles{};
  StackKeys read{}, write{};
  KeyPages table{};
  Divider by_page{1}, by_kv_heads{1}, by_head_tiles{1};
  int plane_stride = 0;
  int weights_stride[tuning::StackPlan::Products] = {};
  bfloat16* exchange = nullptr;  ///< two halves
  Row* turns = nullptr;          ///< [all_blocks]: the half to use, and twice the rows that the last launch left in the other
  int all_blocks = 0;            ///< of the largest launch
  StackLayer layer[tuning::Stack::most_layers] = {};
  StackLayerVectors vectors[tuning::Stack::most_layers] = {};

  void note_to(auto& log) const {
    log.note(rows, layers, count, eps, by_hidden, scale, rows_apart, x, sources, out, kept, targets, positions, angles.powers, read, write,
             table, plane_stride, weights_stride, exchange, turns, all_blocks, layer, vectors);
  }
};
static_assert(sizeof(StackArguments) <= 4096, "what a kernel may be given on every driver");

}  // namespace mor::cuda
