// SPDX-License-Identifier: Apache-2.0
/// @file
/// How the layers of a stack are cut among the blocks of one launch that runs them all. Plain C++.
///
/// There is a block on every multiprocessor, and two make a pair. The tiles of a product, 16 rows of its weights each, are
/// dealt to the pairs in turn, from a pair of the product's own on, and in every layer alike. Each block of a pair has one
/// half of the columns of the pair's tiles, and so needs only that half of the rows; a warp multiplies its part of the half.
/// Halves and parts are the shape's alone, so a row has the same bits however many rows there are.
#pragma once

#include "mor/core/types.hpp"

#include <algorithm>
#include <array>
#include <vector>

namespace mor::cuda::tuning {

struct Stack {
  static constexpr int tile = 16, chunk = 32;  ///< weights that a warp multiplies at once
  static constexpr int pair = 2;               ///< blocks of a cluster
  static constexpr int warps = 8;              ///< that compute, two warpgroups
  /// Of a third one, the warp that brings the weights, the one that keeps fences, and those that bring the first layer's input.
  static constexpr int fetch_warp = warps, fence_warp = warps + 1, first_start_warp = warps + 2, start_warps = 2;
  static constexpr int threads = 32 * (first_start_warp + start_warps);
  static constexpr int registers = 232, fetch_registers = 40;  ///< of a thread that computes; of the third warpgroup's
  static constexpr int warp_chunks = 2;             ///< of a slab, at most, a warp
  static constexpr int slab_chunks = warps * warp_chunks;  ///< columns of half a tile that lie in one stage of the ring
  /// An odd number of half lines: a warp's reads of neighbouring rows meet no bank twice.
  static constexpr int pitch = 2 * chunk * (slab_chunks | 1);
  static constexpr int stage_bytes = tile * pitch;
  static constexpr int most_stages = 12, least_stages = 4;
  static constexpr int fragment_bytes = 512;  ///< 16 by 8 sums
  static constexpr int row_tiles = 8;  ///< of 8 rows, at most
  static constexpr int most_rows = 8 * row_tiles;
  static constexpr int finished_rows = most_rows / pair;  ///< of those, by each block of a pair
  static constexpr int mail_slots = 4, mail_bytes = 512;  ///< letters of a warp on their way to the other block (stack_mail.cuh)
  static constexpr unsigned pause = 40;  ///< ns between two looks at what is not there yet
  /// So many layers are a launch that is over soon. It leaves two multiprocessors to the kernel before it, that of the rows'
  /// lists, so that its weights need not wait for that one's end.
  static constexpr int few_layers = 2;
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
  int tile, tiles, begin, chunks;          ///< the pair's first tile; the block's columns
  int source, stride, result, width;       ///< where rows come from and results go to, and the elements of a row
};

/// Which columns, in chunks.
struct StackSlab {
  int begin, count;
};
/// The s-th slab of `chunks` chunks: `Stack::slab_chunks`, the last one what is left.
[[nodiscard]] MOR_HOST_DEVICE constexpr StackSlab stack_slab(int chunks, int s) {
  int const begin = s * Stack::slab_chunks, left = chunks - begin;
  return {begin, left < Stack::slab_chunks ? left : Stack::slab_chunks};
}

/// One of a layer's four products.
struct StackProduct {
  int tiles = 0, chunks = 0;
  int first_pair = 0;  ///< has the first tile

  /// The first tile of a pair; the next are `pairs` further each.
  [[nodiscard]] MOR_HOST_DEVICE constexpr int first_tile(int pair, int pairs) const {
    int const tile = pair - first_pair;
    return tile < 0 ? tile + pairs : tile;
  }
  [[nodiscard]] constexpr int tiles_of(int pair, int pairs) const { return (tiles - first_tile(pair, pairs) + pairs - 1) / pairs; }
  /// The half of the columns that the pair's first or second block has.
  [[nodiscard]] MOR_HOST_DEVICE constexpr StackSlab half(int side) const {
    int const first = (chunks + 1) / 2;
    return side == 0 ? StackSlab{0, first} : StackSlab{first, chunks - first};
  }
};

struct StackPlan {
  enum Product : int { Project, Output, GateUp, Down, Products };

  StackShape shape;
  std::array<StackProduct, Products> products{};
  int blocks = 0, pairs = 0;
  int first_unit_block = 0;  ///< has the first unit of attention
  std::array<int, StackBuffers::Buffers> widths{}, offsets{};  ///< of the buffers in a slot, elements
  int slot_elements = 0;
  int stages = 0;
  int sums_at = 0, sums_bytes = 0;  ///< two rooms
  int unit_bytes = 0, joined_units = 0;  ///< of a unit of attention in such a room; units that have room there
  int squares_at = 0, turns_at = 0, rows_at = 0, firsts_at = 0, start_at = 0, barriers_at = 0, recipes_at = 0, layers_at = 0;
  int mail_at = 0, ring_at = 0;
  Index shared_bytes = 0;
  bool possible = false;

