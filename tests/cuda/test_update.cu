// SPDX-License-Identifier: Apache-2.0
// The optimizer on the device: updates of a whole set of parameters, decided and made without the host.
#include "cuda/device_present.hpp"
#include "support/catch.hpp"
#include "support/matrix.hpp"
#include "train/plain_adamw.hpp"

#include "mor/backend/cuda/backend.cuh"
#include "mor/train/adamw.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

using namespace mor;

namespace {

/// An optimizer on the parameters of `test::mixed_layout`.
template <class T>
struct Run {
  using B = cuda::Backend<T>;
  B backend;
  ParameterSet<B> parameters{backend, test::mixed_layout()};
  train::Adamw<B> optimizer{backend, parameters, {}};
  Buffer<float> losses{backend.memory(), 3};

  Run() {
    parameters.enable_gradients();
    parameters.initialize(3, 0.5);
  }
  [[nodiscard]] std::vector<float> gradients(std::uint64_t step) const {
    return test::random_vector<float>(parameters.layout().total_size(), 100 + step);
  }
  void set_gradients(std::vector<float> const& values) {
    backend.store(std::span<float const>(values), parameters.gradients());
  }
  [[nodiscard]] std::vector<float> read(std::span<float const> values) {
    std::vector<float> host(values.size());
    backend.download(values, host);
    return host;
  }
  /// Weights and both moments.
  [[nodiscard]] std::vector<float> state() {
    std::vector<float> all;
    for (auto const part : {parameters.values(), optimizer.first_moment(), optimizer.second_moment()}) {
      auto const host = read(part);
      all.insert(all.end(), host.begin(), host.end());
    }
    return all;
  }
  /// The weights that verbs read, and what they have to be.
  [[nodiscard]] bool weights_are_rounded() {
    std::vector<T> verbs(static_cast<std::size_t>(parameters.layout().total_size()));
    backend.synchronize();
    cuda::check(cudaMemcpy(verbs.data(), parameters.views().weights, verbs.size() * sizeof(T), cudaMemcpyDeviceToHost),
                "cudaMemcpy");
    auto const master = read(parameters.values());
    for (std::size_t i = 0; i < verbs.size(); ++i) {
      if (static_cast<float>(verbs[i]) != static_cast<float>(static_cast<T>(master[i]))) return false;
    }
    return true;
  }
  /// One step with this loss, the gradients as they are.
  void step(float loss, double learning_rate) {
    std::vector<float> const host{1.0F, 2.0F, loss};
    backend.store(std::span<float const>(host), losses.span());
    optimizer.add_loss(losses.span(), 0.5);
    optimizer.step(learning_rate);
  }
};

double largest_difference(std::vector<float> const& got, std::size_t first, std::vector<double> const& expected) {
  double worst = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    double const difference = std::abs(static_cast<double>(got[first + i]) - expected[i]);
    worst = difference <= worst ? worst : difference;  // NaN counts
  }
  return worst;
}

}  // namespace

TEMPLATE_TEST_CASE("updates on the device are those of a plain computation, and verbs read them rounded", "[cuda][quick]",
                   float, bfloat16) {
  test::require_device();
  Run<TestType> run;
  auto const start = run.read(run.parameters.values());
  test::PlainAdamw plain(std::vector<double>(start.begin(), start.end()));
  REQUIRE(run.weights_are_rounded());
  for (int t = 1; t <= 5; ++t) {
    auto const gradients = run.gradients(static_cast<std::uint64_t>(t));
    run.set_gradients(gradients);
    run.step(static_cast<float>(t), 0.01 * t);
    plain.step({gradients.begin(), gradients.end()}, {}, 0.01 * t, t);
    auto const update = run.optimizer.last_update();
    REQUIRE((update.applied && update.updates == t && update.skipped == 0));
    REQUIRE(update.loss == 0.5 * (3.0 + t));
    REQUIRE(run.weights_are_rounded());
  }
  auto const state = run.state();
  REQUIRE(largest_difference(state, 0, plain.w) < 1e-5);
  REQUIRE(largest_difference(state, plain.w.size(), plain.m) < 1e-6);
  REQUIRE(largest_difference(state, 2 * plain.w.size(), plain.v) < 1e-6);
}

