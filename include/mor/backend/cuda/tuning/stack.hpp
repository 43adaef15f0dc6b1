// SPDX-License-Identifier: Apache-2.0
/// @file
/// How the layers of a stack are cut among the blocks of one launch that runs them all. Plain C++.
///
/// There is a block on every multiprocessor. The tiles of a product, 16 rows of its weights each, are dealt to the blocks in
/// turn, from a block of the product's own on, and in every layer alike. A warp multiplies its part of a tile's columns; the
/// parts are the shape's alone, so a row has the same bits however many rows there are.
#pragma once

#include "mor/core/types.hpp"

#include <algorithm>
#include <array>
#include <vector>

namespace mor::cuda::tuning {

struct Stack {
  static constexpr int tile = 16, chunk = 32;  ///< weights that a warp multiplies at once
  static constexpr int warps = 10;             ///< that compute; one more brings the weights
  static constexpr int threads = 32 * (warps + 1);
  static constexpr int warp_chunks = 3;             ///< of a slab, at most, a warp
  static constexpr int slab_chunks = warps * warp_chunks;  ///< columns of a tile that lie in one stage of the ring
  /// An odd number of half lines: a warp's reads of neighbouring rows meet no bank twice.
  static constexpr int pitch = 2 * chunk * (slab_chunks | 1);
  static constexpr int stage_bytes = tile * pitch;
  static constexpr int most_stages = 8, least_stages = 3;
  static constexpr int fragment_bytes = 512;  ///< 16 by 8 sums
  static constexpr int few_row_tiles = 1, row_tiles = 4;  ///< of 8 rows: with more, kernels for one step each are faster
  static constexpr int most_rows = 8 * row_tiles;
  static constexpr unsigned pause = 40;  ///< ns between two looks at what is not there yet
  static constexpr int most_layers = 40;      ///< of a launch: their addresses are its arguments
  static constexpr int layer_bytes = 32;      ///< of the addresses that blocks keep in shared memory for each of them
  static constexpr int most_turned_tiles = 4;  ///< tiles of queries, keys and values that a block has
  static constexpr int most_group = 8;         ///< heads that share a key head
  static constexpr int step_keys = 16;         ///< keys that a warp looks at at once
  static constexpr int kept_units = 4;         ///< attention units of a block whose first keys' places are kept
  static constexpr int slots = 3;              ///< layers whose results are kept at a time
  /// Keys of a list beyond which attention is a kernel of its own, which cuts a list among several blocks.
  static constexpr Index most_keys = 1024;
};

/// Results of a layer that blocks exchange, [most_rows, columns] each.
struct StackBuffers {
  enum Buffer : int { Input, Projected, Attended, Middle, Activated, Buffers };
};

/// The sizes of a layer; all are numbers of elements.
struct StackShape {
  int hidden = 0, queries = 0, keys = 0, inner = 0;
  int head_dim = 0, heads = 0, kv_heads = 0;

  [[nodiscard]] MOR_HOST_DEVICE constexpr int projected() const { return queries + 2 * keys; }
  [[nodiscard]] MOR_HOST_DEVICE constexpr int group() const { return heads / kv_heads; }
  /// Columns of a buffer.
  [[nodiscard]] constexpr int width(int buffer) const {
    switch (buffer) {
      case StackBuffers::Projected: return projected();
      case StackBuffers::Attended: return queries;
      case StackBuffers::Activated: return inner;
      default: return hidden;
    }
  }
};

/// What a block needs to know of a product, in shared memory; places are elements of a slot.
struct alignas(16) StackRecipe {
  int tile, tiles, chunks, slabs;          ///< the block's first tile
  int source, stride, result, width;       ///< where rows come from and results go to, and the elements of a row
};

/// One of a layer's four products.
struct StackProduct {
  int tiles = 0, chunks = 0, slabs = 0;  ///< a slab is `Stack::slab_chunks` chunks, the last one what is left
  int first_block = 0;  ///< has the first tile

  [[nodiscard]] constexpr int tiles_of(int block, int blocks) const {
    int const rank = (block - first_block + blocks) % blocks;
    return (tiles - rank + blocks - 1) / blocks;
  }
};

struct StackPlan {
  enum Product : int { Project, Output, GateUp, Down, Products };

  StackShape shape;
  std::array<StackProduct, Products> products{};
  int blocks = 0;
  int first_unit_block = 0;  ///< has the first unit of attention
  std::array<int, StackBuffers::Buffers> widths{}, offsets{};  ///< of the buffers in a slot, elements
  int slot_elements = 0;
  int stages = 0;
  int sums_at = 0, sums_bytes = 0;  ///< two rooms
  int squares_at = 0, turns_at = 0, rows_at = 0, firsts_at = 0, barriers_at = 0, recipes_at = 0, layers_at = 0;
  Index shared_bytes = 0;
  bool possible = false;

