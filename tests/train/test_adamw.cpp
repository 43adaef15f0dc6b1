// SPDX-License-Identifier: Apache-2.0
// AdamW follows its formula, clips the global norm, and leaves norms undecayed and frozen tensors alone.
#include "support/catch.hpp"

#include "mor/backend/host/backend.hpp"
#include "mor/train/adamw.hpp"

#include <cmath>
#include <limits>

using namespace mor;

namespace {

using Host = host::Backend<double>;

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

}  // namespace

TEST_CASE("one AdamW step by hand: decoupled decay, none on norms, tenfold rate for the auxiliary router") {
  Fixture f;
  f.settings.clip_norm = 0.0;
  train::Adamw<Host> optimizer(f.backend, f.parameters, f.settings);
  f.set_gradients({0.3, -0.4, 0.5, 0.6, 9.0});
  auto const norms = optimizer.gradient_norms();
  CHECK(norms.main == Approx(std::sqrt(0.09 + 0.16 + 0.25)));
  CHECK(norms.aux_router == Approx(0.6));
  optimizer.apply(0.01, norms);
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
  optimizer.apply(0.01, optimizer.gradient_norms());
  CHECK(optimizer.first_moment()[0] == Approx(0.1 * 3.0 / 5.0));
  CHECK(optimizer.first_moment()[3] == Approx(0.1 * 0.5));
}

TEST_CASE("a NaN or infinite gradient shows in the norms and is not hidden") {
  Fixture f;
  train::Adamw<Host> optimizer(f.backend, f.parameters, f.settings);
  f.set_gradients({0.0, std::numeric_limits<double>::quiet_NaN(), 0.0, 0.0, 0.0});
  CHECK(std::isnan(optimizer.gradient_norms().main));
  CHECK_FALSE(optimizer.gradient_norms().finite());
  f.set_gradients({0.0, std::numeric_limits<double>::infinity(), 0.0, 0.0, 0.0});
  CHECK(std::isinf(optimizer.gradient_norms().main));
}
