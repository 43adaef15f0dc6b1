// SPDX-License-Identifier: Apache-2.0
#include "cuda/blas_device.cuh"
#include "cuda/device.cuh"
#include "cuda/oracle.hpp"

#include "mor/backend/cuda/ops/logits.cuh"


#include <cstdio>
#include <fstream>

using namespace mor;

namespace {

/// Every verb of BackendLinear but the router's, on the device and on the host.
template <class T>
void check_linear(Index rows, Index in, Index out, Index padding) {
  CAPTURE(rows, in, out, padding);
  test::BlasDevice device;
  cuda::Context const context = device.blas_context();
  test::Oracle host;
  auto const x = test::random_values<T>(rows * in, 1), w = test::random_values<T>(out * in, 2),
             y = test::random_values<T>(rows * out, 3), before = test::random_values<float>(out * in, 4);
  test::DeviceMatrix<T> const dx(device, rows, in, x, padding), dw(device, out, in, w, padding), dy(device, rows, out, y, padding);
  View<double const> const hx(x.data(), rows, in), hw(w.data(), out, in), hy(y.data(), rows, out);
  double const tolerance = test::kTolerance<T>;

  std::vector<double> expected(y.size());
  View<double> const expected_view(expected.data(), rows, out);
  test::DeviceMatrix<T> const result(device, rows, out, padding);
  cuda::linear<T, T>(context, dx.read(), dw.read(), 1.0F, result.view());
  host.linear(hx, hw, expected_view);
  REQUIRE(test::relative_error(result.values(), expected) < tolerance);
  REQUIRE(result.intact());
  test::DeviceMatrix<T> const sum(device, rows, out, padding), in_place(device, rows, out, y, padding);
  cuda::linear_residual<T>(context, dx.read(), dw.read(), dy.read(), sum.view());
  cuda::linear_residual<T>(context, dx.read(), dw.read(), in_place.read(), in_place.view());
  host.linear_residual(hx, hw, hy, expected_view);
  REQUIRE(test::relative_error(sum.values(), expected) < tolerance);
  REQUIRE(test::relative_error(in_place.values(), expected) < tolerance);

  for (bool const accumulate : {false, true}) {
    std::vector<double> d_x = x;
    test::DeviceMatrix<T> const device_d_x(device, rows, in, x, padding);
    cuda::linear_backward_input<T>(context, dy.read(), dw.read(), accumulate, device_d_x.view());
    host.linear_backward_input(hy, hw, accumulate, {d_x.data(), rows, in});
    REQUIRE(test::relative_error(device_d_x.values(), d_x) < tolerance);
    REQUIRE(device_d_x.intact());
  }
  std::vector<double> d_w = before;
  test::DeviceMatrix<float> const device_d_w(device, out, in, before);
  cuda::linear_backward_weight<T>(context, dy.read(), dx.read(), device_d_w.view());
  host.linear_backward_weight(hy, hx, {d_w.data(), out, in});
  REQUIRE(test::relative_error(device_d_w.values(), d_w) < tolerance);
  REQUIRE(device_d_w.intact());
}

/// linear_logits and its gradients; rows, also of the weights' gradient, are `padding` elements apart.
template <class T>
void check_logits(Index rows, Index in, Index out, Index padding = 0) {
  CAPTURE(rows, in, out, padding);
  test::BlasDevice device;
  cuda::Context const context = device.blas_context();
  test::Oracle host;
  auto const x = test::random_values<T>(rows * in, 1), w = test::random_values<T>(out * in, 2);
  auto const d_out = test::random_values<float>(rows * out, 3), before = test::random_values<float>(out * in, 4);
  test::DeviceMatrix<T> const dx(device, rows, in, x, padding), dw(device, out, in, w, padding);
  View<double const> const hx(x.data(), rows, in), hw(w.data(), out, in), h_out(d_out.data(), rows, out);
  std::vector<double> expected(d_out.size()), d_x = x, d_w = before;
  test::DeviceMatrix<float> const result(device, rows, out, padding), device_d_out(device, rows, out, d_out, padding);
  cuda::linear_logits<T>(context, dx.read(), dw.read(), 0.7, result.view());
  host.linear_logits(hx, hw, 0.7, {expected.data(), rows, out});
  REQUIRE(test::relative_error(result.values(), expected) < 2e-6);  // float whatever the storage
  REQUIRE(result.intact());
  host.linear_logits_backward(h_out, hx, hw, 0.7, {d_x.data(), rows, in}, {d_w.data(), out, in});
  std::vector<T> first_d_x;
  std::vector<float> first_d_w;
  for (int run = 0; run < 3; ++run) {  // the last time without the gradient of x
    test::DeviceMatrix<T> const device_d_x(device, rows, in, x, padding);
    test::DeviceMatrix<float> const device_d_w(device, out, in, before, padding);
    cuda::linear_logits_backward<T>(context, device_d_out.read(), dx.read(), dw.read(), 0.7,
                                    run < 2 ? device_d_x.view() : View<T>{}, device_d_w.view());
    REQUIRE(test::relative_error(device_d_w.values(), d_w) < 2e-6);
    REQUIRE((device_d_x.intact() && device_d_w.intact()));
    if (run == 2) {
      REQUIRE(device_d_x.values() == x);
      break;
    }
    REQUIRE(test::relative_error(device_d_x.values(), d_x) < test::kTolerance<T>);
    if (run == 1 && out <= 32) REQUIRE((device_d_x.raw_values() == first_d_x && device_d_w.raw_values() == first_d_w));
    first_d_x = device_d_x.raw_values();
    first_d_w = device_d_w.raw_values();
  }
}

}  // namespace

