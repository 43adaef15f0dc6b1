// SPDX-License-Identifier: Apache-2.0
/// @file
/// Compares hand-written gradients with differences of the forward pass, in double.
#pragma once

#include "support/catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace mor::test {

/// A scalar function of some vectors, with its gradients.
struct Differentiable {
  struct Input {
    std::string name;
    std::vector<double>* values;
  };
  std::vector<Input> inputs;
  std::function<double()> loss;                                   ///< from the inputs' present values
  std::function<std::vector<std::vector<double>>()> gradients;    ///< one vector per input, in their order
};

/// How close is close enough.
struct GradcheckLimits {
  double element = 1e-6;   ///< |a - n| / max(floor, |a|, |n|) of every element
  double floor = 1e-3;     ///< gradients below it are compared absolutely
  double norm = 1e-8;      ///< |a - n| / |n| of each input as a whole
};

/// The derivative of `loss` by one number, from four points: its error is of fourth order in the step.
[[nodiscard]] inline double numeric_derivative(std::function<double()> const& loss, double& value) {
  double const start = value;
  double const step = 1e-3 * std::max(1.0, std::abs(start));
  auto const at = [&](double offset) {
    value = start + offset;
    return loss();
  };
  double const near = at(step) - at(-step);
  double const far = at(2.0 * step) - at(-2.0 * step);
  value = start;
  return (8.0 * near - far) / (12.0 * step);
}

/// Checks every element of every input, and that two backward runs give the same bits.
inline void check_gradients(Differentiable const& function, GradcheckLimits limits = {}) {
  auto const analytic = function.gradients();
  auto const again = function.gradients();
  REQUIRE(analytic.size() == function.inputs.size());
  for (std::size_t input = 0; input < function.inputs.size(); ++input) {
    auto const& [name, values] = function.inputs[input];
    INFO("gradient of " << name);
    REQUIRE(analytic[input].size() == values->size());
    REQUIRE(std::memcmp(analytic[input].data(), again[input].data(), values->size() * sizeof(double)) == 0);
    double worst = 0.0, error = 0.0, norm = 0.0;
    std::size_t place = 0;
    for (std::size_t i = 0; i < values->size(); ++i) {
      double const a = analytic[input][i];
      double const n = numeric_derivative(function.loss, (*values)[i]);
      double const relative = std::abs(a - n) / std::max({limits.floor, std::abs(a), std::abs(n)});
      if (!(relative <= worst)) {
        worst = relative;
        place = i;
      }
      error += (a - n) * (a - n);
      norm += n * n;
    }
    INFO("worst element " << place << " of " << values->size());
    REQUIRE(worst < limits.element);
    if (norm > 0.0) REQUIRE(std::sqrt(error / norm) < limits.norm);
  }
}

/// sum_i weights[i] * values[i]: a loss whose gradient by `values` is `weights`.
[[nodiscard]] inline double weighted_sum(std::vector<double> const& weights, std::vector<double> const& values) {
  double total = 0.0;
  for (std::size_t i = 0; i < values.size(); ++i) total += weights[i] * values[i];
  return total;
}

}  // namespace mor::test
