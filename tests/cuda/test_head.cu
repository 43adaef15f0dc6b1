// SPDX-License-Identifier: Apache-2.0
#include "cuda/blas_device.cuh"
#include "cuda/device.cuh"
#include "cuda/oracle.hpp"

#include "mor/backend/cuda/ops/head.cuh"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

using namespace mor;

namespace {

/// head_loss and head_loss_backward on the device and on the host.
template <class T>
void check_head(Index rows, Index size, Index vocabulary, Index padding) {
  CAPTURE(rows, size, vocabulary, padding);
  test::BlasDevice device;
  cuda::Context const context = device.blas_context();
  double const weight = 0.125;
  auto const x = test::random_values<T>(rows * size, 1), w = test::random_values<T>(vocabulary * size, 2);
  auto const before = test::random_values<float>(vocabulary * size, 3);
  std::vector<Token> targets;
  for (Index i = 0; i < rows; ++i) targets.push_back(static_cast<Token>(i % 5 == 3 ? -1 : (i * 7919) % vocabulary));

  test::Oracle host;
  std::vector<double> losses(static_cast<std::size_t>(rows)), d_x(x.size()), d_w = before;
  host.head_loss_backward({x.data(), rows, size}, {w.data(), vocabulary, size}, targets, weight, losses,
                          {d_x.data(), rows, size}, {d_w.data(), vocabulary, size});

  test::DeviceMatrix<T> const device_x(device, rows, size, x, padding), device_w(device, vocabulary, size, w, padding);
  test::DeviceRows const device_targets(device, targets);
  test::DeviceMatrix<float> const forward(device, rows, 1), device_losses(device, rows, 1);
  test::DeviceMatrix<T> const device_d_x(device, rows, size, padding);
  test::DeviceMatrix<float> const device_d_w(device, vocabulary, size, before);
  cuda::head_loss<T>(context, device_x.read(), device_w.read(), device_targets.read(), forward.span());
  cuda::head_loss_backward<T>(context, device_x.read(), device_w.read(), device_targets.read(), weight,
                              device_losses.span(), device_d_x.view(), device_d_w.view());
  double const tolerance = test::kTolerance<T>;
  REQUIRE(test::relative_error(forward.values(), losses) < tolerance);
  REQUIRE(test::relative_error(device_losses.values(), losses) < tolerance);
  REQUIRE(test::relative_error(device_d_x.values(), d_x) < 2 * tolerance);
  REQUIRE(test::relative_error(device_d_w.values(), d_w) < 2 * tolerance);
  REQUIRE((forward.intact() && device_losses.intact() && device_d_x.intact() && device_d_w.intact()));
}

/// Rows of four kinds: random, steadily rising (so that every pack outgrows the last), all but a few columns at
/// -infinity, and far from zero. Rows whose target does not count are NaN.
template <class T>
std::vector<double> varied_logits(std::vector<Token> const& targets, Index vocabulary) {
  auto const infinity = std::numeric_limits<double>::infinity();
  auto const rows = static_cast<Index>(targets.size());
  auto logits = test::random_values<T>(rows * vocabulary, 7);
  for (Index i = 0; i < rows; ++i) {
    Token const target = targets[static_cast<std::size_t>(i)];
    for (Index j = 0; j < vocabulary; ++j) {
      double& x = logits[static_cast<std::size_t>(i * vocabulary + j)];
      if (i % 4 == 0) x *= 6.0;
      if (i % 4 == 1) x += 300.0 * static_cast<double>(j) / static_cast<double>(vocabulary);
      if (i % 4 == 2 && j != target && j % 7 != 3) x = -infinity;
      if (i % 4 == 3) x = 1000.0 + 8.0 * x;
      if (target < 0) x = std::numeric_limits<double>::quiet_NaN();
    }
  }
  return test::rounded<T>(logits);
}

/// The cross-entropy alone, against its definition, element by element.
template <class T>
void check_cross_entropy(Index rows, Index vocabulary, Index padding) {
  CAPTURE(rows, vocabulary, padding);
  test::Device device;
  double const weight = 0.125;
  std::vector<Token> targets;
  for (Index i = 0; i < rows; ++i) targets.push_back(static_cast<Token>(i % 9 == 5 ? -1 : (i * 7919 + 3) % vocabulary));
  auto const logits = varied_logits<T>(targets, vocabulary);
  std::vector<double> losses, gradient(logits.size());
  for (Index i = 0; i < rows; ++i) {
    double const* const x = logits.data() + i * vocabulary;
    Token const target = targets[static_cast<std::size_t>(i)];
    double highest = -std::numeric_limits<double>::infinity(), sum = 0.0;
    for (Index j = 0; j < vocabulary; ++j) highest = std::max(highest, x[j]);
    for (Index j = 0; j < vocabulary; ++j) sum += std::exp(x[j] - highest);
    losses.push_back(target < 0 ? 0.0 : std::log(sum) + highest - x[target]);
    for (Index j = 0; j < vocabulary && target >= 0; ++j) {
      gradient[static_cast<std::size_t>(i * vocabulary + j)] =
          weight * (std::exp(x[j] - highest) / sum - (j == target ? 1.0 : 0.0));
    }
  }
  test::DeviceRows const device_targets(device, targets);
  test::DeviceMatrix<T> const read(device, rows, vocabulary, logits, padding);
  test::DeviceMatrix<float> const forward(device, rows, 1);
  cuda::detail::cross_entropy<false>(device.context(), read.view(), device_targets.read().data(), 0.0F,
                                     forward.view().data);
  REQUIRE(test::relative_error(forward.values(), losses) < test::kTolerance<T>);
  std::vector<T> first;
  std::vector<float> first_losses;
  for (int run = 0; run < 2; ++run) {
    test::DeviceMatrix<T> const matrix(device, rows, vocabulary, logits, padding);
    test::DeviceMatrix<float> const device_losses(device, rows, 1);
    cuda::detail::cross_entropy<true>(device.context(), matrix.view(), device_targets.read().data(),
                                      static_cast<float>(weight), device_losses.view().data);
    REQUIRE(test::relative_error(device_losses.values(), losses) < test::kTolerance<T>);
    auto const values = matrix.values();
    REQUIRE(test::relative_error(values, gradient) < test::kTolerance<T>);
    double worst = 0.0;  // of the larger of 1e-25 and 1 % (0.1 % for float) of each element
    double const share = std::is_same_v<T, float> ? 1e-3 : 1e-2;
    for (std::size_t n = 0; n < values.size(); ++n) {
      worst = std::max(worst, std::abs(values[n] - gradient[n]) / std::max(1e-25, share * std::abs(gradient[n])));
    }
    REQUIRE(worst < 1.0);
    REQUIRE((matrix.intact() && device_losses.intact()));
    if (!first.empty()) REQUIRE((matrix.raw_values() == first && device_losses.raw_values() == first_losses));
    first = matrix.raw_values();
    first_losses = device_losses.raw_values();
  }
}

}  // namespace