TEMPLATE_TEST_CASE("dense layers and their gradients agree with the host", "[cuda]", float, bfloat16) {
  check_linear<TestType>(1, 8, 8, 0);
  check_linear<TestType>(3, 7, 5, 3);
  check_linear<TestType>(257, 96, 160, 8);
  check_linear<TestType>(4096, 64, 48, 0);
}

TEMPLATE_TEST_CASE("router logits and their gradients agree with the host", "[cuda]", float, bfloat16) {
  check_logits<TestType>(1, 8, 1);
  check_logits<TestType>(100, 7, 3);
  check_logits<TestType>(3000, 960, 1);
  check_logits<TestType>(2501, 1100, 1, 4);  // columns for more than one block, rows that no batch divides
  check_logits<TestType>(5000, 72, 3, 8);
  check_logits<TestType>(300, 2056, 5);      // more outputs than one thread sums
  check_logits<TestType>(33, 36, 2, 3);      // no 16-byte access fits
  check_logits<TestType>(65, 64, 6);
  check_logits<TestType>(65, 64, 40);  // a vocabulary
}

TEST_CASE("empty products do nothing", "[cuda]") {
  test::BlasDevice device;
  cuda::Context const context = device.blas_context();
  test::DeviceMatrix<float> const w(device, 4, 8, test::random_values<float>(32, 1)), d_w(device, 4, 8, test::random_values<float>(32, 2));
  auto const before = d_w.values();
  cuda::linear<float, float>(context, {w.view().data, 0, 8}, w.read(), 1.0F, {w.view().data, 0, 4});
  cuda::linear_backward_weight<float>(context, {w.view().data, 0, 4}, {w.view().data, 0, 8}, d_w.view());
  cuda::linear_logits_backward<float>(context, {w.view().data, 0, 4}, {w.view().data, 0, 8}, w.read(), 1.0, {}, d_w.view());
  REQUIRE(d_w.values() == before);
}

TEST_CASE("searched algorithms are recorded, and a record that cannot be read is passed over", "[cuda]") {
  test::Device device;
  std::string const path = std::string(MOR_BINARY_DIR) + "/gemm_record_test.txt";
  std::remove(path.c_str());
  std::ofstream(path) << "nonsense\n" << device.facts().name << " | 1 | bad\n";
  Index const rows = 4096, size = 1024;
  auto const x = test::random_values<bfloat16>(rows * size, 1), w = test::random_values<bfloat16>(size * size, 2);
  test::DeviceMatrix<bfloat16> const dx(device, rows, size, x), dw(device, size, size, w);
  auto const multiply = [&] {
    cuda::Blas blas(device.memory(), device.facts(), {Index{32} << 20, true, path});
    cuda::Context context = device.context();
    context.blas = &blas;
    test::DeviceMatrix<bfloat16> const out(device, rows, size);
    cuda::linear<bfloat16, bfloat16>(context, dx.read(), dw.read(), 1.0F, out.view());
    return out.values();
  };
  auto const lines = [&] {
    std::ifstream file(path);
    int count = 0;
    for (std::string line; std::getline(file, line);) ++count;
    return count;
  };
  auto const first = multiply();
  REQUIRE(lines() == 3);
  REQUIRE(multiply() == first);
  REQUIRE(lines() == 3);
}