  /// Elements of a half of the memory for exchange: the slots, then a count for each layer, two elements each.
  [[nodiscard]] MOR_HOST_DEVICE constexpr Index half_elements() const {
    return Index{Stack::slots} * slot_elements + 2 * Stack::most_layers;
  }

  constexpr StackPlan() = default;
  constexpr StackPlan(StackShape const& sizes, int multiprocessors, Index block_bytes)
      : shape(sizes), blocks(multiprocessors / Stack::pair * Stack::pair), pairs(blocks / Stack::pair) {
    if (!fits()) return;
    cut(Project, shape.projected() / Stack::tile, shape.hidden);
    cut(Output, shape.hidden / Stack::tile, shape.queries);
    cut(GateUp, shape.inner / (Stack::tile / 2), shape.hidden);
    cut(Down, shape.hidden / Stack::tile, shape.inner);
    for (StackProduct const& product : products) {
      // Rows are read again for each slab of each tile, and only the last product may have several.
      bool const last = &product == &products[Down], one_slab = product.half(0).count <= Stack::slab_chunks;
      if (!one_slab && (!last || product.tiles > 2 * pairs)) return;
    }
    if (products[Project].tiles > Stack::most_turned_tiles * pairs) return;
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
    // Each block of a pair has at least one chunk of every product.
    constexpr int least = Stack::pair * Stack::chunk;
    return heads && s.hidden >= least && s.inner >= least && s.hidden % Stack::chunk == 0 && s.inner % Stack::chunk == 0 && blocks > 0;
  }
  constexpr void cut(Product which, int tiles, int cols) {
    products[static_cast<std::size_t>(which)] = {tiles, cols / Stack::chunk, 0};
  }

  /// Chooses each product's first pair so that pairs get about the same number of weights, those with the most work for a
  /// pair first.
  constexpr void deal() {
    std::vector<Index> load(static_cast<std::size_t>(pairs), 0);
    for (Product const which : {Down, GateUp, Project, Output}) {
      auto& product = products[static_cast<std::size_t>(which)];
      Index best = -1;
      int chosen = 0;
      for (int first = 0; first < pairs; ++first) {
        product.first_pair = first;
        Index squares = 0;
        for (int pair = 0; pair < pairs; ++pair) {
          Index const sum = load[static_cast<std::size_t>(pair)] + Index{product.tiles_of(pair, pairs)} * product.chunks;
          squares += sum * sum;
        }
        if (best >= 0 && squares >= best) continue;
        best = squares;
        chosen = first;
      }
      product.first_pair = chosen;
      for (int pair = 0; pair < pairs; ++pair) {
        load[static_cast<std::size_t>(pair)] += Index{product.tiles_of(pair, pairs)} * product.chunks;
      }
    }
    auto const& project = products[Project];
    first_unit_block = Stack::pair * ((project.first_pair + project.tiles) % pairs);
  }

  constexpr bool lay_out(Index block_bytes) {
    int const product = Stack::warps * Stack::row_tiles * Stack::fragment_bytes;
    unit_bytes = Stack::warps * shape.group() * (shape.head_dim + 2) * 4;
    sums_bytes = (std::max(product, unit_bytes) + 127) / 128 * 128;
    joined_units = sums_bytes / unit_bytes;
    constexpr int rows = Stack::most_rows;
    Index at = 0;
    auto const take = [&](Index bytes) {
      Index const from = at;
      at += (bytes + 15) / 16 * 16;
      return static_cast<int>(from);
    };
    barriers_at = take((2 * Stack::most_stages + Stack::warps * Stack::mail_slots) * 8);
    recipes_at = take(Index{Products} * Index{sizeof(StackRecipe)});
    layers_at = take(Index{Stack::most_layers} * Stack::layer_bytes);
    squares_at = take(Index{Stack::warps} * rows * 4);
    turns_at = take(Index{(products[Project].tiles + pairs - 1) / pairs} * Stack::finished_rows * 8 * 8);
    rows_at = take(Index{4} * rows * 4);
    firsts_at = take(Index{Stack::kept_units} * Stack::warps * 4);
    start_at = take(8);
    at = (at + 127) / 128 * 128;
    mail_at = take(Index{Stack::warps} * Stack::mail_slots * Stack::mail_bytes);
    sums_at = take(2 * sums_bytes);
    ring_at = static_cast<int>(at);
    Index const room = (block_bytes - at) / Stack::stage_bytes;
    stages = static_cast<int>(std::min<Index>(room, Stack::most_stages));
    shared_bytes = at + Index{stages} * Stack::stage_bytes;
    return stages >= Stack::least_stages;
  }
};

}  // namespace mor::cuda::tuning
