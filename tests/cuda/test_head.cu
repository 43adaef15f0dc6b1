// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.cuh"
#include "cuda/oracle.hpp"

#include "mor/backend/cuda/ops/head.cuh"


using namespace mor;

namespace {

/// head_loss and head_loss_backward on the device and on the host.
template <class T>
void check_head(Index rows, Index size, Index vocabulary, Index padding) {
  CAPTURE(rows, size, vocabulary, padding);
  test::Device device;
  cuda::Blas blas(device.memory(), device.facts(), {});
  cuda::Context context = device.context();
  context.blas = &blas;
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

}  // namespace

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
