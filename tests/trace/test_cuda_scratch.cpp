// SPDX-License-Identifier: Apache-2.0
// The CUDA backend's scratch sizes, computed without CUDA, are what the documentation of its operations says.
#include "mor/backend/cuda/scratch_size.hpp"
#include "mor/backend/cuda/tuning/sampling.hpp"
#include "mor/backend/trace/backend.hpp"

#include "support/catch.hpp"

#include <algorithm>
#include <vector>

namespace trace = mor::trace;
namespace tuning = mor::cuda::tuning;
using mor::Index, mor::Row, mor::Token, mor::View;

namespace {

constexpr Index aligned(Index bytes) { return (bytes + 255) / 256 * 256; }

using Embed = mor::cuda::EmbedTiles;

// The formulas at sizes worked out by hand.
static_assert(tuning::EmbedBackwardScratch<Embed>(1, 8).bytes() == 1024 + 4 * 256 + 256);
static_assert(tuning::EmbedBackwardScratch<Embed>(1025, 960).blocks == 2);
static_assert(tuning::EmbedBackwardScratch<Embed>(Embed::chunk + 1, 960).partial == 2 * 2 * 960);
static_assert(tuning::sum_partials(4096) == 0 && tuning::sum_partials(4097) == 2);
static_assert(tuning::sum_partials(Index{1} << 30) == 1056);
static_assert(tuning::LogitsBackwardScratch(mor::cuda::LogitsTiles::backward_rows + 1, 10, 3).partial == 2 * 3 * 10);
static_assert(tuning::LogitsBackwardScratch(32768, 960, 1).partial == mor::cuda::LogitsTiles::backward_groups * 960);
static_assert(tuning::AttentionPagedScratch(4, 6, 64, tuning::AttentionPaged::part_keys).bytes() == 0);
static_assert(tuning::AttentionPagedScratch(4, 6, 64, tuning::AttentionPaged::part_keys + 1).bytes() == 4 * 48 * 64 + 512);
// Blocks that share a row's list: as many as fit, few or one in a large batch, some more where lists may be long.
static_assert(tuning::attention_decode_blocks(5, 64, 660) == 16 && tuning::attention_decode_blocks(5, 8, 660) == 8);
static_assert(tuning::attention_decode_blocks(160, 64, 660) == 4 && tuning::attention_decode_blocks(640, 16, 660) == 1);
static_assert(tuning::attention_decode_blocks(640, 17, 660) == 2 && tuning::attention_decode_blocks(9999, 5000, 660) == 4);
static_assert(tuning::attention_decode_blocks(1, 1, 660) == 1 && tuning::attention_decode_blocks(1, 0, 660) == 1);
static_assert(tuning::attention_decodes(64, 64) && tuning::attention_decodes(128, 16) && !tuning::attention_decodes(64, 16));
static_assert(tuning::NormBackwardPlan(32768, 960, true, 8).partial == 264 * 960);
static_assert(tuning::NormBackwardPlan(32768, 960, false, 8).partial == 528 * 960);
static_assert(tuning::NormBackwardPlan(9, 960, true, 8).partial == 2 * 960);
static_assert(tuning::NormBackwardPlan(9, 2048, true, 8).partial == 9 * 2048);
static_assert(tuning::router_bce_parts<mor::cuda::RouterTiles>(1025) == 2);
static_assert(tuning::z_loss_parts<mor::cuda::RouterTiles>(257) == 2);
static_assert(tuning::balance_parts<mor::cuda::RouterTiles>(1024) == 1);

/// A trace that says what scratch the CUDA backend takes.
template <class T, class Arch = mor::cuda::Sm90>
struct Trace {
  trace::Backend<T, float> backend{options()};

  static trace::Options options() {
    trace::Options result;
    result.upload_uses_arena = true;
    result.scratch_bytes = mor::cuda::ScratchSize<T, Arch>();
    return result;
  }
  View<T> matrix(Index rows, Index cols) { return backend.arena().template matrix<T>(rows, cols); }
  View<float> reals(Index rows, Index cols) { return backend.arena().template matrix<float>(rows, cols); }
  template <class U = float>
  std::span<U> vector(Index size) {
    return backend.arena().template allocate<U>(size);
  }
  [[nodiscard]] Index scratch() const { return backend.operations().back().scratch_bytes; }
};

/// Scratch of an attention and of its backward pass over sequences with these numbers of queries, each of which sees 150
/// keys at most; `padding` elements are between the rows of q.
struct AttentionScratch {
  Index forward = 0, backward = 0;
};
template <class T, class Arch>
AttentionScratch attention_scratch(std::vector<Row> const& lengths, mor::AttentionShape const& shape, Index padding = 0) {
  Trace<T, Arch> t;
  std::vector<Row> offsets{0};
  for (Row const length : lengths) offsets.push_back(offsets.back() + length);
  Index const rows = offsets.back(), queries = shape.num_heads * shape.head_dim, keys = shape.num_kv_heads * shape.head_dim;
  auto& b = t.backend;
  auto const sequences = static_cast<Index>(lengths.size());
  mor::KeyList const list{sequences, rows, 150, b.upload(offsets), offsets, t.template vector<Row>(sequences),
                          t.template vector<Row>(rows)};
  View<T> q = t.matrix(rows, queries + padding);
  q.cols = queries;
  View<T> const k = t.matrix(150, keys), out = t.matrix(rows, queries);
  View<float> const lse = t.reals(rows, shape.num_heads);
  AttentionScratch result;
  b.attention(q, k, k, list, shape, out, lse);
  result.forward = t.scratch();
  b.attention_backward(q, k, k, list, shape, out, lse, out, out, k, k);
  result.backward = t.scratch();
  return result;
}

}  // namespace

