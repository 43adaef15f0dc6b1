// SPDX-License-Identifier: Apache-2.0
// How the layers of a stack are cut among the blocks of a launch: a plan is plain C++, and holds without a device.
#include "support/catch.hpp"

#include "mor/backend/cuda/tuning/stack.hpp"

#include <algorithm>
#include <vector>

using namespace mor;
using cuda::tuning::Stack;
using cuda::tuning::StackPlan;
using cuda::tuning::StackProduct;
using cuda::tuning::StackShape;

namespace {

constexpr Index block_bytes = 227 * 1024;  // of a block on Hopper
constexpr int multiprocessors = 132;

StackShape shape_of(int hidden, int inner, int heads, int kv_heads, int head_dim) {
  return {hidden, heads * head_dim, kv_heads * head_dim, inner, head_dim, heads, kv_heads};
}
StackShape const smollm_360m = shape_of(960, 2560, 15, 5, 64);

/// Those that GPU tests run, on the H100's multiprocessors, fewer and an odd number.
std::vector<StackPlan> plans() {
  std::vector<StackPlan> all;
  for (int const blocks : {132, 114, 78, 7}) {
    for (auto const& shape : {smollm_360m, shape_of(576, 1536, 9, 3, 64), shape_of(512, 1376, 4, 2, 128), shape_of(1024, 4096, 16, 4, 64),
                              shape_of(64, 96, 1, 1, 64)}) {
      all.emplace_back(shape, blocks, block_bytes);
    }
  }
  return all;
}

}  // namespace

TEST_CASE("every tile of a stack's product is one pair's, and each of its columns one block's") {
  for (StackPlan const& plan : plans()) {
    CAPTURE(plan.shape.hidden, plan.blocks, plan.possible);
    REQUIRE(plan.pairs == plan.blocks / 2);
    for (StackProduct const& product : plan.products) {
      std::vector<int> owners(static_cast<std::size_t>(product.tiles), 0);
      for (int pair = 0; pair < plan.pairs; ++pair) {
        int count = 0;
        for (int tile = product.first_tile(pair, plan.pairs); tile < product.tiles; tile += plan.pairs, ++count) {
          ++owners[static_cast<std::size_t>(tile)];
        }
        REQUIRE(count == product.tiles_of(pair, plan.pairs));
      }
      REQUIRE(std::all_of(owners.begin(), owners.end(), [](int owner) { return owner == 1; }));
      auto const first = product.half(0), second = product.half(1);
      REQUIRE((first.begin == 0 && second.begin == first.count && second.begin + second.count == product.chunks));
      REQUIRE((second.count > 0 && first.count - second.count <= 1));
      int columns = 0;
      for (int s = 0; columns < first.count; ++s) {
        auto const slab = cuda::tuning::stack_slab(first.count, s);
        REQUIRE((slab.begin == columns && slab.count > 0 && slab.count <= Stack::slab_chunks));
        columns += slab.count;
      }
      REQUIRE(columns == first.count);
    }
  }
}

TEST_CASE("pairs of a stack have about the same number of weights") {
  StackPlan const plan(smollm_360m, multiprocessors, block_bytes);
  REQUIRE(plan.possible);
  Index most = 0, all = 0;
  for (int pair = 0; pair < plan.pairs; ++pair) {
    Index load = 0;
    for (StackProduct const& product : plan.products) load += Index{product.tiles_of(pair, plan.pairs)} * product.chunks;
    most = std::max(most, load);
    all += load;
  }
  REQUIRE(static_cast<double>(most * plan.pairs) <= 1.1 * static_cast<double>(all));
}

TEST_CASE("a stack's plan keeps within a block's memory, and its parts within their places") {
  for (StackPlan const& plan : plans()) {
    CAPTURE(plan.shape.hidden, plan.blocks);
    if (!plan.possible) continue;
    REQUIRE(plan.shared_bytes <= block_bytes);
    REQUIRE(plan.stages >= Stack::least_stages);
    REQUIRE(plan.ring_at % 128 == 0);
    std::vector<int> const order{plan.barriers_at, plan.recipes_at, plan.layers_at, plan.squares_at, plan.turns_at,
                                 plan.rows_at,     plan.firsts_at,  plan.mail_at,   plan.sums_at,    plan.ring_at};
    REQUIRE(std::is_sorted(order.begin(), order.end()));
    REQUIRE(plan.sums_bytes >= Stack::warps * Stack::row_tiles * Stack::fragment_bytes);
    REQUIRE((plan.joined_units >= 1 && plan.joined_units * plan.unit_bytes <= plan.sums_bytes));
    REQUIRE((plan.first_unit_block >= 0 && plan.first_unit_block < plan.blocks && plan.first_unit_block % 2 == 0));
  }
}

TEST_CASE("a stack's plan says what it cannot do") {
  auto const possible = [](StackShape const& shape, int blocks, Index bytes) { return StackPlan(shape, blocks, bytes).possible; };
  REQUIRE(possible(smollm_360m, multiprocessors, block_bytes));
  REQUIRE(possible(smollm_360m, multiprocessors - 1, block_bytes));  // one is left over
  REQUIRE_FALSE(possible(smollm_360m, 1, block_bytes));
  REQUIRE_FALSE(possible(smollm_360m, multiprocessors, 128 * 1024));
  REQUIRE_FALSE(possible(shape_of(1088, 2560, 17, 17, 64), multiprocessors, block_bytes));  // rows do not fit registers
  REQUIRE_FALSE(possible(shape_of(960, 2560, 30, 10, 32), multiprocessors, block_bytes));   // heads of 32
  REQUIRE_FALSE(possible(shape_of(960, 2576, 15, 5, 64), multiprocessors, block_bytes));    // not whole chunks
  REQUIRE_FALSE(possible(shape_of(32, 96, 1, 1, 64), multiprocessors, block_bytes));        // no half for each block
}
