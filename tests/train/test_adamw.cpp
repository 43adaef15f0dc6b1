// SPDX-License-Identifier: Apache-2.0
// AdamW follows its formula, clips the global norm, leaves norms undecayed and frozen tensors alone, makes no update
// from numbers that are none, and never waits.
#include "support/catch.hpp"
#include "support/matrix.hpp"
#include "train/plain_adamw.hpp"

#include "mor/backend/host/backend.hpp"
#include "mor/backend/trace/backend.hpp"
#include "mor/train/adamw.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

using namespace mor;

namespace {

using Host = host::Backend<double>;

constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

ParameterLayout layout() {
  ParameterLayout layout;
  layout.add_matrix("w", 1, 2);
  layout.add_norm("norm", 1);
  layout.add_matrix("aux", 1, 1, ParameterGroup::AuxRouter);
  layout.add_frozen_vector("bias", 1);
  return layout;
}

struct Fixture {
  Host backend;
  ParameterSet<Host> parameters{backend, layout()};
  train::AdamwSettings settings;
  Fixture() {
    parameters.enable_gradients();
    std::vector<double> const values{1.0, -2.0, 1.0, 0.5, 0.25};
    backend.store(std::span<double const>(values), parameters.values());
  }
  void set_gradients(std::vector<double> const& values) {
    backend.store(std::span<double const>(values), parameters.gradients());
  }
};

/// One update by hand.
double updated(double w, double g, double lr, double decay, double m = 0.0, double v = 0.0, int step = 1) {
  m = 0.9 * m + 0.1 * g;
  v = 0.95 * v + 0.05 * g * g;
  double const mean = m / (1.0 - std::pow(0.9, step));
  double const square = v / (1.0 - std::pow(0.95, step));
  return w - lr * (mean / (std::sqrt(square) + 1e-8) + decay * w);
}

template <class T>
std::vector<T> copy_of(std::span<T> values) {
  return {values.begin(), values.end()};
}

/// An optimizer on random weights.
template <class T>
struct Run {
  host::Backend<T> backend{2};
  ParameterSet<host::Backend<T>> parameters{backend, test::mixed_layout()};
  train::Adamw<host::Backend<T>> optimizer;