TEST_CASE("the Hopper attention kernels take their work lists, 32 bytes an item") {
  // Units of 64 queries of one head: sequences of 2 and 1 tiles, 3 heads a group, blocks of 3 units forward: 2 + 1 items.
  auto const narrow = attention_scratch<mor::bfloat16, mor::cuda::Sm90>({100, 64}, {6, 2, 64, 0.125});
  CHECK(narrow.forward == aligned(32 * 3));
  // Backward: the same items of queries, ceil(150 / 128) items of keys a sequence, a counter, two numbers a row and head.
  CHECK(narrow.backward == aligned(32 * 3) + aligned(32 * 2 * 2) + 256 + 2 * aligned(4 * 164 * 6));
  // Blocks of 2 units at head dimension 128: 3 + 2 items.
  auto const wide = attention_scratch<mor::bfloat16, mor::cuda::Sm90>({100, 64}, {6, 2, 128, 0.125});
  CHECK(wide.forward == aligned(32 * 5));
}

TEST_CASE("other attention kernels take a number or two for each row and head, backward alone") {
  mor::AttentionShape const shape{6, 2, 64, 0.125};
  auto const ampere = attention_scratch<mor::bfloat16, mor::cuda::Sm80>({100, 64}, shape);
  CHECK(ampere.forward == 0);
  CHECK(ampere.backward == aligned(8 * 164 * 6));
  auto const general = attention_scratch<float, mor::cuda::Sm90>({100, 64}, shape);
  CHECK(general.forward == 0);
  CHECK(general.backward == aligned(4 * 164 * 6));
  // Rows that 16-byte accesses do not reach.
  CHECK(attention_scratch<mor::bfloat16, mor::cuda::Sm90>({100, 64}, shape, 1).forward == 0);
  CHECK(attention_scratch<mor::bfloat16, mor::cuda::Sm90>({100, 64}, shape, 1).backward == aligned(4 * 164 * 6));
  // Long lists of keys in pages, in parts that are joined.
  Trace<mor::bfloat16> t;
  std::vector<Row> const offsets{0, 1, 2};
  auto const rows = t.vector<Row>(2);
  mor::KeyList const pages{2, 2, 2000, rows, offsets, rows, rows, 16, rows};
  View<mor::bfloat16> const q = t.matrix(2, 6 * 64), k = t.matrix(4096, 2 * 64);
  t.backend.attention(q, k, k, pages, shape, q, t.reals(2, 6));
  constexpr Index parts = tuning::attention_parts(2000);
  CHECK(t.scratch() == aligned(4 * 2 * 6 * parts * 64) + aligned(8 * 2 * 6 * parts));
  // Pages of whole slices: Hopper's decoding kernel joins the parts in shared memory.
  mor::KeyList whole = pages;
  whole.page_size = 64;
  t.backend.attention(q, k, k, whole, shape, q, t.reals(2, 6));
  CHECK(t.scratch() == 0);
  // Decoding: the forward pass has kernels of its own.
  CHECK(attention_scratch<mor::bfloat16, mor::cuda::Sm90>({7, 1}, shape).forward == 0);
}

TEST_CASE("selection takes its uploaded offsets, and counting its counts") {
  Trace<float> t;
  std::vector<Row> const offsets{0, 40, 100}, kept{0, 0, 0};
  auto& b = t.backend;
  mor::ActiveSet<float> set;
  set.num_rows = 100;
  set.num_sequences = 2;
  set.host_offsets = offsets;
  set.sequence_offsets = b.upload(offsets);
  auto const scores = t.vector(100);
  b.select_top_k(scores, set, kept, {});
  CHECK(t.scratch() == aligned(3 * 4));
  b.select_at_least(scores, 0.5, set, kept, {});
  CHECK(t.scratch() == aligned(3 * 4));
  std::vector<double> const thresholds(70, 0.0);
  std::vector<Row> counts(140);
  b.count_at_least(scores, set, thresholds, counts);
  CHECK(t.scratch() == aligned(140 * 4));
}

