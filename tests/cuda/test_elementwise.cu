// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.cuh"
#include "cuda/guarded_rows.cuh"

#include "mor/backend/cuda/ops/elementwise.cuh"

using namespace mor;

namespace {

struct Shape {
  Index rows, cols, padding;
};

constexpr Shape kShapes[] = {{0, 8, 0},    {1, 1, 0},    {1, 7, 0},     {1, 8191, 0}, {3, 7, 0},
                             {5, 33, 3},   {9, 64, 8},   {9, 100, 4},   {5000, 1, 0}, {5000, 1, 2},
                             {300, 96, 8}, {300, 96, 0}, {7, 320, 1280}};

}  // namespace

TEMPLATE_TEST_CASE("fill on the device writes one value, and nothing between rows", "[cuda][quick]", float, bfloat16) {
  test::Device device;
  for (auto const& [rows, cols, padding] : kShapes) {
    CAPTURE(rows, cols, padding);
    for (double const value : {0.0, -2.5, 0.1}) {
      test::DeviceMatrix<TestType> const out(device, rows, cols, padding);
      cuda::fill<TestType>(device.context(), out.view(), value);
      std::vector<double> const expected(static_cast<std::size_t>(rows * cols), value);
      REQUIRE(out.values() == test::rounded<TestType>(expected));
      REQUIRE(out.intact());
    }
  }
}

TEST_CASE("fill on the device writes integers", "[cuda][quick]") {
  test::Device device;
  for (std::size_t const count : {0, 1, 3, 4, 33, 5000}) {
    CAPTURE(count);
    test::GuardedRows const out(device, count);
    cuda::fill(device.context(), out.span(), Row{-7});
    REQUIRE(out.values() == std::vector<Row>(count, -7));
    REQUIRE(out.intact());
  }
}

TEMPLATE_TEST_CASE("copy on the device keeps every bit, and nothing between rows", "[cuda][quick]", float, bfloat16) {
  test::Device device;
  for (auto const& [rows, cols, padding] : kShapes) {
    for (Index const other_padding : {padding, Index{0}, Index{16}}) {
      CAPTURE(rows, cols, padding, other_padding);
      auto const x = test::random_values<TestType>(rows * cols, 1);
      test::DeviceMatrix<TestType> const from(device, rows, cols, x, padding), to(device, rows, cols, other_padding);
      cuda::copy<TestType>(device.context(), from.read(), to.view());
      REQUIRE(to.values() == x);
      REQUIRE((from.intact() && to.intact()));
    }
  }
}

TEMPLATE_TEST_CASE("copy on the device moves columns that are not aligned", "[cuda][quick]", float, bfloat16) {
  test::Device device;
  auto const x = test::random_values<TestType>(40 * 64, 1), before = test::random_values<TestType>(40 * 64, 2);
  for (Index const first : {0, 1, 8}) {
    for (Index const count : {0, 1, 16, 55}) {
      CAPTURE(first, count);
      test::DeviceMatrix<TestType> const from(device, 40, 64, x), to(device, 40, 64, before);
      cuda::copy<TestType>(device.context(), from.read().columns(first, count), to.view().columns(first, count));
      auto expected = before;
      for (Index i = 0; i < 40; ++i) {
        for (Index j = first; j < first + count; ++j) {
          expected[static_cast<std::size_t>(i * 64 + j)] = x[static_cast<std::size_t>(i * 64 + j)];
        }
      }
      REQUIRE(to.values() == expected);
    }
  }
}

TEMPLATE_TEST_CASE("add on the device rounds each sum once", "[cuda][quick]", float, bfloat16) {
  test::Device device;
  for (auto const& [rows, cols, padding] : kShapes) {
    CAPTURE(rows, cols, padding);
    auto const x = test::random_values<TestType>(rows * cols, 1),
               before = test::random_values<TestType>(rows * cols, 2);
    auto expected = before;
    for (std::size_t n = 0; n < x.size(); ++n) {
      expected[n] = static_cast<double>(static_cast<float>(x[n]) + static_cast<float>(before[n]));
    }
    test::DeviceMatrix<TestType> const from(device, rows, cols, x, padding), to(device, rows, cols, before, padding);
    cuda::add<TestType>(device.context(), from.read(), to.view());
    REQUIRE(to.values() == test::rounded<TestType>(expected));
    REQUIRE(to.intact());
  }
}