TEMPLATE_TEST_CASE("a number that is none changes no bit on the device, and does not count", "[cuda]", float, bfloat16) {
  test::require_device();
  Run<TestType> disturbed, calm;
  float const infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  auto const aux = static_cast<std::size_t>(disturbed.parameters.layout().find("aux").offset);
  Index skipped = 0;
  for (std::uint64_t step = 0; step < 3; ++step) {
    auto const before = disturbed.state();
    for (float const bad : {nan, infinity, -infinity, 2e20F}) {
      for (std::size_t const at : {std::size_t{0}, aux}) {
        CAPTURE(step, bad, at);
        auto gradients = disturbed.gradients(step);
        gradients[at] = bad;
        disturbed.set_gradients(gradients);
        disturbed.step(1.0F, 0.01);
        auto const update = disturbed.optimizer.last_update();
        REQUIRE_FALSE(update.applied);
        REQUIRE((update.updates == static_cast<Index>(step) && update.skipped == ++skipped));
        REQUIRE(disturbed.state() == before);
      }
      disturbed.set_gradients(disturbed.gradients(step));
      disturbed.step(bad, 0.01);
      ++skipped;
      REQUIRE_FALSE(disturbed.optimizer.last_update().applied);
      REQUIRE(disturbed.state() == before);
      REQUIRE(disturbed.weights_are_rounded());
    }
    for (auto* const run : {&disturbed, &calm}) {
      run->set_gradients(run->gradients(step));
      run->step(2.0F, 0.02);
    }
    REQUIRE(disturbed.state() == calm.state());
    REQUIRE(disturbed.weights_are_rounded());
  }
}

TEST_CASE("an optimizer restored on the device makes the same updates bit for bit", "[cuda]") {
  test::require_device();
  Run<bfloat16> whole, before, after;
  auto const steps = [](Run<bfloat16>& run, std::uint64_t first, std::uint64_t last) {
    for (std::uint64_t i = first; i < last; ++i) {
      run.set_gradients(run.gradients(i));
      run.step(1.0F, 0.01);
    }
  };
  steps(whole, 0, 6);
  steps(before, 0, 3);
  auto const copy = [&](std::span<float const> from, std::span<float> to) {
    after.backend.store(std::span<float const>(before.read(from)), to);
  };
  copy(before.parameters.values(), after.parameters.values());
  copy(before.optimizer.first_moment(), after.optimizer.first_moment());
  copy(before.optimizer.second_moment(), after.optimizer.second_moment());
  after.parameters.publish();
  after.optimizer.set_steps(before.optimizer.steps());
  REQUIRE(after.optimizer.steps() == 3);
  steps(after, 3, 6);
  REQUIRE(after.state() == whole.state());
  REQUIRE(after.optimizer.steps() == 6);
}

TEST_CASE("a step waits for nothing: it is captured, and each launch takes that step's learning rate, loss and gradients",
          "[cuda]") {
  test::require_device();
  Run<bfloat16> captured, usual;
  cuda::Repetition repetition;
  float const nan = std::numeric_limits<float>::quiet_NaN();
  for (int i = 0; i < 9; ++i) {
    CAPTURE(i);
    float const loss = i == 5 ? nan : static_cast<float>(i);
    double const rate = 0.01 * (i + 1);
    for (auto* const run : {&captured, &usual}) run->set_gradients(run->gradients(static_cast<std::uint64_t>(i)));
    captured.backend.repeat(repetition, [&] { captured.step(loss, rate); });
    usual.step(loss, rate);
    REQUIRE(repetition.captured() == (i >= 2));
    auto const update = captured.optimizer.last_update(), expected = usual.optimizer.last_update();
    REQUIRE(update.applied == (i != 5));
    REQUIRE((update.updates == expected.updates && update.skipped == expected.skipped));
    REQUIRE(captured.state() == usual.state());
  }
}