TEST_CASE("norms, logits, losses, sums and the embedding take their partial sums") {
  Trace<mor::bfloat16> t;
  auto& b = t.backend;
  auto const x = t.matrix(1000, 72);
  auto const weights = t.vector<mor::bfloat16>(72);
  b.rms_norm_backward(x, x, weights, t.vector(1000), x, t.vector(72));
  CHECK(t.scratch() == aligned(4 * 125 * 72));  // 8 rows a block
  b.rms_norm_backward(x, x, t.vector<mor::bfloat16>(73).subspan(1), t.vector(1000), x, t.vector(72));
  CHECK(t.scratch() == aligned(4 * 528 * 72));  // weights off a 16-byte boundary: a block a row, 528 at most
  b.linear_logits_backward(t.reals(1000, 3), x, t.matrix(3, 72), 1.0, {}, t.reals(3, 72));
  constexpr Index some = mor::cuda::LogitsTiles::backward_rows, most = mor::cuda::LogitsTiles::backward_groups;
  CHECK(t.scratch() == aligned(4 * std::min((1000 + some - 1) / some, most) * 3 * 72));
  b.router_bce(t.vector(3000), {}, 1.0, t.vector(2), {});
  CHECK(t.scratch() == aligned(8 * 2 * 3));
  b.z_loss(t.reals(1000, 3), 1.0, t.vector(1), {});
  CHECK(t.scratch() == aligned(8 * 4));
  b.balance_loss(t.reals(3000, 3), t.vector(3000), 1.0, t.vector(4), {});
  CHECK(t.scratch() == aligned(8 * 2 * 3 * 3) + 256);
  static_cast<void>(b.sum(t.vector(10000)));
  CHECK(t.scratch() == 256);
  static_cast<void>(b.sum(t.vector(100)));
  CHECK(t.scratch() == 0);
  constexpr Index chunks = (1000 + mor::cuda::EmbedTiles::chunk - 1) / mor::cuda::EmbedTiles::chunk;
  b.embed_backward(t.vector<Token>(1000), x, t.reals(50, 72));
  CHECK(t.scratch() == 1024 + 4 * aligned(4000) + aligned(4 * 2 * chunks * 72));
  b.head_loss(x, t.matrix(50, 72), t.vector<Token>(1000), t.vector(1000));
  CHECK(t.scratch() == aligned(2 * 1000 * 50));
  b.linear(x, t.matrix(80, 72), t.matrix(1000, 80));
  CHECK(t.scratch() == 0);
}

TEST_CASE("sampling takes no scratch: a row's blocks hold it in their shared memory") {
  Trace<float> t;
  t.backend.sample(t.reals(3, 100), t.vector<mor::SamplingRule>(3), {}, t.vector<Token>(3), t.vector(3));
  CHECK(t.scratch() == 0);
  constexpr Index shared = 227 * 1024;
  for (Index const rows : {1, 40, 1000}) {
    for (Index const vocabulary : {1, 511, 512, 513, 32000, 49152, 151936, 262208, 400000, 522240}) {
      for (bool const clusters : {false, true}) {
        CAPTURE(rows, vocabulary, clusters);
        tuning::SamplePlan const plan(rows, vocabulary, clusters, 132, shared);
        CHECK(plan.part() * plan.blocks >= vocabulary);
        CHECK(plan.span % 32 == 0);
        CHECK(plan.part() < tuning::kSampleMostPart);
        CHECK(plan.blocks <= (clusters ? tuning::kSampleMostBlocks : 1));
        CHECK(plan.shared_bytes() + tuning::kSampleSmallBytes <= shared);
        CHECK(plan.resident == (vocabulary <= (clusters ? 400000 : 50000)));
      }
    }
  }
  CHECK(tuning::SamplePlan(1, 49152, true, 132, shared).blocks == 8);     // one row: as many multiprocessors as it can have
  CHECK(tuning::SamplePlan(1000, 49152, true, 132, shared).blocks == 2);  // many: as few blocks as leave room for two
}

TEST_CASE("calls that do nothing take no scratch") {
  Trace<float> t;
  t.backend.embed_backward({}, t.matrix(0, 8), t.reals(5, 8));
  CHECK(t.scratch() == 0);
  t.backend.balance_loss(t.reals(0, 3), {}, 1.0, t.vector(4), {});
  CHECK(t.scratch() == 0);
  t.backend.head_loss(t.matrix(0, 8), t.matrix(5, 8), {}, {});
  CHECK(t.scratch() == 0);
}