TEMPLATE_TEST_CASE("cross-entropy and its gradient follow their definition for every element", "[cuda][quick]", float,
                   bfloat16) {
  check_cross_entropy<TestType>(1, 8, 0);
  check_cross_entropy<TestType>(7, 31, 2);         // no 16-byte access fits
  check_cross_entropy<TestType>(9, 1001, 0);
  check_cross_entropy<TestType>(5, 4096, 8);       // a pack a thread, or two
  check_cross_entropy<TestType>(1500, 1064, 0);
  check_cross_entropy<TestType>(40, 16392, 8);     // more than whole turns of a block
}

TEST_CASE("cross-entropy of rows that fill shared memory once, twice and not at all", "[cuda]") {
  check_cross_entropy<bfloat16>(300, 49152, 0);   // two rows a multiprocessor
  check_cross_entropy<bfloat16>(150, 100000, 0);  // one
  check_cross_entropy<bfloat16>(20, 130000, 0);   // read twice from device memory
  check_cross_entropy<float>(150, 40000, 0);
  check_cross_entropy<float>(20, 60000, 0);
}

TEMPLATE_TEST_CASE("head loss and its gradients agree with the host", "[cuda]", float, bfloat16) {
  check_head<TestType>(1, 8, 16, 0);
  check_head<TestType>(33, 64, 1000, 8);
  check_head<TestType>(130, 40, 60000, 0);  // rows of logits too long for shared memory where they are floats
  check_head<TestType>(9, 24, 31, 0);       // a vocabulary that no 16-byte access fits
}

TEST_CASE("logits in groups give the losses of logits at once", "[cuda]") {
  REQUIRE(cuda::tuning::head_rows(32768, 49152, 2) == 4096);
  REQUIRE(cuda::tuning::head_rows(100, 49152, 2) == 100);
  REQUIRE(cuda::tuning::head_rows(5000, 49152, 2) == 2560);
  check_head<bfloat16>(5000, 16, 49152, 0);
}
