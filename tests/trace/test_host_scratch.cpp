// SPDX-License-Identifier: Apache-2.0
// The formula for the scratch of the host's verbs, verb by verb: a change of the host's blocking shows up here.
#include "mor/backend/host/backend.hpp"
#include "mor/backend/trace/backend.hpp"

#include "support/catch.hpp"
#include "trace/host_scratch.hpp"

#include <vector>

namespace trace = mor::trace;
using mor::Index;
using mor::Row;

namespace {
/// Zeros of any shape from a backend's arena.
template <class B>
struct Operands {
  B& backend;
  mor::View<float> matrix(Index rows, Index cols) {
    auto const x = backend.arena().template matrix<float>(rows, cols);
    backend.fill(x, 0.0);
    return x;
  }
  std::span<mor::UpdateRecord<float>> record() {
    auto const records = backend.arena().template allocate<mor::UpdateRecord<float>>(1);
    mor::UpdateRecord<float> const empty;
    backend.store(std::span(&empty, 1), records);
    return records;
  }
  std::span<float> vector(Index size) { return {matrix(size, 1).data, static_cast<std::size_t>(size)}; }
};

/// Arena peaks of the same calls, traced and on the host, are the same.
template <class Work>
void check_same_peak(Work const& work) {
  mor::host::Backend<float> host(2);
  trace::Options options;
  options.scratch_bytes = mor::test::HostScratch<float>(host.threads());
  trace::Backend<float, float> traced(options);
  Operands<trace::Backend<float, float>> traced_operands{traced};
  work(traced, traced_operands);
  Operands<mor::host::Backend<float>> host_operands{host};
  work(host, host_operands);
  INFO(traced.operations().back().name);
  CHECK(traced.arena().peak_bytes() == host.arena().peak_bytes());
  CHECK(traced.arena().in_use_bytes() == host.arena().in_use_bytes());
}
}  // namespace

TEST_CASE("host scratch of dense products is known for few and for many rows") {
  for (Index const n : {Index{1}, Index{48}, Index{49}, Index{300}}) {
    CAPTURE(n);
    check_same_peak([n](auto& b, auto& o) { b.linear(o.matrix(n, 70), o.matrix(90, 70), o.matrix(n, 90)); });
    check_same_peak([n](auto& b, auto& o) {
      auto const out = o.matrix(n, 90);
      b.linear_residual(o.matrix(n, 300), o.matrix(90, 300), out, out);
    });
    check_same_peak(
        [n](auto& b, auto& o) { b.linear_backward_input(o.matrix(n, 90), o.matrix(90, 70), true, o.matrix(n, 70)); });
    check_same_peak(
        [n](auto& b, auto& o) { b.linear_backward_weight(o.matrix(n, 90), o.matrix(n, 70), o.matrix(90, 70)); });
    for (Index const outputs : {Index{1}, Index{4}, Index{5}}) {
      check_same_peak([n, outputs](auto& b, auto& o) {
        b.linear_logits(o.matrix(n, 70), o.matrix(outputs, 70), 1.0, o.matrix(n, outputs));
      });
      check_same_peak([n, outputs](auto& b, auto& o) {
        b.linear_logits_backward(o.matrix(n, outputs), o.matrix(n, 70), o.matrix(outputs, 70), 1.0, o.matrix(n, 70),
                                 o.matrix(outputs, 70));
      });
    }
  }
  check_same_peak([](auto& b, auto& o) { b.linear(o.matrix(100, 3000), o.matrix(2000, 3000), o.matrix(100, 2000)); });
}

TEST_CASE("host scratch of the head is known for whole and broken groups of rows") {
  std::vector<mor::Token> const targets(200, 1);
  for (Index const n : {Index{1}, Index{96}, Index{100}, Index{200}}) {
    CAPTURE(n);
    auto const some = std::span<mor::Token const>(targets).first(static_cast<std::size_t>(n));
    check_same_peak([&](auto& b, auto& o) {
      b.head_loss(o.matrix(n, 8), o.matrix(12000, 8), b.upload(some), o.vector(n));
    });
    check_same_peak([&](auto& b, auto& o) {
      b.head_loss_backward(o.matrix(n, 8), o.matrix(12000, 8), b.upload(some), 1.0, o.vector(n), o.matrix(n, 8),
                           o.matrix(12000, 8));
    });
  }
}

