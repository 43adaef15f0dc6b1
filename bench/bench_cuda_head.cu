// SPDX-License-Identifier: Apache-2.0
// The head with its loss, and the embedding, at the shapes of SmolLM-360M: 32768 rows of 960, vocabulary 49152.
// ratio_to_products: head_loss_backward over its three products alone, group of rows by group of rows through the same
// room for logits, in the same run; what lies above 1 is the cross-entropy and what it does to the caches.
// cross_entropy is the kernel between them, bytes counted as logits read once and written once; its logits are made anew
// before each call, because it puts their gradients in their place. embed_backward counts d_out and, twice, the rows of the
// float table that occur; its tokens are uniform, or distributed as in text (Zipf's law).
#include "support/gpu_data.cuh"

#include "mor/backend/cuda/ops/head.cuh"
#include "mor/backend/cuda/tuning/head.hpp"

#include <cmath>
#include <random>
#include <set>
#include <vector>

namespace {

using namespace mor;
using bench::Gpu;

constexpr Index rows = 32768, hidden = 960, vocabulary = 49152;

/// Token ids; with `as_in_text` the probability of id i falls as 1 / (i + 1).
[[nodiscard]] std::vector<Token> draw_tokens(Index count, bool as_in_text) {
  std::mt19937 engine(1);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  std::vector<Token> tokens(static_cast<std::size_t>(count));
  for (Token& token : tokens) {
    double const u = uniform(engine), size = vocabulary;
    token = static_cast<Token>(as_in_text ? std::exp(u * std::log(size)) - 1.0 : u * size);
  }
  return tokens;
}

void head_loss_backward(benchmark::State& state) {
  auto& gpu = *Gpu::instance();
  auto& b = gpu.backend();
  auto const x = bench::random_matrix(gpu, rows, hidden, 1), d_x = bench::random_matrix(gpu, rows, hidden, 2);
  auto const weights = bench::random_matrix(gpu, vocabulary, hidden, 3);
  auto const losses = bench::zeros(gpu, rows), d_weights = bench::zeros(gpu, vocabulary * hidden);
  auto const targets = bench::on_device(gpu, draw_tokens(rows, true));
  View<bfloat16> const w = Gpu::view(weights, vocabulary, hidden);
  View<float> const d_w(d_weights.data(), vocabulary, hidden);
  double const flops = 6.0 * static_cast<double>(rows * vocabulary) * static_cast<double>(hidden);
  bench::measure(state, gpu, {flops, 0.0}, [&] {
    b.head_loss_backward(Gpu::view(x, rows, hidden), w, targets.span(), 1.0 / rows, losses.span(),
                         Gpu::view(d_x, rows, hidden), d_w);
  });
  double const whole = state.counters["median_us"];

  // The products that go back read gradients that a cross-entropy has left, as they do above.
  Index const group = cuda::tuning::head_rows(rows, vocabulary, sizeof(bfloat16));
  auto const logits = bench::random_matrix(gpu, group, vocabulary, 4);
  auto const gradients = bench::random_matrix(gpu, group, vocabulary, 5);
  View<bfloat16> const out = Gpu::view(logits, group, vocabulary), d_out = Gpu::view(gradients, group, vocabulary);
  b.linear(Gpu::view(x, rows, hidden).row_range(0, group), w, d_out);
  cuda::detail::cross_entropy<true>(gpu.context(), d_out, targets.data(), 1.0F / rows, losses.data());
  auto const products = [&] {
    for (Index first = 0; first < rows; first += group) {
      Index const count = std::min(group, rows - first);
      auto const part = Gpu::view(x, rows, hidden).row_range(first, count);
      b.linear(part, w, out.row_range(0, count));
      b.linear_backward_input(d_out.row_range(0, count), w, false, Gpu::view(d_x, rows, hidden).row_range(first, count));
      b.linear_backward_weight(d_out.row_range(0, count), part, d_w);
    }
  };
  products();
  double const alone = 1e6 * bench::median(gpu.time_calls(15, products));
  state.counters["products_us"] = alone;
  state.counters["ratio_to_products"] = whole / alone;
}

void head_loss(benchmark::State& state) {
  auto& gpu = *Gpu::instance();
  auto const x = bench::random_matrix(gpu, rows, hidden, 1), weights = bench::random_matrix(gpu, vocabulary, hidden, 2);
  auto const losses = bench::zeros(gpu, rows);
  auto const targets = bench::on_device(gpu, draw_tokens(rows, true));
  double const flops = 2.0 * static_cast<double>(rows * vocabulary) * static_cast<double>(hidden);
  bench::measure(state, gpu, {flops, 0.0}, [&] {
    gpu.backend().head_loss(Gpu::view(x, rows, hidden), Gpu::view(weights, vocabulary, hidden), targets.span(), losses.span());
  });
}

/// Argument: rows.
template <bool Gradient>
void cross_entropy(benchmark::State& state) {
  auto& gpu = *Gpu::instance();
  Index const count = state.range(0);
  auto const fresh = bench::random_matrix(gpu, count, vocabulary, 1);
  Buffer<bfloat16> const logits(gpu.backend().memory(), fresh.size());
  auto const losses = bench::zeros(gpu, count);
  auto const targets = bench::on_device(gpu, draw_tokens(count, true));
  double const bytes = (Gradient ? 4.0 : 2.0) * static_cast<double>(fresh.size());
  bench::measure_prepared(
      state, gpu, bytes, [&] { bench::copy_on_device(gpu, fresh.data(), logits.data(), fresh.size()); },
      [&] {
        cuda::detail::cross_entropy<Gradient>(gpu.context(), Gpu::view(logits, count, vocabulary), targets.data(),
                                              1.0F / rows, losses.data());
      });
}

void embed(benchmark::State& state) {
  auto& gpu = *Gpu::instance();
  auto const table = bench::random_matrix(gpu, vocabulary, hidden, 1), out = bench::random_matrix(gpu, rows, hidden, 2);
  auto const tokens = bench::on_device(gpu, draw_tokens(rows, state.range(0) != 0));
  bench::measure(state, gpu, {0.0, 4.0 * rows * hidden + 4.0 * rows}, [&] {
    gpu.backend().embed(tokens.span(), Gpu::view(table, vocabulary, hidden), Gpu::view(out, rows, hidden));
  });
}

void embed_backward(benchmark::State& state) {
  auto& gpu = *Gpu::instance();
  auto const d_out = bench::random_matrix(gpu, rows, hidden, 1);
  auto const d_table = bench::zeros(gpu, vocabulary * hidden);
  auto const drawn = draw_tokens(rows, state.range(0) != 0);
  auto const tokens = bench::on_device(gpu, drawn);
  auto const distinct = static_cast<double>(std::set<Token>(drawn.begin(), drawn.end()).size());
  bench::measure(state, gpu, {0.0, 2.0 * rows * hidden + 4.0 * rows + 8.0 * distinct * hidden}, [&] {
    gpu.backend().embed_backward(tokens.span(), Gpu::view(d_out, rows, hidden), {d_table.data(), vocabulary, hidden});
  });
  state.counters["distinct"] = distinct;
}

void plain(benchmark::internal::Benchmark* b) {
  b->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(20);
}

BENCHMARK(head_loss)->Apply(plain);
BENCHMARK(head_loss_backward)->Apply(plain);
BENCHMARK_TEMPLATE(cross_entropy, true)->Apply(plain)->ArgName("rows")->Arg(4096)->Arg(8192);
BENCHMARK_TEMPLATE(cross_entropy, false)->Apply(plain)->ArgName("rows")->Arg(4096)->Arg(8192);
BENCHMARK(embed)->Apply(plain)->ArgName("as_in_text")->Arg(0)->Arg(1);
BENCHMARK(embed_backward)->Apply(plain)->ArgName("as_in_text")->Arg(0)->Arg(1);

}  // namespace

int main(int argc, char** argv) { return mor::bench::run_gpu_benchmarks(argc, argv); }
