// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.cuh"
#include "cuda/oracle.hpp"

#include "mor/backend/cuda/ops/rope.cuh"

#include <cmath>

using namespace mor;

namespace {

struct Shape {
  Index rows, heads, head_dim, padding;
};

std::vector<Row> scattered_positions(Index rows, Index most) {
  std::vector<Row> positions;
  for (Index i = 0; i < rows; ++i) positions.push_back(static_cast<Row>(i * 7919 % most));
  return positions;
}

}  // namespace

TEMPLATE_TEST_CASE("rope on the device turns every head by its row's angles, and back", "[cuda][quick]", float, bfloat16) {
  test::Device device;
  for (auto const& [rows, heads, head_dim, padding] : {Shape{0, 2, 8, 0},
                                                       {1, 1, 2, 0},
                                                       {3, 3, 6, 1},
                                                       {33, 2, 10, 0},
                                                       {100, 20, 64, 320},
                                                       {1500, 4, 16, 8},
                                                       {7, 1, 256, 0},
                                                       {70, 9, 64, 1},
                                                       {5, 40, 128, 0},
                                                       {3, 1, 8192, 0},
                                                       {2000, 1, 2, 3}}) {
    CAPTURE(rows, heads, head_dim, padding);
    Index const cols = heads * head_dim;
    auto const positions = scattered_positions(rows, head_dim > 1024 ? 64 : 4096);  // the oracle keeps a table
    auto const x = test::random_values<TestType>(rows * cols, 1);
    test::DeviceRows const device_positions(device, positions);
    for (Rotation const rotation : {Rotation::Forward, Rotation::Backward}) {
      auto expected = x;
      test::Oracle().rope(positions, head_dim, 10000.0, rotation, {expected.data(), rows, cols});
      test::DeviceMatrix<TestType> const turned(device, rows, cols, x, padding), again(device, rows, cols, x, padding);
      for (auto const* const matrix : {&turned, &again}) {
        cuda::rope<TestType>(device.context(), device_positions.read(), head_dim, 10000.0, rotation, matrix->view());
      }
      REQUIRE(test::relative_error(turned.values(), expected) < test::kTolerance<TestType>);
      REQUIRE(test::worst_difference(turned.values(), expected) < (std::is_same_v<TestType, float> ? 1e-6 : 8e-3));
      REQUIRE(turned.intact());
      REQUIRE(turned.raw_values() == again.raw_values());
      Rotation const back = rotation == Rotation::Forward ? Rotation::Backward : Rotation::Forward;
      cuda::rope<TestType>(device.context(), device_positions.read(), head_dim, 10000.0, back, turned.view());
      REQUIRE(test::relative_error(turned.values(), x) < 2.0 * test::kTolerance<TestType>);
    }
  }
}

TEST_CASE("rope on the device keeps its precision at position 2^20", "[cuda][quick]") {
  test::Device device;
  Index const rows = 64, heads = 2, head_dim = 64, cols = heads * head_dim, half = head_dim / 2;
  std::vector<Row> positions;
  for (Index i = 0; i < rows; ++i) positions.push_back(static_cast<Row>((Index{1} << 20) - 37 * i));
  auto const x = test::random_values<float>(rows * cols, 1);
  for (double const theta : {1e4, 5e5}) {
    auto expected = x;
    for (Index i = 0; i < rows; ++i) {
      for (Index j = 0; j < cols; j += head_dim) {
        for (Index pair = 0; pair < half; ++pair) {
          long double const frequency = std::pow(static_cast<long double>(theta), -2.0L * pair / head_dim);
          long double const angle = positions[static_cast<std::size_t>(i)] * frequency;
          auto const cosine = static_cast<double>(std::cos(angle)), sine = static_cast<double>(std::sin(angle));
          auto const at = static_cast<std::size_t>(i * cols + j + pair), other = at + static_cast<std::size_t>(half);
          expected[at] = x[at] * cosine - x[other] * sine;
          expected[other] = x[other] * cosine + x[at] * sine;
        }
      }
    }
    test::DeviceRows const device_positions(device, positions);
    test::DeviceMatrix<float> const turned(device, rows, cols, x);
    cuda::rope<float>(device.context(), device_positions.read(), head_dim, theta, Rotation::Forward, turned.view());
    REQUIRE(test::worst_difference(turned.values(), expected) < 5e-7);
  }
}

TEST_CASE("rope on the device refuses a head dimension that does not fit", "[cuda][quick]") {
  test::Device device;
  test::DeviceRows const positions(device, {0, 1});
  test::DeviceMatrix<float> const x(device, 2, 12, std::vector<double>(24, 1.0));
  for (Index const head_dim : {Index{0}, Index{-4}, Index{3}, Index{8}}) {
    CAPTURE(head_dim);
    REQUIRE_THROWS_AS(
        cuda::rope<float>(device.context(), positions.read(), head_dim, 10000.0, Rotation::Forward, x.view()),
        mor::error);
  }
}