  /// Elements of a half of the memory for exchange: the slots, then a count for each layer, two elements each.
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index half_elements() const {
    return Index{Stack::slots} * slot_elements + 2 * Stack::most_layers;
  }

  constexpr StackPlan() = default;
  constexpr StackPlan(StackShape const& sizes, int multiprocessors, Index block_bytes) : shape(sizes), blocks(multiprocessors) {
    if (!fits()) return;
    cut(Project, shape.projected() / Stack::tile, shape.hidden);
    cut(Output, shape.hidden / Stack::tile, shape.queries);
    cut(GateUp, shape.inner / (Stack::tile / 2), shape.hidden);
    cut(Down, shape.hidden / Stack::tile, shape.inner);
    for (StackProduct const& product : products) {
      // Rows are read again for each slab of each tile, and only the last product may have several.
      bool const last = &product == &products[Down];
      if (product.slabs > 1 && (!last || product.tiles > 2 * blocks)) return;
    }
    if (products[Project].tiles > Stack::most_turned_tiles * blocks) return;
    for (std::size_t buffer = 0; buffer < StackBuffers::Buffers; ++buffer) {
      widths[buffer] = shape.width(static_cast<int>(buffer));
      offsets[buffer] = slot_elements;
      slot_elements += widths[buffer] * Stack::most_rows;
    }
    deal();
    possible = lay_out(block_bytes);
  }

 private:
  [[nodiscard]] constexpr bool fits() const {
    auto const& s = shape;
    bool const heads = (s.head_dim == 64 || s.head_dim == 128) && s.kv_heads > 0 && s.heads % s.kv_heads == 0 &&
                       s.group() <= Stack::most_group && s.queries == s.heads * s.head_dim && s.keys == s.kv_heads * s.head_dim;
    return heads && s.hidden > 0 && s.inner > 0 && s.hidden % Stack::chunk == 0 && s.inner % Stack::chunk == 0 && blocks > 0;
  }
  constexpr void cut(Product which, int tiles, int cols) {
    int const chunks = cols / Stack::chunk;
    products[static_cast<std::size_t>(which)] = {tiles, chunks, (chunks + Stack::slab_chunks - 1) / Stack::slab_chunks, 0};
  }

  /// Chooses each product's first block so that blocks get about the same number of weights, those with the most work for a
  /// block first.
  constexpr void deal() {
    std::vector<Index> load(static_cast<std::size_t>(blocks), 0);
    for (Product const which : {Down, GateUp, Project, Output}) {
      auto& product = products[static_cast<std::size_t>(which)];
      Index best = -1;
      int chosen = 0;
      for (int first = 0; first < blocks; ++first) {
        product.first_block = first;
        Index squares = 0;
        for (int block = 0; block < blocks; ++block) {
          Index const sum = load[static_cast<std::size_t>(block)] + Index{product.tiles_of(block, blocks)} * product.chunks;
          squares += sum * sum;
        }
        if (best >= 0 && squares >= best) continue;
        best = squares;
        chosen = first;
      }
      product.first_block = chosen;
      for (int block = 0; block < blocks; ++block) {
        load[static_cast<std::size_t>(block)] += Index{product.tiles_of(block, blocks)} * product.chunks;
      }
    }
    auto const& project = products[Project];
    first_unit_block = (project.first_block + project.tiles) % blocks;
  }

  constexpr bool lay_out(Index block_bytes) {
    int const product = Stack::warps * Stack::row_tiles * Stack::fragment_bytes;
    int const attention = Stack::warps * shape.group() * (shape.head_dim + 2) * 4;
    sums_bytes = (std::max(product, attention) + 127) / 128 * 128;
    constexpr int rows = Stack::most_rows;
    Index at = 0;
    auto const take = [&](Index bytes) {
      Index const from = at;
      at += (bytes + 15) / 16 * 16;
      return static_cast<int>(from);
    };
    barriers_at = take(2 * Stack::most_stages * 8);
    recipes_at = take(Index{Products} * Index{sizeof(StackRecipe)});
    layers_at = take(Index{Stack::most_layers} * Stack::layer_bytes);
    squares_at = take(Index{Stack::warps} * rows * 4);
    turns_at = take(Index{(products[Project].tiles + blocks - 1) / blocks} * rows * 8 * 8);
    rows_at = take(Index{3} * rows * 4);
    firsts_at = take(Index{Stack::kept_units} * Stack::warps * 4);
    at = (at + 127) / 128 * 128;
    sums_at = take(2 * sums_bytes);
    Index const room = (block_bytes - at) / Stack::stage_bytes;
    stages = static_cast<int>(std::min<Index>(room, Stack::most_stages));
    shared_bytes = at + Index{stages} * Stack::stage_bytes;
    return stages >= Stack::least_stages;
  }
};

}  // namespace mor::cuda::tuning
