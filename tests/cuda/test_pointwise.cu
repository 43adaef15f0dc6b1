// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.cuh"
#include "cuda/oracle.hpp"

#include "mor/backend/cuda/ops/pointwise.cuh"

using namespace mor;

namespace {

struct Shape {
  Index rows, cols, padding;
};

constexpr Shape kShapes[] = {{0, 8, 0},   {1, 1, 0},      {1, 7, 0},    {1, 8, 0},  {3, 7, 0},
                             {5, 33, 3},  {1, 100, 0},    {9, 100, 4},  {9, 64, 8}, {2000, 3, 0},
                             {70, 96, 0}, {301, 160, 16}, {17, 2560, 0}};

/// Random numbers in (-6, 6).
template <class T>
std::vector<double> wide_values(Index count, std::uint64_t seed) {
  auto values = test::random_values<T>(count, seed);
  for (double& value : values) value *= 6.0;
  return test::rounded<T>(values);
}

/// Two fresh outputs of one operation: right, untouched outside, and the same bits.
template <class T, class Operation>
void check_map(test::Device& device, Index rows, Index cols, Index padding, std::vector<double> const& expected,
               Operation operation) {
  test::DeviceMatrix<T> const out(device, rows, cols, padding), again(device, rows, cols, padding);
  operation(out.view());
  operation(again.view());
  REQUIRE(test::relative_error(out.values(), expected) < test::kTolerance<T>);
  REQUIRE(out.intact());
  REQUIRE(out.raw_values() == again.raw_values());
}

}  // namespace

TEMPLATE_TEST_CASE("swiglu and its gradient on the device follow their definitions", "[cuda][quick]", float, bfloat16) {
  test::Device device;
  test::Oracle oracle;
  for (auto const& [rows, cols, padding] : kShapes) {
    CAPTURE(rows, cols, padding);
    auto const gate_up = wide_values<TestType>(rows * 2 * cols, 1),
               d_out = test::random_values<TestType>(rows * cols, 2);
    std::vector<double> out(d_out.size()), d_gate_up(gate_up.size());
    oracle.swiglu({gate_up.data(), rows, 2 * cols}, {out.data(), rows, cols});
    oracle.swiglu_backward({d_out.data(), rows, cols}, {gate_up.data(), rows, 2 * cols},
                           {d_gate_up.data(), rows, 2 * cols}, {});
    test::DeviceMatrix<TestType> const device_gate_up(device, rows, 2 * cols, gate_up, padding);
    test::DeviceMatrix<TestType> const device_d_out(device, rows, cols, d_out, padding);
    check_map<TestType>(device, rows, cols, padding, out, [&](View<TestType> to) {
      cuda::swiglu<TestType>(device.context(), device_gate_up.read(), to);
    });
    check_map<TestType>(device, rows, 2 * cols, padding, d_gate_up, [&](View<TestType> to) {
      cuda::swiglu_backward<TestType>(device.context(), device_d_out.read(), device_gate_up.read(), to, {});
    });
    // In place, with the forward result where d_out was.
    test::DeviceMatrix<TestType> const plain(device, rows, cols, padding), gradients(device, rows, 2 * cols, padding),
        reused(device, rows, cols, d_out, padding), in_place(device, rows, 2 * cols, gate_up, padding);
    cuda::swiglu<TestType>(device.context(), device_gate_up.read(), plain.view());
    cuda::swiglu_backward<TestType>(device.context(), device_d_out.read(), device_gate_up.read(), gradients.view(), {});
    cuda::swiglu_backward<TestType>(device.context(), reused.read(), in_place.read(), in_place.view(), reused.view());
    REQUIRE(reused.raw_values() == plain.raw_values());
    REQUIRE(in_place.raw_values() == gradients.raw_values());
    REQUIRE((reused.intact() && in_place.intact()));
  }
}

TEMPLATE_TEST_CASE("swiglu on the device stays finite for large gates", "[cuda][quick]", float, bfloat16) {
  test::Device device;
  std::vector<double> const gates{-300.0, -100.0, -90.0, 0.0, 90.0, 100.0, 300.0, 1e30};
  auto gate_up = gates;
  gate_up.insert(gate_up.end(), 8, 1.0);
  test::DeviceMatrix<TestType> const device_gate_up(device, 1, 16, gate_up), out(device, 1, 8),
      d_gate_up(device, 1, 16);
  test::DeviceMatrix<TestType> const d_out(device, 1, 8, std::vector<double>(8, 1.0));
  cuda::swiglu<TestType>(device.context(), device_gate_up.read(), out.view());
  cuda::swiglu_backward<TestType>(device.context(), d_out.read(), device_gate_up.read(), d_gate_up.view(), {});
  auto const values = out.values(), gradients = d_gate_up.values();
  auto const stored = test::rounded<TestType>(gates);
  for (std::size_t i = 0; i < stored.size(); ++i) {
    CAPTURE(stored[i], values[i], gradients[i]);
    REQUIRE(values[i] == Approx(std::max(stored[i], 0.0)).margin(1e-20));
    REQUIRE(gradients[i] == Approx(stored[i] == 0.0 ? 0.5 : stored[i] > 0.0 ? 1.0 : 0.0).margin(1e-20));
  }
}

TEMPLATE_TEST_CASE("gelu and its gradient on the device follow their definitions", "[cuda][quick]", float, bfloat16) {
  test::Device device;
  test::Oracle oracle;
  for (auto const& [rows, cols, padding] : kShapes) {
    CAPTURE(rows, cols, padding);
    auto const x = wide_values<TestType>(rows * cols, 1), d_out = test::random_values<TestType>(rows * cols, 2);
    std::vector<double> out(x.size()), d_x(x.size());
    oracle.gelu({x.data(), rows, cols}, 0.75, {out.data(), rows, cols});
    oracle.gelu_backward({d_out.data(), rows, cols}, {x.data(), rows, cols}, 0.75, {d_x.data(), rows, cols});
    test::DeviceMatrix<TestType> const device_x(device, rows, cols, x, padding);
    test::DeviceMatrix<TestType> const device_d_out(device, rows, cols, d_out, padding);
    check_map<TestType>(device, rows, cols, padding, out,
                        [&](View<TestType> to) { cuda::gelu<TestType>(device.context(), device_x.read(), 0.75, to); });
    check_map<TestType>(device, rows, cols, padding, d_x, [&](View<TestType> to) {
      cuda::gelu_backward<TestType>(device.context(), device_d_out.read(), device_x.read(), 0.75, to);
    });
  }
}