  explicit Run(train::AdamwSettings const& settings = {}) : optimizer(backend, parameters, settings) {
    parameters.enable_gradients();
    parameters.initialize(3, 0.5);
  }
  void set_gradients(std::vector<T> const& values) { backend.store(std::span<T const>(values), parameters.gradients()); }
  [[nodiscard]] std::vector<T> random_gradients(std::uint64_t step) const {
    return test::random_vector<T>(parameters.layout().total_size(), 100 + step);
  }
  /// Everything that an update may change.
  [[nodiscard]] std::vector<T> state() const {
    std::vector<T> all;
    for (auto const part : {parameters.values(), optimizer.first_moment(), optimizer.second_moment()}) {
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }
};

bool same_number(double a, double b) { return std::isnan(b) ? std::isnan(a) : a == Approx(b); }

}  // namespace

TEST_CASE("one AdamW step by hand: decoupled decay, none on norms, tenfold rate for the auxiliary router") {
  Fixture f;
  f.settings.clip_norm = 0.0;
  train::Adamw<Host> optimizer(f.backend, f.parameters, f.settings);
  f.set_gradients({0.3, -0.4, 0.5, 0.6, 9.0});
  optimizer.step(0.01);
  auto const update = optimizer.last_update();
  CHECK(update.applied);
  CHECK(update.norms.main == Approx(std::sqrt(0.09 + 0.16 + 0.25)));
  CHECK(update.norms.aux_router == Approx(0.6));
  auto const w = f.parameters.values();
  CHECK(w[0] == Approx(updated(1.0, 0.3, 0.01, 0.1)).epsilon(1e-12));
  CHECK(w[1] == Approx(updated(-2.0, -0.4, 0.01, 0.1)).epsilon(1e-12));
  CHECK(w[2] == Approx(updated(1.0, 0.5, 0.01, 0.0)).epsilon(1e-12));
  CHECK(w[3] == Approx(updated(0.5, 0.6, 0.1, 0.1)).epsilon(1e-12));
  CHECK(w[4] == 0.25);
  CHECK(optimizer.steps() == 1);
}

TEST_CASE("clipping scales each group by its own norm") {
  Fixture f;
  f.settings.clip_norm = 1.0;
  train::Adamw<Host> optimizer(f.backend, f.parameters, f.settings);
  f.set_gradients({3.0, 4.0, 0.0, 0.5, 0.0});
  optimizer.step(0.01);
  CHECK(optimizer.first_moment()[0] == Approx(0.1 * 3.0 / 5.0));
  CHECK(optimizer.first_moment()[3] == Approx(0.1 * 0.5));
}

TEST_CASE("many updates are those of a plain computation, with and without clipping") {
  for (double const clip : {0.0, 0.05, 3.0, 1e6}) {
    CAPTURE(clip);
    train::AdamwSettings settings;
    settings.beta1 = 0.8;
    settings.beta2 = 0.97;
    settings.epsilon = 1e-6;
    settings.clip_norm = clip;
    settings.weight_decay = 0.3;
    settings.aux_router_learning_rate = 4.0;
    Run<double> run(settings);
    test::PlainAdamw plain(run.parameters.values());
    for (int t = 1; t <= 5; ++t) {
      auto const gradients = run.random_gradients(static_cast<std::uint64_t>(t));
      double const rate = 0.01 * t;
      run.set_gradients(gradients);
      run.optimizer.step(rate);
      plain.step(gradients, settings, rate, t);
    }
    CHECK(run.optimizer.steps() == 5);
    CHECK(test::worst_difference(copy_of(run.parameters.values()), plain.w) < 1e-13);
    CHECK(test::worst_difference(copy_of(run.optimizer.first_moment()), plain.m) < 1e-13);
    CHECK(test::worst_difference(copy_of(run.optimizer.second_moment()), plain.v) < 1e-13);
  }
}

TEMPLATE_TEST_CASE("a gradient that is not a number changes no bit, does not count, and is shown as it is", "", float,
                   double) {
  using T = TestType;
  Run<T> disturbed, calm;
  Index const aux = disturbed.parameters.layout().find("aux").offset;
  Index const last = disturbed.parameters.layout().find("last").offset;
  Index skipped = 0;
  for (std::uint64_t step = 0; step < 3; ++step) {
    for (double const bad : {nan_value, infinity, -infinity, 2e20}) {
      for (Index const at : {Index{0}, aux, last}) {
        CAPTURE(step, bad, at);
        auto const before = disturbed.state();
        auto gradients = disturbed.random_gradients(50 + step);
        gradients[static_cast<std::size_t>(at)] = static_cast<T>(bad);
        disturbed.set_gradients(gradients);
        disturbed.optimizer.step(0.01);
        auto const update = disturbed.optimizer.last_update();
        REQUIRE_FALSE(update.applied);
        REQUIRE(update.updates == static_cast<Index>(step));
        REQUIRE(update.skipped == ++skipped);
        REQUIRE(same_number(at == aux ? update.norms.aux_router : update.norms.main, std::abs(bad)));
        REQUIRE(same_number(update.norms.worst(), std::abs(bad)));
        REQUIRE(disturbed.state() == before);
      }
    }
    for (auto* const run : {&disturbed, &calm}) {
      run->set_gradients(run->random_gradients(step));
      run->optimizer.step(0.02);
      REQUIRE(run->optimizer.last_update().applied);
    }
    REQUIRE(disturbed.state() == calm.state());
  }
}

TEMPLATE_TEST_CASE("nor does a loss that is not a number", "", float, double) {
  using T = TestType;
  Run<T> run;
  for (double const bad : {nan_value, infinity, -infinity, -2e20}) {
    CAPTURE(bad);
    auto const before = run.state();
    run.set_gradients(run.random_gradients(1));
    run.optimizer.add_loss(std::vector<T>{T(1), static_cast<T>(bad)}, 1.0);
    run.optimizer.step(0.01);
    auto const update = run.optimizer.last_update();
    REQUIRE_FALSE(update.applied);
    REQUIRE(update.updates == 0);
    REQUIRE(same_number(update.loss, bad));
    REQUIRE(run.state() == before);
  }
  run.optimizer.step(0.01);
  REQUIRE(run.optimizer.last_update().applied);
}

TEST_CASE("numbers that are large but within the bound are accepted, and clipped") {
  Run<float> run;
  auto gradients = run.random_gradients(1);
  gradients[0] = 9e19F;
  run.set_gradients(gradients);
  run.optimizer.add_loss(std::vector<float>{9e19F}, 1.0);
  run.optimizer.step(0.01);
  auto const update = run.optimizer.last_update();
  CHECK(update.applied);
  CHECK(update.norms.main == Approx(9e19));
  CHECK(run.optimizer.first_moment()[0] == Approx(0.1));
}

TEST_CASE("the loss of a step is the weighted sum over its micro-batches, and starts again after it") {
  Run<double> run;
  run.set_gradients(run.random_gradients(1));
  run.optimizer.add_loss(std::vector<double>{1.0, 2.0}, 0.25);
  run.optimizer.add_loss(std::vector<double>{4.0}, 0.5);
  run.optimizer.step(0.01);
  CHECK(run.optimizer.last_update().loss == 2.75);
  run.optimizer.step(0.01);
  CHECK(run.optimizer.last_update().loss == 0.0);
  CHECK(run.optimizer.last_update().applied);
}

TEST_CASE("an optimizer that is restored makes the same updates bit for bit") {
  Run<float> whole, before, after;
  auto const step = [](Run<float>& run, std::uint64_t number) {
    run.set_gradients(run.random_gradients(number));
    run.optimizer.step(0.01);
  };
  for (std::uint64_t i = 0; i < 6; ++i) step(whole, i);
  for (std::uint64_t i = 0; i < 3; ++i) step(before, i);
  after.backend.store(std::span<float const>(before.parameters.values()), after.parameters.values());
  after.backend.store(std::span<float const>(before.optimizer.first_moment()), after.optimizer.first_moment());
  after.backend.store(std::span<float const>(before.optimizer.second_moment()), after.optimizer.second_moment());
  after.optimizer.set_steps(before.optimizer.steps());
  CHECK(after.optimizer.steps() == 3);
  for (std::uint64_t i = 3; i < 6; ++i) step(after, i);
  CHECK(after.state() == whole.state());
  CHECK(after.optimizer.steps() == 6);
}

TEST_CASE("a step waits for nothing, and writes the weights that verbs read in the same pass") {
  struct Half {
    std::uint16_t bits;
  };
  using Mixed = trace::Backend<Half, float>;
  Mixed backend;
  ParameterSet<Mixed> parameters(backend, test::mixed_layout());
  parameters.enable_gradients();
  train::Adamw<Mixed> optimizer(backend, parameters, {});
  auto const losses = backend.arena().allocate<float>(4);
  backend.clear();
  optimizer.add_loss(losses, 0.25);
  optimizer.step(0.01);
  Index updated = 0, rounded = 0;
  for (auto const& operation : backend.operations()) {
    std::string const name(operation.name);
    CAPTURE(name);
    // `download`, `sum`, `count_at_least` and `synchronize` wait; `cast_weights` is a pass of its own.
    bool quiet = false;
    for (auto const* const verb : {"store", "add_loss", "add_squares", "decide_update", "adamw"}) quiet |= name == verb;
    CHECK(quiet);
    if (name != "adamw") continue;
    updated += operation.shapes.front().rows;
    rounded += operation.shapes.back().rows;
  }
  Index const trained = parameters.layout().total_size() - parameters.layout().find("bias").size();
  CHECK(updated == trained);
  CHECK(rounded == trained);
  CHECK(trace::first_out_of_order(backend.operations(), {"add_loss", "add_squares", "decide_update", "adamw"}).empty());
}