TEST_CASE("host scratch of attention is known for grouped and odd heads, side by side and in pages") {
  std::vector<Row> const offsets{0, 5, 150}, begins{0, 5}, page_begins{0, 1}, pages{3, 2, 1, 0};
  std::vector<Row> limits;
  for (Row i = 0; i < 150; ++i) limits.push_back(i < 5 ? i + 1 : i - 4);
  for (auto const& shape : {mor::AttentionShape{4, 2, 8, 1.0}, mor::AttentionShape{15, 5, 64, 1.0},
                            mor::AttentionShape{3, 1, 6, 1.0}}) {
    CAPTURE(shape.num_heads);
    auto const keys = [&](auto& b) {
      return mor::KeyList{2, 150, 145, b.upload(offsets), offsets, b.upload(begins), b.upload(limits)};
    };
    Index const queries = shape.num_heads * shape.head_dim, kv = shape.num_kv_heads * shape.head_dim;
    check_same_peak([&](auto& b, auto& o) {
      b.attention(o.matrix(150, queries), o.matrix(150, kv), o.matrix(150, kv), keys(b), shape, o.matrix(150, queries),
                  o.matrix(150, shape.num_heads));
    });
    check_same_peak([&](auto& b, auto& o) {
      auto paged = keys(b);
      paged.key_begin = b.upload(page_begins);
      paged.page_size = 50;
      paged.pages = b.upload(pages);
      b.attention(o.matrix(150, queries), o.matrix(200, kv), o.matrix(200, kv), paged, shape, o.matrix(150, queries),
                  o.matrix(150, shape.num_heads));
    });
    check_same_peak([&](auto& b, auto& o) {
      auto const x = o.matrix(150, queries), k = o.matrix(150, kv), lse = o.matrix(150, shape.num_heads);
      b.attention_backward(x, k, k, keys(b), shape, x, lse, x, o.matrix(150, queries), o.matrix(150, kv),
                           o.matrix(150, kv));
    });
  }
}

TEST_CASE("host scratch of norms, sums, losses and selection is known") {
  std::vector<Row> rows(20000), offsets{0, 9000, 20000}, kept{0, 100, 300};
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<Row>(i);
  check_same_peak([](auto& b, auto& o) {
    auto const x = o.matrix(130, 70);
    b.rms_norm_backward(x, x, o.vector(70), o.vector(130), o.matrix(130, 70), o.vector(70));
  });
  for (Index const n : {Index{100}, Index{8192}, Index{20000}}) {
    CAPTURE(n);
    check_same_peak([n](auto& b, auto& o) { static_cast<void>(b.sum(o.vector(n))); });
    check_same_peak([n](auto& b, auto& o) { b.add_squares(o.vector(n), mor::ParameterGroup::Main, o.record()); });
    check_same_peak([n](auto& b, auto& o) { b.add_loss(o.vector(n), 1.0, o.record()); });
    check_same_peak([n](auto& b, auto& o) { b.router_bce(o.vector(n), {}, 1.0, o.vector(2), o.vector(n)); });
    check_same_peak([n](auto& b, auto& o) { b.z_loss(o.matrix(n, 3), 1.0, o.vector(1), o.matrix(n, 3)); });
    check_same_peak(
        [n](auto& b, auto& o) { b.balance_loss(o.matrix(n, 3), o.vector(n), 1.0, o.vector(4), o.matrix(n, 3)); });
  }
  check_same_peak([&](auto& b, auto& o) {
    mor::ActiveSet<float> set{20000, 2, true, b.upload(rows), b.upload(rows), b.upload(offsets), offsets, {}, {}};
    auto& arena = b.arena();
    mor::Selection const selection{arena.template allocate<Row>(300), arena.template allocate<Row>(300),
                                   arena.template allocate<Row>(300)};
    b.select_top_k(o.vector(20000), set, kept, selection);
  });
}
