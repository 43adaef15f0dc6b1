// SPDX-License-Identifier: Apache-2.0
#include "host/attention_cases.hpp"
#include "support/catch.hpp"
#include "support/matrix.hpp"

#include "mor/backend/host/backend.hpp"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <numeric>

namespace {
std::atomic<long> allocation_count{0};
}  // namespace

// Every C++ allocation of this program is counted.
void* operator new(std::size_t size) {
  ++allocation_count;
  if (void* const pointer = std::malloc(size == 0 ? 1 : size)) return pointer;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, std::nothrow_t const&) noexcept {
  ++allocation_count;
  return std::malloc(size == 0 ? 1 : size);
}
void operator delete(void* pointer) noexcept { std::free(pointer); }
void operator delete(void* pointer, std::size_t) noexcept { std::free(pointer); }

using namespace mor;
using mor::test::Matrix;

namespace {

/// Everything that one layer, the head and the optimizer call, on `rows` tokens of two sequences. The gradients and
/// results are left in members, so that runs can be compared bit by bit.
class Step {
 public:
  explicit Step(Row rows)
      : shape_{4, 2, 16, 0.25},
        x_(Matrix<float>::random(rows, 64, 1)),
        weights_(Matrix<float>::random(128, 64, 2)),
        projection_(Matrix<float>::random(64, 64, 3)),
        head_(Matrix<float>::random(700, 64, 4)),
        norm_(test::random_vector<float>(64, 5)),
        positions_(static_cast<std::size_t>(rows)),
        targets_(static_cast<std::size_t>(rows), 3),
        limits_(static_cast<std::size_t>(rows)),
        offsets_{0, rows / 3, rows},
        kept_{0, rows / 6, rows / 6 + rows / 4} {
    std::iota(positions_.begin(), positions_.begin() + offsets_[1], 0);
    std::iota(positions_.begin() + offsets_[1], positions_.end(), 0);
    for (Matrix<float>* m : {&normed_, &out_, &d_a_, &d_b_, &stream_}) *m = Matrix<float>(rows, 64);
    d_k_ = d_v_ = Matrix<float>(rows, 32);
    for (Matrix<float>* m : {&wide_, &d_wide_}) *m = Matrix<float>(rows, 128);
    lse_ = Matrix<float>(rows, 4);
    d_head_ = Matrix<float>(700, 64);
    d_weights_ = Matrix<float>(128, 64);
    for (auto* v : {&rstd_, &losses_, &gate_, &d_gate_, &scores_}) v->assign(static_cast<std::size_t>(rows), 0.0F);
    d_norm_.assign(64, 0.0F);
    first_moment_.assign(norm_.size(), 0.0F);
    second_moment_ = first_moment_;
    rows_.assign(static_cast<std::size_t>(kept_[2]), 0);
    slots_ = chosen_positions_ = rows_;
    batch_rows_.resize(static_cast<std::size_t>(rows));
    std::iota(batch_rows_.begin(), batch_rows_.end(), 0);
  }

  void run(host::Backend<float>& b) {
    b.rms_norm(x_.read(), norm_, 1e-5, normed_.view(), rstd_);
    b.linear(normed_.read(), weights_.read(), wide_.view());
    auto const qkv = wide_.view();
    b.rope(positions_, 16, 1e4, Rotation::Forward, qkv.columns(0, 96));
    b.causal_limits(offsets_, {}, {}, {}, limits_);
    KeyList const keys{2, x_.rows(), x_.rows(), offsets_, offsets_, std::span<Row const>(offsets_).first(2), limits_};
    View<float const> const q = qkv.columns(0, 64), k = qkv.columns(64, 32), v = qkv.columns(96, 32);
    b.attention(q, k, v, keys, shape_, out_.view(), lse_.view());
    b.linear_residual(out_.read(), projection_.read(), x_.read(), stream_.view());
    b.swiglu(wide_.read(), normed_.view());
    b.head_loss_backward(stream_.read(), head_.read(), targets_, 0.1, losses_, d_a_.view(), d_head_.view());
    b.attention_backward(q, k, v, keys, shape_, out_.read(), lse_.read(), d_a_.read(), d_b_.view(), d_k_.view(), d_v_.view());
    b.linear_backward_weight(d_wide_.read(), d_b_.read(), d_weights_.view());
    b.rms_norm_backward(d_b_.read(), x_.read(), norm_, rstd_, d_a_.view(), d_norm_);
    route(b);
    UpdateRecord<float> record;
    float const learning_rate = 1e-3F;
    b.add_loss(losses_, 1.0, std::span(&record, 1));
    b.add_squares(d_norm_, ParameterGroup::Main, std::span(&record, 1));
    b.decide_update({}, std::span(&learning_rate, 1), std::span(&record, 1));
    b.adamw(d_norm_, {}, ParameterGroup::Main, std::span<UpdateRecord<float> const>(&record, 1), norm_, first_moment_,
            second_moment_, {});
    total_ = b.sum(losses_) + record.main.norm;
  }

