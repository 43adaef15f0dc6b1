// SPDX-License-Identifier: Apache-2.0
// A whole training step on the host (forward, backward, clipping, AdamW) for the vanilla, recursive and MoR models.
//
// gemm_ratio is the step's time over that of its matrix products alone, replayed from a trace in the same run; peak_share
// is the share of the measured floating-point peak, counting executed FLOPs only.
#include "support/machine_peak.hpp"
#include "support/model_shapes.hpp"

#include "mor/backend/host/backend.hpp"
#include "mor/backend/trace/backend.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/all_tokens.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/expert_choice.hpp"
#include "mor/policy/sharing.hpp"
#include "mor/train/adamw.hpp"

#include <algorithm>
#include <chrono>
#include <string_view>
#include <vector>

namespace {

using namespace mor;
using Host = host::Backend<float>;
using Trace = trace::Backend<float, float>;

constexpr Index sequences = 8, length = 256;

double seconds_of(auto&& call) {
  auto const start = std::chrono::steady_clock::now();
  call();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Runs the matrix products of a traced step on the host, on scratch matrices, and nothing else.
class GemmReplay {
 public:
  GemmReplay(Host& backend, std::span<trace::Operation const> operations) : backend_(backend) {
    Index largest = 0;
    for (auto const& operation : operations) {
      bool const head = operation.name.substr(0, 9) == "head_loss";
      if (operation.name.substr(0, 6) != "linear" && !head) continue;
      operations_.push_back(operation);
      for (auto const& shape : operation.shapes) largest = std::max(largest, shape.rows * shape.cols);
      if (head) largest = std::max(largest, operation.shapes[0].rows * operation.shapes[1].rows);
    }
    for (auto* buffer : {&a_, &b_, &c_}) buffer->assign(static_cast<std::size_t>(largest), 0.01F);
  }

  void operator()() {
    for (auto const& operation : operations_) {
      auto const& s = operation.shapes;
      if (operation.name == "linear" || operation.name == "linear_logits" || operation.name == "linear_residual") {
        backend_.linear(in(a_, s[0]), in(b_, s[1]), out(s.back()));
      } else if (operation.name == "linear_backward_input") {
        backend_.linear_backward_input(in(a_, s[0]), in(b_, s[1]), false, out(s[2]));
      } else if (operation.name == "linear_backward_weight") {
        backend_.linear_backward_weight(in(a_, s[0]), in(b_, s[1]), out(s[2]));
      } else if (operation.name == "head_loss_backward") {
        trace::Shape const logits{s[0].rows, s[1].rows};
        backend_.linear(in(a_, s[0]), in(b_, s[1]), out(logits));
        backend_.linear_backward_input(in(a_, logits), in(b_, s[1]), false, out(s[0]));
        backend_.linear_backward_weight(in(a_, logits), in(b_, s[0]), out(s[1]));
      }
      backend_.arena().reset();
    }
  }

 private:
  static View<float const> in(std::vector<float> const& buffer, trace::Shape s) { return {buffer.data(), s.rows, s.cols}; }
  View<float> out(trace::Shape s) { return {c_.data(), s.rows, s.cols}; }

  Host& backend_;
  std::vector<trace::Operation> operations_;
  std::vector<float> a_, b_, c_;
};

template <class Router, class Sharing>
void train_step(benchmark::State& state) {
  auto const config = bench::small_model(state.range(0));
  bench::TrainingRows const rows(sequences, length);
  TrainingProgress const progress;
  LossWeights const weights{1.0 / static_cast<double>(sequences * length), 1.0};

  Trace recorder;
  RecursiveTransformer<Router, RecursionWiseCache, Sharing, Trace> traced(recorder, config);
  traced.parameters().enable_gradients();
  recorder.clear();
  traced.forward_backward(rows.batch(), rows.targets, progress, weights);
  auto const operations = std::vector<trace::Operation>(recorder.operations().begin(), recorder.operations().end());

  Host backend;
  RecursiveTransformer<Router, RecursionWiseCache, Sharing, Host> model(backend, config);
  model.initialize(1);
  model.parameters().enable_gradients();
  train::Adamw<Host> optimizer(backend, model.parameters(), {});
  Host replay_backend;
  GemmReplay replay(replay_backend, operations);
  auto const step = [&] {
    model.parameters().zero_gradients();
    model.forward_backward(rows.batch(), rows.targets, progress, weights);
    optimizer.step(1e-3);
  };
  step();
  replay();
  std::vector<double> step_times, gemm_times;
  for (auto _ : state) {
    step_times.push_back(seconds_of(step));
    gemm_times.push_back(seconds_of(replay));
    state.SetIterationTime(step_times.back());
  }
  double const time = bench::median(step_times);
  auto const flops = static_cast<double>(trace::matrix_flops(operations));
  state.counters["tokens/s"] = static_cast<double>(sequences * length) / time;
  state.counters["gemm_ratio"] = time / bench::median(gemm_times);
  state.counters["GFLOP/s"] = flops / time * 1e-9;
  state.counters["peak_share"] = flops / time / bench::measure_flops<float>(backend.threads());
  state.counters["depth"] = model.report().mean_depth();
}

void vanilla(benchmark::State& state) { train_step<AllTokens, NoSharing>(state); }
void recursive(benchmark::State& state) { train_step<AllTokens, MiddleCycle>(state); }
void mixture_of_recursions(benchmark::State& state) { train_step<ExpertChoice<>, MiddleCycle>(state); }

}  // namespace

BENCHMARK(vanilla)->Arg(1)->ArgName("recursions")->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(recursive)->Arg(3)->ArgName("recursions")->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(mixture_of_recursions)
    ->Arg(2)
    ->Arg(3)
    ->Arg(4)
    ->ArgName("recursions")
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);