  [[nodiscard]] std::vector<std::vector<float>> results() const {
    return {stream_.values(), losses_, d_a_.values(), d_b_.values(), d_k_.values(), d_v_.values(), d_head_.values(), d_norm_,
            norm_, gate_, d_gate_};
  }
  [[nodiscard]] double total() const { return total_; }

 private:
  void route(host::Backend<float>& b) {
    b.linear_logits(stream_.read(), norm_row(), 1.0, View<float>(scores_.data(), x_.rows(), 1));
    ActiveSet<float> everything;
    everything.num_rows = x_.rows();
    everything.num_sequences = 2;
    everything.rows = batch_rows_;
    everything.positions = positions_;
    everything.host_offsets = everything.sequence_offsets = offsets_;
    b.select_top_k(scores_, everything, kept_, Selection{rows_, chosen_positions_, slots_});
    b.router_gate(scores_, slots_, RouterActivation::Sigmoid, 0.1, gate_);
    b.router_bce(scores_, slots_, 1.0, statistics_, d_gate_);
    b.z_loss(View<float const>(scores_.data(), x_.rows(), 1), 1.0, statistics_, View<float>(d_gate_.data(), x_.rows(), 1));
    b.scatter_add_rows(normed_.read().row_range(0, kept_[2]), rows_, d_b_.view());
  }
  [[nodiscard]] View<float const> norm_row() const { return {norm_.data(), 1, 64}; }

  AttentionShape shape_;
  Matrix<float> x_, weights_, projection_, head_, normed_, out_, d_a_, d_b_, stream_, d_k_, d_v_, wide_, d_wide_, lse_,
      d_head_, d_weights_;
  std::vector<float> norm_, rstd_, losses_, gate_, d_gate_, scores_, d_norm_, first_moment_, second_moment_;
  std::vector<float> statistics_ = std::vector<float>(2);
  std::vector<Row> positions_, batch_rows_;
  std::vector<Token> targets_;
  std::vector<Row> limits_, offsets_, kept_, rows_, slots_, chosen_positions_;
  double total_ = 0.0;
};

}  // namespace

TEST_CASE("after the first step nothing is allocated") {
  host::Backend<float> backend(2);
  Step step(301);
  for (int warm_up = 0; warm_up < 2; ++warm_up) {
    step.run(backend);
    backend.arena().reset();
  }
  long const before = allocation_count;
  Index const asked = backend.memory_statistics().allocations;
  for (int i = 0; i < 3; ++i) {
    step.run(backend);
    backend.arena().reset();
  }
  long const after = allocation_count;
  REQUIRE(after - before == 0);
  REQUIRE(backend.memory_statistics().allocations == asked);
}

TEST_CASE("a step gives the same bits in every run and on any number of threads") {
  auto const run = [](int threads) {
    host::Backend<float> backend(threads);
    Step step(301);
    step.run(backend);
    step.run(backend);
    return step.results();
  };
  auto const first = run(2);
  REQUIRE(first == run(2));
  REQUIRE(first == run(1));
  REQUIRE(first == run(3));
}

TEST_CASE("memory is counted, and a request that cannot be met says its size") {
  host::Backend<float> backend(1);
  REQUIRE(backend.memory_statistics().current_bytes == 0);
  {
    Buffer<float> const buffer(backend.memory(), 1000);
    REQUIRE(reinterpret_cast<std::uintptr_t>(buffer.data()) % static_cast<std::uintptr_t>(kAlignment) == 0);
    REQUIRE(backend.memory_statistics().current_bytes == 4096);
    REQUIRE(backend.memory_statistics().allocations == 1);
  }
  REQUIRE(backend.memory_statistics().current_bytes == 0);
  REQUIRE(backend.memory_statistics().peak_bytes == 4096);
#if defined(__SANITIZE_ADDRESS__)
  SKIP("the address sanitizer ends a program that asks for too much");
#else
  try {
    Buffer<float> const impossible(backend.memory(), Index{1} << 58);
    FAIL("no memory is that large");
  } catch (mor::error const& caught) {
    REQUIRE(caught.code() == ErrorCode::OutOfMemory);
    REQUIRE(caught.expected() == "1152921504606846976 bytes");
  }
  REQUIRE(backend.memory_statistics().current_bytes == 0);
#endif
}

TEST_CASE("a backend moves with its memory") {
  host::Backend<float> first(1);
  Step step(31);
  step.run(first);
  host::Backend<float> second = std::move(first);
  step.run(second);
  REQUIRE(std::isfinite(step.total()));
}
